"""Tasks: what networks learn, how their answers are judged, and which targets a batch holds for that."""

from kvision import networks
from kvision.errors import UserError
from kvision.tasks.captioning import Captioning
from kvision.tasks.captions import Captions
from kvision.tasks.classification import Classification
from kvision.tasks.detection import Detection, VOCDetection
from kvision.tasks.detections import Detections
from kvision.tasks.forecasting import Forecasting
from kvision.tasks.forecasts import Forecasts
from kvision.tasks.multilabel import MultiLabel
from kvision.tasks.segmentation import Segmentation
from kvision.tasks.sequence import Sequence
from kvision.tasks.task import SIGNATURE, Accuracy, Answers, Classifying, Exported, Score, Task, add
from kvision.tasks.video import Video

TASKS = {
    task.name: task
    for task in (
        Classification,
        MultiLabel,
        Segmentation,
        Detection,
        Video,
        Forecasting,  # before Sequence, of whose logits there may be as many as features
        Sequence,
        Captioning,
    )
}

__all__ = [
    "SIGNATURE",
    "TASKS",
    "Accuracy",
    "Answers",
    "Captioning",
    "Captions",
    "Classification",
    "Classifying",
    "Detection",
    "Detections",
    "Exported",
    "Forecasting",
    "Forecasts",
    "MultiLabel",
    "Score",
    "Segmentation",
    "Sequence",
    "Task",
    "VOCDetection",
    "Video",
    "add",
    "task_of",
]


def task_of(model, name: str | None = None) -> type[Task]:
    """The task of a network, by the form of its outputs and the activation at its end.

    Args:
        model: the network.
        name: of the task of a network that ends in logits; None for the first with such outputs.

    Raises:
        UserError: no task has such outputs.
    """
    activation = networks.activation_of(model)
    fitting = [task for task in TASKS.values() if task.fits(model)]
    if not fitting:
        forms = " or ".join(networks.FORMS.values())
        raise UserError(f"{model.name} must have one input and one output of shape {forms}.")
    ended = [task for task in fitting if task.activation == activation]
    named = [task for task in fitting if task.name == name]
    return (ended or named or fitting)[0]
