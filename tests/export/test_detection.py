"""Exports of networks that find objects."""

import functools
import json
import math
import re

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import NARROW, SHAPES, SMALL, coco_of_shapes, command, mostly_slow, randomized
from tflite import images

import kvision
from kvision.errors import UserError
from kvision.networks import proposals_of
from kvision.run_info import RunInfo
from kvision.tasks import Detection, Detections
from kvision_export import flatbuffer
from kvision_export.census import census_of
from kvision_export.console import check
from kvision_export.convert import FLOATS, convert_apart
from kvision_export.exporter import export
from kvision_export.inputs import joined, named
from kvision_export.int8 import Int8Files, Settings
from kvision_export.judges import BoxJudge
from kvision_export.metadata import About, write
from kvision_export.modes import MODES, Given
from kvision_export.runner import named_outputs
from kvision_export.tolerance import Tolerance
from kvision_export.versions import set_versions

PIXELS = images(8)
MOST = 10
COLUMNS = {"input_shape": (64, 64, 3), "num_classes": 3, "max_detections": MOST, "score_threshold": 0.0}
FEW = {"pyramid_filters": 8, "hidden_filters": 16, "proposals": 20, "proposal_candidates": 30}
DETECTORS = {
    "yolox_nano": {"width_multiplier": 0.125},
    "ssdlite320_mobilenet_v3_large": NARROW | {"extra_filters": (16, 8, 8, 8), "candidates": 100},
    "fasterrcnn_mobilenet_v3_large_320_fpn": NARROW | FEW,
    "fast_rcnn_vgg16": SMALL["vgg"] | {"proposals": 20},
    "rcnn_alexnet": {"width_multiplier": 0.125, "hidden_filters": 32, "proposals": 12, "crop_size": 67},
    "sppnet_zf5": {"width_multiplier": 0.125, "hidden_filters": 32, "proposals": 20},
}
QUICK = ("fast_rcnn_vgg16",)  # few layers
LEAST = {"float32": 1, "float16": 0.97, "dynamic": 0.6, "int8": 0.6, "int16x8": 0.8}  # mean IoU
HEADS = ("rpn.head.", "head.", "roi_heads.box_predictor", "svm", "box_regressor")


def small(name):
    """A small detector with scores that differ."""
    keras.utils.set_random_seed(0)
    model = randomized(kvision.create_model(name, **COLUMNS, **DETECTORS[name]))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith(HEADS) and isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            fan_in = math.prod(layer.kernel.shape[:-1])
            of_boxes = any(part in layer.name for part in ("bbox", "reg", "regression"))
            scale = (0.05 if of_boxes else 1) * fan_in**-0.5  # so that boxes lie in the image
            layer.kernel.assign(random.normal(0, scale, layer.kernel.shape))
        if hasattr(layer, "fitted"):
            layer.fitted.assign(1.0)  # by its SVMs
    return model


def proposals(images, count, size=64):
    """Boxes in images, 0 for the last one of each."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, size / 2, (images, count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(8, size / 2, corners.shape)], -1)
    boxes[:, -1] = 0
    return boxes.astype("float32")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in DETECTORS],
)
def detector(request):
    """A small detector as it is in a file."""
    return Detection.exported(small(request.param))


@pytest.fixture(scope="module")
def given(detector):
    """Images for the detector's files, with proposals where they take these, see `inputs`."""
    count = proposals_of(detector)
    return joined({"image": PIXELS, "proposals": proposals(len(PIXELS), count)}) if count else PIXELS


@pytest.fixture(scope="module")
def file_of(detector, given):
    """Makes the detector's file of a mode."""
    count = proposals_of(detector)
    about = About("detector", "", "", SHAPES, 3, (64, 64), answer="detections", proposals=count)
    form = functools.cache(lambda mode: convert_apart(detector, (mode,))[mode])

    @functools.cache
    def file_of(mode):
        if mode == "int8":
            content = Int8Files(form("float32"), given).make(Settings(bias_corrected=True))
        else:
            making = Given(
                forms={name: form(name) for name in {"float32", mode} & {*FLOATS}}, images=given,
                calibration=given, backend="litert", io_dtype="uint8", mixed=True, finished=bytes,
                judge=BoxJudge(), tolerance=Tolerance(), pixels=True, say=print,
            )  # fmt: skip
            content = MODES[mode].make(making).content
        model = flatbuffer.read(content)
        set_versions(model)
        return write(model, about)

    return file_of


