"""Choices of users, which commands name in their help before they import TensorFlow."""

FORMS = "digits, folder:PATH, csv:PATH, tfrecord:GLOB or tfds:NAME"  # of a dataset
SPLITS = ("train", "val")  # of a training
ALL_SPLITS = (*SPLITS, "test", "all")  # of an evaluation
INTERPOLATIONS = {"bilinear": "triangle", "bicubic": "keyscubic"}  # and TensorFlow's name of the kernel
AUGMENTATIONS = ("none", "crop", "crop_flip")
CACHES = ("none", "ram", "disk")
WEIGHTS = "imagenet, a tag that kvision-info lists, hf-hub:OWNER/REPOSITORY or a file"
