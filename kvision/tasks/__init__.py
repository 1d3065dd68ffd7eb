"""Tasks: what networks learn, how their answers are judged, and which targets a batch holds for that."""

from kvision.tasks.classification import Classification
from kvision.tasks.segmentation import Segmentation
from kvision.tasks.task import Task

TASKS = {task.name: task for task in (Classification, Segmentation)}

__all__ = ["TASKS", "Classification", "Segmentation", "Task"]