@pytest.mark.parametrize("mode", mostly_slow(LEAST, "int8"))
def test_files_have_the_outputs_of_tflites_own_detectors(file_of, given, mode):
    interpreter = Interpreter(model_content=file_of(mode))
    count = named(given)["proposals"].shape[1] if given.dtype.names else 0
    image = (1, 64, 64, 3), np.uint8 if mode == "int8" else np.float32
    expected = {"image": image} | ({"proposals": ((1, count, 4), np.float32)} if count else {})
    by_name = interpreter.get_signature_runner().get_input_details()
    assert {name: (tuple(of["shape"]), of["dtype"]) for name, of in by_name.items()} == expected
    found = [(tuple(details["shape"]), details["dtype"]) for details in interpreter.get_output_details()]
    assert found == [((1, *shape), np.float32) for shape in ((MOST, 4), (MOST,), (MOST,), ())]
    assert [*next(named_outputs(file_of(mode), given))] == ["boxes", "classes", "scores", "number"]
    census = census_of(file_of(mode))
    assert not census.faults
    assert not [name for name in census.operators if name.startswith(("CUSTOM", "FLEX"))]
    assert census.metadata["outputs"] == ["location", "category", "score", "number of detections"]
    assert census.metadata["box_order"] == [1, 0, 3, 2]
    assert census.metadata["labels"] == list(SHAPES)
    assert census.metadata.get("proposals", "0").startswith(f"{count}")


