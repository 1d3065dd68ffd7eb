"""Transfer learning: frozen layers, and lower learning rates far from the classifier."""

import keras

import kvision
from kvision.errors import UserError
from kvision.keras_internals import place, scale_updates


def freeze(model: keras.Model, what: str) -> None:
    """Keeps the weights of the first groups of `kvision.depth_groups`.

    Batch norms among them stay in inference mode; dropout and stochastic depth stay on.

    Args:
        model: network whose layers become untrainable, before its optimizer is built.
        what: "none"; "trunk", every group but the last; or a number of groups.

    Raises:
        ValueError: another word, or a number that leaves nothing to train.
    """
    if what == "none":
        return
    groups = kvision.depth_groups(model)
    known = {"trunk": len(groups) - 1} | {str(n): n for n in range(len(groups))}
    if what not in known:
        raise UserError(
            f"`freeze` must be none, trunk or a number from 0 to {len(groups) - 1}, as {model.name} has "
            f"{len(groups)} groups of layers; got {what!r}."
        )
    for name in (name for names in groups[: known[what]] for name in names):
        model.get_layer(name).trainable = False


def scale_rates(optimizer: keras.optimizers.Optimizer, model: keras.Model, layer_decay: float) -> None:
    """Layer-wise learning rates (Clark et al. 2020; Bao et al. 2021, see `kvision.depth_groups`).

    The update is scaled, not the gradient, whose scale Adam and RMSprop undo.

    Args:
        optimizer: optimizer that was built for the model.
        model: network of kvision.
        layer_decay: factor: the learning rate of a group, and with it its weight decay, is multiplied by it
            for each group behind it.
    """
    scales = {}
    for behind, names in enumerate(reversed(kvision.depth_groups(model))):
        for variable in (v for name in names for v in model.get_layer(name).trainable_variables):
            scales[place(optimizer, variable)] = layer_decay**behind
    scale_updates(optimizer, scales.__getitem__)
