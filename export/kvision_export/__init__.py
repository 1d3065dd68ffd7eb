"""From a Keras model to quantized TFLite (LiteRT) files, with the measurements that say how good they are."""

__all__ = ["export"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name):
    if name == "export":  # not before it is asked for: the converter's process needs none of it
        from kvision_export.exporter import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
