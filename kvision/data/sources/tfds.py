"""TensorFlow Datasets."""

import numpy as np

from kvision.data import records
from kvision.data.sources.source import Options, Source, check_divided, part, parts
from kvision.errors import UserError
from kvision.names import listed, shown
from kvision.spec import did_you_mean

OWN_NAMES = {"train": "train", "val": "validation", "test": "test"}


def tfds(name: str, split: str, options: Options) -> Source:
    """A dataset of TensorFlow Datasets with the features "image" and "label", prepared as TFRecords."""
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name)
    except tensorflow_datasets.core.DatasetNotFoundError:
        known = tensorflow_datasets.list_builders()
        raise UserError(f"TensorFlow Datasets has no {name!r}. {did_you_mean(name, known)}") from None
    except Exception as error:  # a name, configuration or version that it cannot read
        raise UserError(f"TensorFlow Datasets cannot open {name!r}: {_first_words(error)}") from None
    features = builder.info.features or {}
    kinds = {"image": tensorflow_datasets.features.Image, "label": tensorflow_datasets.features.ClassLabel}
    if not all(key in features and isinstance(features[key], kind) for key, kind in kinds.items()):
        raise UserError(
            f"'tfds:{name}' is no image classification with 'image' and a class as 'label': it has "
            f"{listed(features, 8) or 'no features'}."
        )
    try:
        builder.download_and_prepare()
    except OSError:
        raise
    except Exception as error:  # what cannot be downloaded, or must be by hand
        raise UserError(f"TensorFlow Datasets cannot prepare {name!r}: {_first_words(error)}") from None
    if builder.info.file_format != tensorflow_datasets.core.FileFormat.TFRECORD:
        raise UserError(f"'tfds:{name}' is prepared as {builder.info.file_format}; tfrecord was expected.")
    there = [ours for ours, theirs in OWN_NAMES.items() if theirs in builder.info.splits]
    whole = there == ["train"]
    if whole:
        check_divided(split, f"'tfds:{name}'")
    used = there if whole else parts(split, there, f"'tfds:{name}'")
    paths = [str(path) for own in used for path in builder.info.splits[OWN_NAMES[own]].filepaths]
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}

    def example(record):
        return features.deserialize_example(record, decoders=skip)

    index = records.read_index(paths, f"tfds:{name}", lambda record: (example(record)["label"], ""))
    everything = range(len(index.offsets))
    chosen = np.array(part(everything, split, options.val_fraction) if whole else everything)
    read = records.reader(paths, index, chosen)

    def image(place):
        return example(read(place))["image"]

    def name_of(place):
        return index.name(paths, chosen[place])

    names = tuple(features["label"].names)
    return Source(names, index.labels[chosen], image, name_of, index.files_of(paths, chosen))


def _first_words(error) -> str:
    return shown(" ".join(str(error).split())[:300])