@pytest.mark.parametrize("mode", mostly_slow(LEAST, "int8"))
def test_files_find_what_the_network_finds(detector, file_of, given, mode):
    judge = BoxJudge()
    expected, found = judge.of_model(detector, given), judge.of_file(file_of(mode), given)
    assert expected.count.min() > 3
    near = judge.fidelity(found, expected)
    assert near.iou > LEAST[mode] - 1e-4
    if mode == "float32":
        np.testing.assert_allclose(found.boxes / 64, expected.boxes / 64, atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_array_equal(found.classes, expected.classes)


def test_boxes_are_decoded_in_floats(file_of):
    """All layers compute in integers, and nothing that chooses does."""
    computed = census_of(file_of("int8")).computed_in
    assert not computed["float32"].keys() & {*flatbuffer.WEIGHTED}
    assert computed["int8"].keys() & {"CONV_2D", "DEPTHWISE_CONV_2D"}
    assert computed["float32"].keys() >= {"TOPK_V2", "SELECT_V2", "SUB", "DIV"}
    assert not computed["int8"].keys() & {"SUB", "DIV", "EXP", "SELECT_V2", "GATHER"}


def test_the_last_layers_before_the_decoding(detector, given, file_of):
    """Those of one depth are those of a lower one and more, up to all; only these compute in floats."""
    files = Int8Files(file_of("float32"), given[:1])
    model = files.float_file(Settings()).model
    tensors = model.subgraphs[0].tensors
    layers = {tensors[layer.outputs[0]].name.decode() for layer in flatbuffer.layers(model)}
    before = set()
    for depth in (1, 2, 1000):
        names = {*files.last_layers(Settings(), depth)}
        assert before < names & layers
        before = names & layers
    assert before == layers
    lasts = files.last_layers(Settings())
    computed = census_of(files.make(Settings(floats=lasts))).computed_in
    floats = sum(computed["float32"].get(kind, 0) for kind in flatbuffer.WEIGHTED)
    assert floats == len(layers.intersection(lasts))


def test_fidelity_of_detections():
    """One of two boxes moved by an eighth of its side, its score by 0.1; a class is another."""
    boxes = np.array([[[0, 0, 8, 8], [20, 20, 28, 28], [40, 40, 48, 48], [0, 0, 2, 2]]], np.float32)
    scores, classes = np.array([[0.9, 0.8, 0.5, 0.1]], np.float32), np.array([[0, 1, 2, 0]])
    expected = Detections(boxes, scores, classes, np.array([4]), (64, 64))
    moved = boxes + np.array([0, 1, 0, 0])[:, None] * [0, 1, 0, 1]
    found = Detections(
        moved.astype(np.float32), scores - [[0, 0.1, 0, 0]], np.array([[0, 1, 1, 0]]), np.array([4]), (64, 64)
    )
    same = BoxJudge().fidelity(expected, expected)
    assert (same.agreement, same.iou, same.error, same.largest_difference) == (1, 1, 0, 0)
    near = BoxJudge().fidelity(found, expected)
    overlap = 7 / 9
    assert near.agreement == pytest.approx(1 / 3)
    assert near.iou == pytest.approx((1 + overlap + 0) / 3)
    assert near.score_difference == pytest.approx((0 + 0.1 + 0.5) / 3)
    assert near.error == pytest.approx(1 - (1 + 0.9 * overlap) / 3)
    assert near.largest_difference == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a detector."""
    root = coco_of_shapes(tmp_path_factory.mktemp("boxes"))
    command("kvision-train", "--model=yolox_nano", "--model_kwarg=width_multiplier=0.125",
            "--model_kwarg=score_threshold=0.01", "--image_size=64", "--batch_size=16", "--norm_momentum=0.8",
            "--optimizer=adamw", "--learning_rate=4e-3", "--epochs=3", f"--output={root / 'run'}",
            f"--data=coco:{root / 'annotations.json'},{root / 'images'}")  # fmt: skip
    return root / "run"


@pytest.mark.slow
def test_average_precision_of_files_is_what_evaluation_says(run):
    printed = command("kvision-export", f"--model={run}", "--quantize=float32,int8", "--nocompare",
                      "--calibration_images=4", "--max_drop=100")  # fmt: skip
    report = json.loads((run / "export/report.json").read_text())
    evaluated = command("kvision-evaluate", f"--model={run}")
    ap = float(re.search(r"\bAP ([\d.]+) %", evaluated)[1])
    floats, int8 = (file["accuracy"]["scores"]["AP"]["value"] for file in report["files"])
    assert report["keras"]["scores"]["AP"]["value"] == pytest.approx(ap / 100, abs=1e-4)
    assert floats == pytest.approx(ap / 100, abs=1e-3)
    assert f"{100 * int8:.1f}" in printed
    page = (run / "export/report.html").read_text()
    assert "AP75 %" in page
    assert page.count("data:image/png;base64,") == 2 * report["images"] * 4  # the image and three with boxes


@pytest.fixture
def run_with_proposals(tmp_path, monkeypatch):
    """A run folder of a small R-CNN, whose proposals are continuous, so that no scores are equal."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, run = coco_of_shapes(tmp_path / "shapes", 12), tmp_path / "run"
    run.mkdir()
    small("rcnn_alexnet").save(run / "model.keras")
    data = f"coco:{root / 'annotations.json'},{root / 'images'}"
    (run / "run.json").write_text(RunInfo(task="detection", data=data, val_fraction=0.5).to_json())
    (run / "labels.txt").write_text("\n".join(SHAPES) + "\n")
    return run


def export_run(run, *flags):
    """The files in the report of a run's export."""
    command("kvision-export", f"--model={run}", "--nocompare", "--max_drop=100", *flags)
    report = json.loads((run / "export/report.json").read_text())
    return report["keras"]["scores"]["AP"]["value"], report["files"]


@pytest.mark.slow
def test_a_run_is_exported_with_the_proposals_of_its_images(run_with_proposals, capsys):
    expected, (file,) = export_run(run_with_proposals, "--quantize=float32")
    assert file["accuracy"]["scores"]["AP"]["value"] == pytest.approx(expected, abs=1e-4)
    assert file["fidelity"]["agreement"] == 1
    assert check([run_with_proposals / "export" / file["file"]]) == 0
    assert "proposals 12 boxes as" in capsys.readouterr().out


@pytest.mark.slow
def test_proposals_of_evaluation_and_of_the_search_for_an_int8_file(run_with_proposals, tmp_path):
    command("kvision-evaluate", f"--model={run_with_proposals}", f"--json={tmp_path / 'metrics.json'}")
    expected = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["ap"]
    ap, (_, int8) = export_run(run_with_proposals, "--quantize=float32,int8", "--calibration_images=2")
    assert ap == pytest.approx(expected, abs=1e-4)
    assert int8["fidelity"]["agreement"] > 0.7
    assert len(int8["steps"]) > 5


def test_proposals_that_do_not_fit(tmp_path):
    fast, boxes = small("fast_rcnn_vgg16"), proposals(len(PIXELS), 20)
    both = {"image": PIXELS, "proposals": boxes}
    pixels, rest = keras.Input((64, 64, 3)), keras.Input((20, 4))
    two = keras.Model([pixels, rest], fast({"image": pixels, "proposals": rest}), name="two")
    of_other_form = (
        (boxes[:7], r"proposals for each image; got 'image' of \(8, 64, 64, 3\) and .* \(7, 20, 4\)"),
        (boxes[:, :5], r"'proposals' of `images` must be \(8, 20, 4\); got \(8, 5, 4\)"),
        (boxes.astype(str), "'proposals' of `images` must be an array of numbers"),
        (boxes / 64, "left, top, right and bottom in pixels of the image of 64 x 64"),
        (boxes * 4, "left, top, right and bottom in pixels"),
        (boxes[..., [2, 3, 0, 1]], "left, top, right and bottom in pixels"),
        (np.full_like(boxes, np.nan), "got nan, nan, nan, nan"),
    )
    for model, given, words in (
        (fast, PIXELS, r"proposals beside each image: `images` must be a dict of .* \(8, 20, 4\)"),
        (fast, {"image": PIXELS}, "or a dict of 'image' and 'proposals'; got a dict of 'image'."),
        (small("yolox_nano"), both, "takes images alone: `images` must be an array"),
        (two, PIXELS, "two must have one input, of images, or a dict of 'image' and"),
        *((fast, both | {"proposals": wrong}, words) for wrong, words in of_other_form),
    ):
        with pytest.raises(UserError, match=words):
            export(model, tmp_path / "out", images=given, modes=["float32"])
    with pytest.raises(UserError, match="`calibration` must be a dict of 'image' and"):
        export(fast, tmp_path / "out", images=both, calibration=PIXELS)
    assert not list(tmp_path.iterdir())
