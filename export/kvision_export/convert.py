"""From a Keras model to float TFLite files."""

import tempfile

import keras
import tensorflow as tf

INPUT, OUTPUT, SIGNATURE = "image", "probabilities", "serving_default"


def convert(model: keras.Model, mode: str = "float32") -> bytes:
    """Converts a model with batch 1 and built-in operators only.

    A batch of unknown size would leave SHAPE and PACK operators behind, and a model handed to the
    converter as a concrete function loses its variables without a word; hence the SavedModel.

    Args:
        model: from `(batch, height, width, channels)`, of fixed size, to probabilities.
        mode: "float32"; "float16" (weights; computes in float32 where there is no float16); or
            "dynamic" (int8 weights, activations quantized as they come).

    Returns:
        The `.tflite` file: float32 `image` in, float32 `probabilities` out.
    """
    signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name=INPUT)]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(SIGNATURE, lambda image: {OUTPUT: model(image, training=False)}, signature)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if mode != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def split_preprocess(model: keras.Model) -> tuple[keras.Model, float, float] | None:
    """The network behind its `preprocess` layer, and that layer's mean and standard deviation.

    None where there is no such layer first, where its constants differ between channels, or where pixel
    `mean` is no pixel: then the normalisation stays in the graph.
    """
    layer = next((layer for layer in model.layers if layer.name == "preprocess"), None)
    if not isinstance(layer, keras.layers.Rescaling) or layer.input is not model.inputs[0]:
        return None
    scales, offsets = ({*v} if isinstance(v, (tuple, list)) else {v} for v in (layer.scale, layer.offset))
    if len(scales) > 1 or len(offsets) > 1:
        return None
    std = 1 / scales.pop()
    mean = -offsets.pop() * std
    if not 0 <= mean <= 255:
        return None
    return keras.Model(layer.output, model.output, name=model.name), mean, std
