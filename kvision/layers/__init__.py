"""Layers that own a custom call or variables, registered under "kvision"."""

from kvision.layers.drop_path import DropPath

__all__ = ["DropPath"]
