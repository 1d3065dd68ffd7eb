"""Vision networks for Keras 3, from the architecture to a file for a phone."""

from kvision import blocks, labels, layers, models, weights
from kvision._depth import depth_groups
from kvision._features import attention_maps, features
from kvision.registry import create_model, info, list_models
from kvision.spec import Preprocess
from kvision.weights import list_weights

__version__ = "0.1.0"

__all__ = [
    "Preprocess",
    "attention_maps",
    "blocks",
    "create_model",
    "depth_groups",
    "features",
    "info",
    "labels",
    "layers",
    "list_models",
    "list_weights",
    "models",
    "weights",
]
