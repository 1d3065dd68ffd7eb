"""Tasks: what networks learn, how their answers are judged, and which targets a batch holds for that."""

from kvision import _networks
from kvision.errors import UserError
from kvision.tasks.classification import Classification
from kvision.tasks.segmentation import Segmentation
from kvision.tasks.task import Accuracy, Answers, Score, Task, add

TASKS = {task.name: task for task in (Classification, Segmentation)}

__all__ = [
    "TASKS",
    "Accuracy",
    "Answers",
    "Classification",
    "Score",
    "Segmentation",
    "Task",
    "add",
    "task_of",
]


def task_of(model) -> type[Task]:
    """The task of a network, by the rank of its output.

    Raises:
        UserError: no task has such outputs.
    """
    rank = _networks.rank_of(model)
    for task in TASKS.values():
        if task.rank == rank:
            return task
    forms = " or ".join(_networks.FORMS[task.rank] for task in TASKS.values())
    raise UserError(f"{model.name} must have one input and one output of shape {forms}.")
