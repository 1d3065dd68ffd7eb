"""What tasks of series share."""

from kvision.data.series import Series
from kvision.data.sources import Source, open_source
from kvision.spec import Preprocess

OF_IMAGES = ("image_size", "channels", "augment", "cache", "weights")  # settings of a training


def network_keywords(series: Series, length: int) -> dict:
    """The shape of a network's input, and the normalisation by the training's values."""
    preprocess = Preprocess(tuple(series.mean.tolist()), tuple(series.std.tolist()))
    return {"input_shape": (length, len(series.columns)), "preprocess": preprocess}


def series_in(path: str) -> Series:
    """The series in a CSV file, without labels; see `kvision.data.sources.series`."""
    return series_of(open_source(f"series:{path}", "all", labeled=False, target="next"))


def series_of(source: Source) -> Series:
    """The series of a source that has them."""
    assert source.series is not None
    return source.series
