"""The parts that torchvision's detectors share: a backbone, and a class for the background."""

import dataclasses
from typing import ClassVar

import kvision.weights
from kvision._backbones import AnyBackboneFamily
from kvision.detection._family import DOC, DetectionFamily

BACKBONE = """\
    backbone: the network that it stands on: a classifier's name, or a network of kvision, whose weights
        are copied; None for the row's.
    backbone_weights: those of the network that it stands on, as its builder takes them.
    {columns}:"""
CLASSES = """"classes" and "count". Class n is torchvision's label n + 1, as its label 0 is the background."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchvisionFamily(AnyBackboneFamily, DetectionFamily):
    """A table of detectors on the trunk of a classifier.

    Attributes:
        boxes_per_place: that the layer `classifier` has logits of.
    """

    doc: ClassVar[str] = DOC.replace("    {columns}:", BACKBONE).replace('"classes" and "count".', CLASSES)

    task: str = "detection"
    boxes_per_place: int = 1

    def _num_classes(self, weights) -> int | None:
        logits = kvision.weights.num_classes(weights, self.classifier)
        return logits and logits // self.boxes_per_place - 1
