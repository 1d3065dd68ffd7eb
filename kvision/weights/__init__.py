"""Loading of weights into networks."""

from kvision.weights._load import load, state_dict

__all__ = ["load", "state_dict"]
