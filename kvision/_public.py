"""The public names of kvision."""

from kvision import blocks, detection, labels, layers, models, segmentation, sequence, weights
from kvision._depth import depth_groups
from kvision._features import attention_maps, features
from kvision.registry import create_model, info, list_models
from kvision.spec import Preprocess
from kvision.weights import list_weights

__all__ = [
    "Preprocess",
    "attention_maps",
    "blocks",
    "create_model",
    "depth_groups",
    "detection",
    "features",
    "info",
    "labels",
    "layers",
    "list_models",
    "list_weights",
    "models",
    "segmentation",
    "sequence",
    "weights",
]
