"""Path aggregation (Liu et al. 2018, https://arxiv.org/abs/1803.01534) of CSP layers, named as in YOLOX."""

import keras

from kvision.blocks.csp import csp_layer


def path_aggregation(maps, *, depth, conv, wide, name):
    """Mixes three maps of a pyramid, from coarse to fine and back.

    Args:
        maps: `(batch, H, W, C)`, the finest first, each of half the height and width of that before it and
            of even sides but for the last.
        depth: bottlenecks of each CSP layer.
        conv: for kernels of 1 x 1, as `csp_layer` takes it.
        wide: for kernels of 3 x 3.
        name: prefix of the layers' names.

    Returns:
        Three maps of the same shapes.
    """
    fine, middle, coarse = maps
    filters = [x.shape[-1] for x in maps]

    def mix(x, other, filters, path):
        x = keras.layers.Concatenate(name=f"{name}.{path}.join")([x, other])
        return csp_layer(
            x, filters=filters, depth=depth, residual=False, conv=conv, wide=wide, name=f"{name}.{path}"
        )

    def double(x, path):
        return keras.layers.UpSampling2D(interpolation="nearest", name=f"{name}.{path}.upsample")(x)

    coarse = conv(coarse, filters=filters[1], name=f"{name}.lateral_conv0")
    middle = mix(double(coarse, "lateral_conv0"), middle, filters[1], "C3_p4")
    middle = conv(middle, filters=filters[0], name=f"{name}.reduce_conv1")
    fine = mix(double(middle, "reduce_conv1"), fine, filters[0], "C3_p3")
    down = wide(fine, filters=filters[0], kernel_size=3, strides=2, name=f"{name}.bu_conv2")
    middle = mix(down, middle, filters[1], "C3_n3")
    down = wide(middle, filters=filters[1], kernel_size=3, strides=2, name=f"{name}.bu_conv1")
    return fine, middle, mix(down, coarse, filters[2], "C3_n4")
