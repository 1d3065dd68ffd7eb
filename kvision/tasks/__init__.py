"""Tasks: what networks learn, how their answers are judged, and which targets a batch holds for that."""

from kvision.tasks.classification import Classification
from kvision.tasks.task import Task

TASKS = {task.name: task for task in (Classification,)}

__all__ = ["TASKS", "Classification", "Task"]
