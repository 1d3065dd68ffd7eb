"""The parts that torchvision's detectors share: the trunk of a classifier, and a class for the background."""

import dataclasses
from typing import ClassVar

import kvision.weights
from kvision._backbones import BackboneFamily
from kvision.detection._family import DOC, DetectionFamily

BACKBONE_WEIGHTS = """    backbone_weights: those of the network that it stands on, as its builder takes them.
    {columns}:"""
CLASSES = """"classes" and "count". Class n is torchvision's label n + 1, as its label 0 is the background."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchvisionFamily(BackboneFamily, DetectionFamily):
    """A table of detectors on the trunk of the row's `backbone`.

    Attributes:
        boxes_per_place: that the layer `classifier` has logits of.
    """

    doc: ClassVar[str] = DOC.replace("    {columns}:", BACKBONE_WEIGHTS).replace(
        '"classes" and "count".', CLASSES
    )

    task: str = "detection"
    boxes_per_place: int = 1

    def _num_classes(self, weights) -> int | None:
        logits = kvision.weights.num_classes(weights, self.classifier)
        return logits and logits // self.boxes_per_place - 1
