"""From a Keras model to quantized TFLite (LiteRT) files, with the measurements that say how good they are."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the converter's notices would drown the report
