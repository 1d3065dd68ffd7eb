"""The peers of our networks, and the names that these have there."""

import kvision
from kvision.errors import UserError

PEERS = {  # of a task's networks
    "classification": ("keras", "timm"),
    "segmentation": ("keras", "torchvision"),
    "detection": ("torchvision", "yolox"),
}
WEIGHTS = {
    "torchvision": "https://download.pytorch.org/",
    "yolox": "https://github.com/Megvii-BaseDetection/",
}


def check_peer(peer: str, model: str) -> None:
    """Raises a UserError if a peer has no network of this name, of which we have no weights then."""
    info = kvision.info(model)
    if peer not in (peers := PEERS[info.task]):
        raise UserError(
            f"`against` takes {' or '.join(peers)} for networks of {info.task}, as {model} is; got {peer!r}."
        )
    if peer in WEIGHTS and not any(row.source.startswith(WEIGHTS[peer]) for row in info.weights):
        raise UserError(f"{model} is not known by a name of {peer}'s: leave out --against={peer}.")


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
