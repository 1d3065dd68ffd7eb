"""Makes kvision/weights/_rows.py from what timm, torchvision and keras.applications publish.

    python tests/reference/make_weight_rows.py ZOO

ZOO is a JSON file with, for each network of the peers, its published checkpoints. Nothing else goes into the
table but which peer's network is which of ours (tests/peers.py).
"""

import dataclasses
import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peers import ours

import kvision
from kvision.spec import IMAGENET, PLUS_MINUS_ONE, RAW, Weights
from kvision.weights._find import PERMISSIVE

ROWS = Path(kvision.__file__).parent / "weights" / "_rows.py"
HEAD = '''"""The published checkpoints, made by tests/reference/make_weight_rows.py; not to be edited.

From timm's configurations and results file, torchvision's weight enums, keras.applications' documentation and
YOLOX' README.
"""

# ruff: noqa: E501

from kvision.spec import IMAGENET, PLUS_MINUS_ONE, RAW, Preprocess, Weights

# fmt: off
# model, tag, source, license, preprocess, classes, training and test size, their crops, interpolation,
# top-1, its size, columns, default
ROWS = (
'''
TORCHVISION = {"alexnet": "alexnet_owt", "googlenet": "googlenet_bn"}  # what timm lacks
KERAS = {  # top-1 at 224: documentation of tf.keras.applications.mobilenet and mobilenet_v2, TensorFlow 2.4
    ("mobilenet_v1", "MobileNet"): {1.0: 70.6, 0.75: 68.4, 0.5: 63.7, 0.25: 50.6},
    ("mobilenet_v2", "MobileNetV2"): {1.4: 75.0, 1.3: 74.4, 1.0: 71.8, 0.75: 69.8, 0.5: 65.4, 0.35: 60.3},
    ("xception", "Xception"): {1.0: None},
}

SEGMENTATION = {  # torchvision 0.29.1's enums COCO_WITH_VOC_LABELS_V1: file, mean IoU on COCO's val2017
    "fcn_resnet50": ("fcn_resnet50_coco-1167a1af.pth", 60.5),
    "fcn_resnet101": ("fcn_resnet101_coco-7ecb50ca.pth", 63.7),
    "deeplabv3_resnet50": ("deeplabv3_resnet50_coco-cd0a2569.pth", 66.4),
    "deeplabv3_mobilenet_v3_large": ("deeplabv3_mobilenet_v3_large-fc3c493d.pth", 60.3),
    "lraspp_mobilenet_v3_large": ("lraspp_mobilenet_v3_large-d234d4ea.pth", 57.9),
}

DETECTION = {  # YOLOX' README, release 0.1.1rc0: input size, AP on COCO's val2017
    "yolox_nano": (416, 25.8),
    "yolox_tiny": (416, 32.8),
    "yolox_s": (640, 40.5),
    "yolox_m": (640, 46.9),
    "yolox_l": (640, 49.7),
    "yolox_x": (640, 51.1),
}
TORCHVISION_DETECTION = {  # torchvision 0.29.1's enums COCO_V1: file, input size, AP on COCO's val2017
    "fasterrcnn_resnet50_fpn": ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 800, 37.0),
    "fasterrcnn_resnet50_fpn_v2": ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 800, 46.7),
    "fasterrcnn_mobilenet_v3_large_fpn": ("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 800, 32.8),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth", 320, 22.8
    ),
    "ssdlite320_mobilenet_v3_large": ("ssdlite320_mobilenet_v3_large_coco-a79551df.pth", 320, 21.3),
}  # fmt: skip
YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"


def preprocess(mean, std):
    constants = kvision.Preprocess(*(tuple(round(255 * v, 6) for v in values) for values in (mean, std)))
    return next((known for known in (IMAGENET, PLUS_MINUS_ONE) if known == constants), constants)


