"""The names of our networks with peers."""

import kvision
from kvision.errors import UserError


def timm_name(model: str) -> str:
    """timm's name of a network of the same width, by its published checkpoints; PyTorch's padding first."""
    info = kvision.info(model)
    names = [
        ((row.columns or {}).get("padding") != "symmetric", row.source.removeprefix("hf-hub:timm/"))
        for row in info.weights
        if row.source.startswith("hf-hub:timm/")
        and {*(row.columns or {})} <= info.variant.marked("same_shapes")
    ]
    if not names:
        raise UserError(f"{model} is not known by a name of timm's: leave out --against=timm.")
    return min(names)[1].partition(".")[0]
