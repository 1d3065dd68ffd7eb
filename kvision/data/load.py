"""From a dataset's name to batches."""

import dataclasses
from dataclasses import dataclass

import tensorflow as tf

from kvision.choices import CACHES, LETTERBOXES
from kvision.data.cache import Disk, keep
from kvision.data.images import check_fit
from kvision.data.masks import IGNORED, checked_mask, decode_mask
from kvision.data.objects import padded
from kvision.data.pipeline import make_batches
from kvision.data.proposals import proposals_in
from kvision.data.skipped import Skipped, Unreadable
from kvision.data.sources import Source, open_source
from kvision.data.transforms import AUGMENTATIONS, OF_OBJECTS, OTHERS, Frame
from kvision.errors import UserError
from kvision.names import counted

MOST_OBJECTS = 120  # of several images together, unless one has more; as YOLOX has it for its mosaics


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
            `kvision.data.read_errors`.
        class_names: in the order of the labels, or of the classes in masks.
        size: number of images; unreadable ones are counted.
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
    image_size: tuple[int, int],
    channels: int = 3,
    batch_size: int = 32,
    training: bool = False,
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
) -> Data:
    """Opens a split of a dataset.

    Args:
        data: "digits", "folder:PATH", "csv:PATH", "tfrecord:GLOB" or "tfds:NAME" have labels; "shapes",
            "masks:PATH", "voc:PATH" or "tfds:NAME" have masks; "shapes", "coco:PATH" or
            "coco:FILE.json,FOLDER", "voc:PATH", "yolo:FILE", "csv:PATH" or "tfds:NAME" have boxes. Or what
            `open_source` made of it, which already is of one split.
        split: "train", "val", "test" or "all", of those that the dataset has; "val" is its test images where
            it holds out no others.
        image_size: `(height, width)`; an image is resized and cut to it, or letterboxed if it has a mask
            or boxes.
        channels: 3, or 1 for grey.
        batch_size: images a batch. Training batches are always full.
        training: shuffled and endless; else once, in order.
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

    Raises:
        ValueError: a value outside its range.
        ValueError, FileNotFoundError: an unknown or empty dataset.
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
    if isinstance(data, Source):
        source = data
    else:
        source = open_source(data, split, channels, val_fraction, allow_outside, target=target)
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
    objects, others = source.objects, OTHERS.get(augment, 0)
    if objects:
        objects.report(strict)
        if training and not len(objects.boxes):
            raise UserError(f"None of the {counted(source.size, 'image')} to train on has an object.")
        most = min((1 + others) * objects.most, max(objects.most, MOST_OBJECTS))
    elif others:
        raise UserError(f"`augment` {augment!r} needs boxes; got the target {target!r}.")
    kept = _kept(source, cache, frame)

    def index_at(position):
        if not training:
            return position
        seeds = tf.stack([seed, position // source.size])
        shuffle = tf.random.experimental.index_shuffle  # pyright: ignore  # TensorFlow's stubs lack it
        return shuffle(position % source.size, seeds, source.size - 1)

    def others_at(position):
        seeds = (seed, -1 - position)  # other numbers than those of the augmentation
        return tf.random.stateless_uniform((others,), seeds, 0, source.size, tf.int64)

    def read(index):
        """An example; its objects are in pixels of its image."""
        example = kept.example(index)
        if objects or proposals:
            example["image"] = frame.pixels(example["image"])
        if objects:
            example |= objects.of(index, tf.shape(example["image"])[:2])
        if proposals:
            example["proposals"] = proposals_in(example["image"])[: proposals // (1 + others)]
        return example

    def prepare(position):
        example = read(index_at(position))
        if others:
            example["others"] = [read(index) for index in tf.unstack(others_at(position))]
        if "mask" in example:
            image = frame.pixels(example["image"])
            classes = len(source.places or source.class_names)
            mask = checked_mask(decode_mask(example["mask"]), tf.shape(image)[:2], classes)
            if source.places:
                places = tf.constant(source.places, tf.int32)
                mask = tf.where(mask == IGNORED, IGNORED, tf.gather(places, tf.minimum(mask, classes - 1)))
            example |= {"image": image, "mask": mask}
        if target == "labels" and source.single_labels is not None:
            example["labels"] = tf.one_hot(example.pop("label"), len(source.class_names), dtype=tf.uint8)
        moved = AUGMENTATIONS[augment](example, (seed, position), frame)
        if own_size:
            moved |= {name: example[name] for name in ("mask", *OF_OBJECTS) if name in example}
        if objects:
            area = moved.pop("area")
            of_image = {name: moved[name] for name in OF_OBJECTS} | ({"area": area} if own_size else {})
            moved |= padded(of_image, most)
            moved |= {"size": tf.shape(example["image"])[:2]} if own_size else {}
        if proposals:
            moved |= padded({"proposals": moved["proposals"]}, proposals)
        image = tf.ensure_shape(moved["image"], (*image_size, channels))
        return position, moved | {"image": image, "weight": tf.constant(1.0)}

    if own_size and not objects:
        batch_size = 1
    skipped = Skipped(source, split, max_unreadable, exif)

    def note(position):
        def prepare_again():
            return next(iter(tf.data.Dataset.from_tensors(tf.constant(position, tf.int64)).map(prepare)))

        place = tf.constant(position, tf.int64)
        indices = [int(index_at(place)), *(others_at(place).numpy().tolist() if others else ())]
        skipped.add(indices, prepare_again)

    stop = 2**62 if training else source.size
    batches = make_batches(prepare, start + shard[0], stop, shard[1], batch_size, note, fill=training)
    return Data(batches.prefetch(2), source.class_names, source.size, skipped)


def _kept(source: Source, cache: str, frame: Frame) -> Source:
    """The source, of which what was read once is kept as `load` says."""
    if not source.encoded:  # it is in memory anyway
        return source
    if cache == "disk" and source.files:
        files = {"image": source.files, **source.target_files}
        fields = {"image": source.image, **source.targets}
        kept = {name: keep(fields[name], Disk(files[name].key), tf.string, ()) for name in files}
    elif cache == "ram":
        shape = (None, None, frame.channels)
        kept = {"image": keep(lambda index: frame.pixels(source.image(index)), {}, tf.uint8, shape)}
        if "mask" in source.targets:

            def mask(index):
                return tf.cast(decode_mask(source.targets["mask"](index)), tf.uint16)

            kept["mask"] = keep(mask, {}, tf.uint16, (None, None))
    else:
        return source
    return dataclasses.replace(source, image=kept.pop("image"), targets={**source.targets, **kept})
