"""Writes detectors.json and detectors.npz: raw outputs and detections of torchvision's detectors.

    pip install torch torchvision && python tests/reference/make_detectors.py

Computed in float64 with the formula's weights, in evaluation mode, without resizing. A threshold of scores is
chosen for each network so that CANDIDATES pairs of box and class pass it. Losses are those of two images, one
without objects, with batch norms in evaluation mode. Faster R-CNN's image is so small that all anchors and
proposals are sampled.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torchvision.models import detection

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import formula_image, formula_weights

HERE = Path(__file__).parent
CANDIDATES = 500
NETWORKS = {  # gain of the formula, size of the image
    "ssdlite320_mobilenet_v3_large": (1.0, (320, 320)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (1.2, (256, 320)),
}
LOSSES = {  # size of the image; boxes and labels of its objects
    "ssdlite320_mobilenet_v3_large": (
        (320, 320),
        [[20, 30, 90, 120], [22, 28, 95, 118], [200, 40, 310, 300], [200, 20, 299, 33], [59, 171, 152, 189]],
        [1, 17, 44, 90, 3],
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        (64, 64),
        [[0, 0, 22, 12], [10, 8, 50, 60], [2, 31, 30, 62], [45.5, 3, 51, 8.25], [12.8, 18.6, 51.2, 45.4]],
        [1, 17, 44, 90, 3],
    ),
}
BOXES = [
    [0, 0, 64, 48], [10, 20, 200, 180], [33.5, 40.25, 97.75, 160.5], [0, 0, 319, 255],
    [150, 100, 160, 112], [250, 8, 318, 250], [5, 200, 300, 255], [100, 60, 260, 220],
]  # fmt: skip


def nhwc(x):
    return x.permute(0, 2, 3, 1)[0]


def raw_of_ssd(network, images):
    features = list(network.backbone(images.tensors).values())
    outputs = network.head(features)
    return {
        **{f"feature_{i}": nhwc(x)[::2, ::2, ::16] for i, x in enumerate(features)},
        "cls_logits": outputs["cls_logits"][0, ::10],
        "bbox_regression": outputs["bbox_regression"][0, ::5],
        "anchors": network.anchor_generator(images, features)[0][::5],
    }


def raw_of_rcnn(network, images):
    features = network.backbone(images.tensors)
    logits, deltas = network.rpn.head(list(features.values()))
    boxes = [torch.tensor(BOXES, dtype=images.tensors.dtype)]
    regions = network.roi_heads.box_roi_pool(features, boxes, images.image_sizes)
    classes, regression = network.roi_heads.box_predictor(network.roi_heads.box_head(regions))
    return {
        **{f"feature_{i}": nhwc(x)[::2, ::2, ::16] for i, x in enumerate(features.values())},
        "rpn_logits": torch.cat([nhwc(x).reshape(-1) for x in logits])[::5],
        "rpn_deltas": torch.cat([nhwc(x).reshape(-1, 4) for x in deltas])[::5],
        "anchors": network.rpn.anchor_generator(images, list(features.values()))[0][::5],
        "regions": regions.permute(0, 2, 3, 1)[..., ::16],
        "class_logits": classes,
        "box_regression": regression,
    }


def scores_of(network, image):
    """The probabilities of the classes of each box."""
    with mock.patch("torch.nn.functional.softmax", wraps=torch.nn.functional.softmax) as softmax:
        network(image)
    return torch.nn.functional.softmax(*softmax.call_args.args, **softmax.call_args.kwargs)[..., 1:]


def losses_of(network, size, boxes, labels):
    """torchvision's losses by name."""
    image = torch.tensor(formula_image(*size).astype(np.float64) / 255).permute(2, 0, 1)
    network.transform.min_size = (min(size),)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    if hasattr(network, "rpn"):
        for counts in (network.rpn._pre_nms_top_n, network.rpn._post_nms_top_n):
            counts["training"] = counts["testing"]
    boxes, labels = torch.tensor(boxes, dtype=torch.float64), torch.tensor(labels)
    targets = [{"boxes": boxes, "labels": labels}, {"boxes": boxes[:0], "labels": labels[:0]}]
    return {key: value.item() for key, value in network([image, image.flip(2)], targets).items()}


@torch.no_grad()
def main():
    entries, arrays = {}, {}
    for name, (gain, size) in NETWORKS.items():
        network = getattr(detection, name)(weights=None, weights_backbone=None).eval()
        network.transform.min_size = (min(size),)
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items() if value.ndim}
        weights = {key: torch.tensor(value) for key, value in formula_weights(shapes, gain).items()}
        network.load_state_dict(weights, strict=False)
        network = network.to(torch.float64)
        image = [torch.tensor(formula_image(*size).astype(np.float64) / 255).permute(2, 0, 1)]
        images, _ = network.transform(image)
        raw = raw_of_ssd(network, images) if "ssd" in name else raw_of_rcnn(network, images)
        settings = network if "ssd" in name else network.roi_heads
        scores = torch.sort(scores_of(network, image).flatten(), descending=True)[0]
        settings.score_thresh = scores[CANDIDATES - 1 : CANDIDATES + 1].mean().item()
        (found,) = network(image)
        raw |= {f"found_{key}": value for key, value in found.items()}
        for key, value in raw.items():
            array = value.numpy()
            arrays[f"{name}.{key}"] = array.astype("float32") if array.dtype.kind == "f" else array
        entries[name] = {
            "gain": gain,
            "input": [*size, 3],
            "score_threshold": settings.score_thresh,
            "names": {key: shapes[key] for key in sorted(shapes)},
        }
        size, boxes, labels = LOSSES[name]
        entries[name]["losses"] = {
            "input": [*size, 3],
            "boxes": boxes,
            "labels": labels,
            "expected": losses_of(network, *LOSSES[name]),
        }
        print(
            name,
            entries[name]["losses"]["expected"],
            len(found["boxes"]),
            "detections",
            settings.score_thresh,
        )
    (HERE / "detectors.json").write_text(json.dumps(entries) + "\n")
    np.savez_compressed(HERE / "detectors.npz", **arrays)


if __name__ == "__main__":
    main()
