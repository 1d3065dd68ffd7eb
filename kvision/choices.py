"""Values of the commands' options, free of TensorFlow, which is imported only once flags are parsed."""

FORMS = "digits, folder:PATH, csv:PATH, tfrecord:GLOB or tfds:NAME"  # of a dataset with labels
MASK_FORMS = "shapes, masks:PATH, voc:PATH or tfds:NAME"  # of a dataset with masks
BOX_FORMS = "shapes, coco:PATH, voc:PATH, yolo:FILE, csv:PATH or tfds:NAME"  # of a dataset with boxes
VIDEO_FORMS = "shapes or video:PATH"  # of a dataset with clips
CAPTION_FORMS = "shapes or captions:PATH"  # of a dataset with sentences about images
SERIES_FORMS = "series:FILE.csv"  # of a dataset with series of numbers, whose next ones are predicted
SEQUENCE_FORMS = "shapes or series:FILE.csv"  # of a dataset with series of numbers that have a label each
DATASETS = (
    f"{FORMS}; of masks, {MASK_FORMS}; of boxes, {BOX_FORMS}; of clips, {VIDEO_FORMS}; of captions, "
    f"{CAPTION_FORMS}; of series, {SERIES_FORMS}; of sequences with labels, {SEQUENCE_FORMS}"
)
LETTERBOXES = ("centre", "corner", "stretch")  # where an image lies in the network's input
TASKS = (
    "classification", "multilabel", "segmentation", "detection", "video", "forecasting", "sequence",
    "captioning",
)  # fmt: skip
SPLITS = ("train", "val")  # of a training
ALL_SPLITS = (*SPLITS, "test", "all")  # of an evaluation
INTERPOLATIONS = {"bilinear": "triangle", "bicubic": "keyscubic"}  # and TensorFlow's name of the kernel
AUGMENTATIONS = ("none", "crop", "crop_flip", "scale_crop_flip", "flip", "mosaic", "mosaic_mixup")
CACHES = ("none", "ram", "disk")
WEIGHTS = "imagenet, a tag that kvision-info lists, hf-hub:OWNER/REPOSITORY or a file"