def from_timm(networks):
    for network in networks:
        model, columns = ours(network["name"])
        if model not in kvision.list_models(task="classification"):
            continue
        for row in (row for row in network["weights"] if row["hub"]):
            size = row["input_size"][-1]
            tag = row["hub"].partition(".")[2]
            if network["name"].endswith("_384") and not tag.endswith("384"):
                tag += "_384"
            if "_window16_" in network["name"]:
                tag += "_window16"
            test_size = row["test_input_size"][-1] if row["test_input_size"] else size
            yield Weights(
                model, tag, f"hf-hub:{row['hub']}", row["license"], preprocess(row["mean"], row["std"]),
                row["num_classes"], size, test_size, row["crop_pct"], row["test_crop_pct"] or row["crop_pct"],
                row["interpolation"], row.get("top1"), row.get("measured_at"), columns,
            )  # fmt: skip


def from_torchvision(networks):
    for row in networks:
        if row["name"] in TORCHVISION:
            size, crop = row["crop"][0], row["crop"][0] / row["resize"][0]
            yield Weights(
                TORCHVISION[row["name"]], "tv_in1k", row["url"], row["license"],
                preprocess(row["mean"], row["std"]), 1000, size, size, crop, crop,
                row["interp"].partition(".")[2].lower(), row["top1"], size, {}, True,
            )  # fmt: skip


def from_keras():
    for (model, application), widths in KERAS.items():
        size = kvision.info(model).variant.input_size
        for width, top1 in widths.items():
            yield Weights(  # evaluated on the central 0.875, as slim's networks are
                model, "keras", f"keras:{application}", None, PLUS_MINUS_ONE, 1000, size, size, 0.875, 0.875,
                "bilinear", top1, top1 and size, {} if width == 1 else {"width_multiplier": width}, True,
            )  # fmt: skip


def of_segmentation():
    for model, (file, miou) in SEGMENTATION.items():
        yield Weights(
            model, "tv_coco_voc", f"https://download.pytorch.org/models/{file}", None, IMAGENET, 21, 520, 520,
            1.0, 1.0, "bilinear", None, miou=miou,
        )  # fmt: skip


def of_detection():
    for model, (file, size, ap) in TORCHVISION_DETECTION.items():
        yield Weights(
            model, "tv_coco", f"https://download.pytorch.org/models/{file}", None,
            kvision.info(model).variant.preprocess, 90, size, size, 1.0, 1.0, "bilinear", None, ap=ap,
        )  # fmt: skip
    for model, (size, ap) in DETECTION.items():
        yield Weights(
            model, "megvii_coco", f"{YOLOX}/{model}.pth", "apache-2.0", RAW, 80, size, size, 1.0, 1.0,
            "bilinear", None, ap=ap,
        )  # fmt: skip


def best(rows):
    """The default among rows of one model: the most accurate at its own size and columns that all may use."""
    size = kvision.info(rows[0].model).variant.input_size
    own = [r for r in rows if r.license in PERMISSIVE and r.num_classes == 1000 and r.top1 and not r.columns]
    return max(own, key=lambda r: (size in (r.input_size, r.test_size), r.top1), default=None)


def table(zoo) -> str:
    peers = json.loads(Path(zoo).read_text())
    models = defaultdict(list)
    for row in (
        *from_timm(peers["timm"]),
        *from_torchvision(peers["torchvision"]),
        *from_keras(),
        *of_segmentation(),
        *of_detection(),
    ):
        models[row.model].append(row)
    lines = []
    for _, rows in sorted(models.items()):
        default = None if any(row.default for row in rows) else best(rows)
        for row in rows:
            marked = dataclasses.replace(row, default=row.default or row is default)
            *values, miou, ap = map(repr, dataclasses.astuple(marked))
            known = {IMAGENET: "IMAGENET", PLUS_MINUS_ONE: "PLUS_MINUS_ONE", RAW: "RAW"}
            values[4] = known.get(row.preprocess, repr(row.preprocess))
            values += [f"miou={miou}"] * (marked.miou is not None)
            values += [f"ap={ap}"] * (marked.ap is not None)
            lines.append(f"    Weights({', '.join(values)}),\n")
    return f"{HEAD}{''.join(lines)})\n"


if __name__ == "__main__":
    ROWS.write_text(table(sys.argv[1]))
