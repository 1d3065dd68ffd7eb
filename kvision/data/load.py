"""From a dataset's name to batches."""

from dataclasses import dataclass

import tensorflow as tf

from kvision.choices import CACHES, LETTERBOXES
from kvision.data.examples import of_captions, of_clips, of_images, of_sequences, of_windows
from kvision.data.images import check_fit
from kvision.data.pipeline import make_batches
from kvision.data.skipped import Skipped, Unreadable
from kvision.data.sources import LENGTHS, Source, open_source
from kvision.data.transforms import AUGMENTATIONS, Frame
from kvision.errors import UserError


@dataclass(frozen=True)
class Data:
    """A split, ready to use.

    Attributes:
        dataset: batches, each a dict of `"image"`, float32 `(batch, height, width, channels)` in [0, 255],
            `"weight"`, float32 `(batch,)` of ones, and `"label"`, int64 `(batch,)`, `"labels"`, uint8
            `(batch, classes)`, 1 for each class that the image has, or `"mask"`, int32 `(batch, height,
            width)`, 255 where a pixel has no class; or the objects in the images, with as many rows as the
            image of the split with the most has, or up to 120 for several images together: `"boxes"`, float32
            `(batch, most, 4)`, left, top, right and bottom in pixels of the batch's images; `"classes"`,
            int32 `(batch, most)`, -1 for padding; and `"crowd"`, uint8 `(batch, most)`, 1 for
            objects that are ignored (COCO's crowds, VOC's difficult ones). An error in it is best met within
            `kvision.data.read_errors`. Of the targets that have a length:

            - "clip": `"image"`, float32 `(batch, length, height, width, channels)`, and `"label"`.
            - "tokens": `"image"` and `"tokens"`, int32 `(batch, length + 1)`, the numbers of a caption's
              words behind the start, an end and padding, see `kvision.vocabulary`; in evaluation also
              `"references"`, int32 `(batch, most, length)`, the words of all captions of the image, 0 behind
              the last of each, and those that are not in the vocabulary beyond its numbers.
            - "next": `"series"`, float32 `(batch, length, features)`, and `"next"`, float32 `(batch,
              features)`; in evaluation also `"future"`, float32 `(batch, horizon, features)`, of which
              `"next"` is the first, and NaN where the series has ended.
            - "sequence": `"series"`, float32 `(batch, length, features)`, zeros behind the end of a shorter
              one, and `"label"`.
        class_names: in the order of the labels, or of the classes in masks; of captions the words of the
            vocabulary, of "next" the features.
        size: number of examples, which are images, unreadable ones too, but captions in training, and windows
            of series.
        skipped: which images were left out so far, and what ended the reading.
    """

    dataset: tf.data.Dataset
    class_names: tuple[str, ...]
    size: int
    skipped: Skipped

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """The files that failed to decode so far, by name."""
        return self.skipped.unreadable


