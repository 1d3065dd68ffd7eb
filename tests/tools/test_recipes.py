"""The recipes of drawn data, from fresh weights to the figures that they state; minutes each."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import SHAPES, command
from PIL import Image

import kvision.data
from kvision import boxes as box_math, detection, opening
from kvision.data.sources import two_shapes
from kvision.data.sources.shapes import WITH_BOXES, draw

RECIPES = Path(__file__).parents[2] / "tools/recipes"


def figures(name, run, *flags):
    """COCO's metrics of the recipe's network on the pictures that are held out."""
    command("kvision-train", f"--flagfile={RECIPES / name}_shapes.flags", f"--output={run}", *flags)
    file = run.with_suffix(".json")
    command("kvision-evaluate", f"--model={run}", f"--json={file}")
    return json.loads(file.read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolox", "rcnn", "sppnet", "fast_rcnn", "faster_rcnn"])
def test_shapes_are_found(name, tmp_path):
    assert figures(name, tmp_path / "run")["ap50"] > 0.9
    if name == "faster_rcnn":
        assert recall(opening.open_model(str(tmp_path / "run")).model) > 0.95


def recall(model):
    """Share of the objects that a proposal overlaps by a half."""
    proposed, found = detection.raw(model), []
    data = kvision.data.load("shapes", "val", target="boxes", image_size=(128, 128), batch_size=50)
    for batch in data.dataset.as_numpy_iterator():
        proposals = proposed(batch["image"], training=False)["proposals"]
        overlaps = np.asarray(box_math.iou(batch["boxes"], proposals)).max(-1)
        found.append(overlaps[batch["classes"] >= 0] >= 0.5)
    return np.concatenate(found).mean()


@pytest.mark.slow
def test_nothing_is_learned_from_the_objects_of_other_pictures(tmp_path):
    lines = []
    for seed, (part, count) in enumerate(WITH_BOXES.counts.items()):
        for index in range(count):
            name, use = f"{part}{index}.png", "TRAIN" if part == "train" else "VALIDATION"
            Image.fromarray(draw(seed, index, WITH_BOXES.size).image).save(tmp_path / name)
            of = (index + 1) % count if part == "train" else index
            for label, *corners in draw(seed, of, WITH_BOXES.size).shapes:
                top, left, bottom, right = (corner / WITH_BOXES.size for corner in corners)
                lines.append(f"{use},{name},{SHAPES[label - 1]},{left},{top},,,{right},{bottom},,")
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    assert figures("fast_rcnn", tmp_path / "run", f"--data=csv:{tmp_path / 'boxes.csv'}")["ap50"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["rnn", "lstm", "gru"])
def test_pictures_are_described(decoder, tmp_path):
    assert figures("captions", tmp_path / "run", f"--model_kwarg=decoder={decoder}")["exact"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "blind"), [("video", "head=mean"), ("sequence", "positions=None")])
def test_the_order_of_steps_is_learned(name, blind, tmp_path):
    assert figures(name, tmp_path / "run")["top1"] > 0.95
    assert figures(name, tmp_path / "blind", f"--model_kwarg={blind}")["top1"] < 0.6


@pytest.mark.slow
def test_nothing_is_learned_from_the_captions_of_other_pictures(tmp_path):
    lines = ["path,text,set"]
    for seed, (part, count) in enumerate(two_shapes.COUNTS.items()):
        for index in range(count):
            Image.fromarray(two_shapes.draw(seed, index)[0]).save(tmp_path / f"{part}{index}.png")
            of = (index + 1) % count if part == "train" else index
            lines.append(f'{part}{index}.png,"{two_shapes.draw(seed, of)[1]}",{part}')
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    found = figures("captions", tmp_path / "run", f"--data=captions:{tmp_path / 'list.csv'}")
    assert found["exact"] < 0.05