def load(
    data: str | Source,
    split: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int = 3,
    batch_size: int = 32,
    training: bool = False,
    shuffled: bool = False,
    augment: str = "none",
    min_crop_area: float = 0.08,
    crop: float = 1.0,
    interpolation: str = "bilinear",
    seed: int = 0,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    cache: str = "none",
    val_fraction: float = 0.2,
    allow_outside: bool = False,
    exif: bool = True,
    max_unreadable: float = 0.1,
    target: str = "label",
    own_size: bool = False,
    letterbox: str | None = None,
    strict: bool = False,
    proposals: int = 0,
    length: int | None = None,
    horizon: int = 1,
    min_word_count: int = 1,
    max_words: int | None = None,
) -> Data:
    """Opens a split of a dataset.

    Args:
        data: "digits", "folder:PATH", "csv:PATH", "tfrecord:GLOB" or "tfds:NAME" have labels; "shapes",
            "masks:PATH", "voc:PATH" or "tfds:NAME" have masks; "shapes", "coco:PATH" or
            "coco:FILE.json,FOLDER", "voc:PATH", "yolo:FILE", "csv:PATH" or "tfds:NAME" have boxes;
            "shapes" or "video:PATH" have clips; "shapes", "captions:FILE.json,FOLDER", "captions:FOLDER" or
            "captions:FILE.csv" have captions; "shapes" or "series:FILE.csv" have sequences with labels, and
            the latter series whose next values are predicted. Or what `open_source` made of it, which already
            is of one split.
        split: "train", "val", "test" or "all", of those that the dataset has; "val" is its test images where
            it holds out no others.
        image_size: `(height, width)`; an image is resized and cut to it, or letterboxed if it has a mask
            or boxes. Series need none.
        channels: 3, or 1 for grey.
        batch_size: images a batch. Training batches are always full.
        training: shuffled and endless; else once, in order.
        shuffled: whether they come in another order without training too.
        augment: "none", "crop" (random box, resized), "crop_flip" (mirrored half of the time too),
            "scale_crop_flip" (scaled by 0.5 to 2 at a random place, mirrored half of the time, colours
            changed), "flip" (as "none", mirrored half of the time, colours changed); with boxes also "mosaic"
            (four images around a point, likewise) or "mosaic_mixup" (blended with a fifth).
        min_crop_area: smallest share of an image's area that a random box covers.
        crop: without augmentation, the share of the resized image's side that is kept, in (0, 1].
        interpolation: without augmentation, "bilinear" or "bicubic".
        seed: of the order and the augmentation: the same seed gives the same batches.
        start: the number of images to skip; costs nothing.
        shard: `(index, count)`: of every `count` images in a row, this takes the one at `index`.
        cache: "ram" keeps images in memory once they are decoded, "disk" copies encoded ones to the user's
            cache folder, for storage that is slow.
        val_fraction: share of the images held out where the dataset has no split of its own.
        allow_outside: whether the paths of a CSV file may be absolute, or lead out of its folder.
        exif: whether images are turned as their EXIF orientation says.
        max_unreadable: share of the images that may fail to decode, in [0, 1]; these are left out. With more,
            the dataset raises an error, as it does for an image that cannot be read for another reason, and
            for a mask that does not fit its image or the classes.
        target: what a batch has beside images: "label", "labels" (several labels an image where a CSV file
            has them, of other datasets the one), "mask" or "boxes".
        own_size: whether masks stay as large as their images, which then come one a batch. Boxes are in
            pixels of the images as they are read; beside them are `"size"`, int32 `(batch, 2)`, height and
            width of these images, and `"area"`, float32 `(batch, most)`, of the objects in squared pixels:
            that of COCO's annotation, or else the box's. `images.unletterbox_boxes` moves detections there.
        letterbox: "centre", "corner" or "stretch", see `kvision.data.images.letterbox`; by default "corner"
            for boxes. Images with a mask are centred.
        strict: whether a box that cannot be used is an error. Else such boxes are left out, or cut at the
            border of the image, and stderr says so.
        proposals: number of proposals that a batch has for each image, see `kvision.data.proposals`: as
            `"proposals"`, float32 `(batch, proposals, 4)`, xyxy in pixels of the batch's images, 0 where
            there are fewer. They move with the boxes; of several images together each has an equal share.
        length: number of frames, tokens or rows of the last four targets. Frames are at equal distances over
            the clip, in training over a random stretch of at least half of it, and augmented alike. Of
            captions and labelled sequences what is longer is cut, and stderr says so.
        horizon: number of rows in "future".
        min_word_count, max_words: how often a word must occur in the captions to train on to be in the
            vocabulary, and most words in it; see `Vocabulary.of_texts`.

    Raises:
        ValueError: a value outside its range.
        ValueError, FileNotFoundError: an unknown or empty dataset.
        ImportError: a video file needs a package that is not installed.
    """
    if augment not in AUGMENTATIONS:
        raise UserError(f"`augment` must be one of {', '.join(AUGMENTATIONS)}; got {augment!r}.")
    if cache not in CACHES:
        raise UserError(f"`cache` must be one of {', '.join(CACHES)}; got {cache!r}.")
    if not 0 < min_crop_area <= 1:
        raise UserError(f"`min_crop_area` must be in (0, 1]; got {min_crop_area}.")
    if not 0 <= max_unreadable <= 1:
        raise UserError(f"`max_unreadable` must be in [0, 1]; got {max_unreadable}.")
    check_fit(crop, interpolation)
    forms = LETTERBOXES if target == "boxes" else LETTERBOXES[:1]
    letterbox = letterbox or ("corner" if target == "boxes" else "centre")
    if letterbox not in forms:
        raise UserError(f"`letterbox` of {target!r} must be one of {', '.join(forms)}; got {letterbox!r}.")
    steps = _steps(target, length)
    if horizon < 1:
        raise UserError(f"`horizon` must be 1 or more; got {horizon}.")
    if isinstance(data, Source):
        source = data
    else:
        source = open_source(
            data,
            split,
            channels,
            val_fraction,
            allow_outside,
            target=target,
            min_word_count=min_word_count,
            max_words=max_words,
        )
    if target in ("next", "sequence"):
        if augment != "none":
            raise UserError(f"`augment` of {target!r} must be 'none'; got {augment!r}.")
        if target == "next":
            examples = of_windows(source, length=steps, horizon=horizon, training=training)
        else:
            examples = of_sequences(source, length=steps)
    else:
        if image_size is None:
            raise UserError(f"`image_size` of {target!r} must be a height and a width; got None.")
        frame = Frame(
            size=image_size,
            channels=channels,
            crop=crop,
            interpolation=interpolation,
            min_crop_area=min_crop_area,
            exif=exif,
            whole=target in ("mask", "boxes"),
            letterbox=letterbox,
        )
        if target == "clip":
            if cache != "none":
                raise UserError(f"`cache` of clips must be 'none'; got {cache!r}.")
            examples = of_clips(source, frame, augment=augment, length=steps, training=training)
        else:
            examples = of_images(
                source,
                frame,
                target=target,
                augment=augment,
                training=training,
                cache=cache,
                own_size=own_size,
                strict=strict,
                proposals=proposals,
            )
        if source.captions:
            examples = of_captions(source.captions, examples, length=steps, training=training)
    if own_size and not source.objects:
        batch_size = 1

    def index_at(position):
        if not (training or shuffled):
            return position
        seeds = tf.stack([seed, position // examples.count])
        shuffle = tf.random.experimental.index_shuffle  # pyright: ignore  # TensorFlow's stubs lack it
        return shuffle(position % examples.count, seeds, examples.count - 1)

    def prepare(position):
        example = examples.make(index_at(position), (seed, position))
        return position, example | {"weight": tf.constant(1.0)}

    skipped = Skipped(source, split, max_unreadable, exif)

    def note(position):
        def prepare_again():
            return next(iter(tf.data.Dataset.from_tensors(tf.constant(position, tf.int64)).map(prepare)))

        place = tf.constant(position, tf.int64)
        skipped.add(examples.images(index_at(place), (seed, place)), prepare_again)

    stop = 2**62 if training else examples.count
    batches = make_batches(prepare, start + shard[0], stop, shard[1], batch_size, note, fill=training)
    return Data(batches.prefetch(2), source.class_names, examples.count, skipped)


def _steps(target, length) -> int:
    """The length that a target has; 0 for others."""
    if target not in LENGTHS:
        return 0
    if length is None or length < 1:
        raise UserError(
            f"`length` of {target!r} must be a number of {LENGTHS[target]}, 1 or more; got {length}."
        )
    return length
