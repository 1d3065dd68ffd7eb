"""Exports of networks of series, sequences, videos and captions."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import mostly_slow
from PIL import Image
from tflite import operators
from tiny_sequences import inputs_for, tiny_captioner, tiny_video

from kvision import networks, sequence
from kvision.errors import UserError
from kvision.tasks import task_of
from kvision.vocabulary import SPECIAL, Vocabulary
from kvision_export import census, convert, flatbuffer, metadata
from kvision_export.exporter import export
from kvision_export.tolerance import Tolerance

FLOATS = ["float32", "float16", "dynamic"]
WORDS = (*SPECIAL, *"abcdefgh")


def series(**keywords):
    return sequence.latent_autoregressive(units=4, input_shape=(5, 2), steps=5, **keywords)


NETWORKS = {
    "markov": lambda: sequence.markov(input_shape=(3, 2)),
    "autoregressive": lambda: sequence.autoregressive(units=4),
    "latent_autoregressive": series,
    "recurrent": lambda: sequence.recurrent_classifier(units=4, input_shape=(5, 2), depth=2),
    "transformer": lambda: sequence.transformer_encoder(
        width=8, hidden=8, depth=1, num_heads=2, input_shape=(5, 2)
    ),
    "clips": lambda: tiny_video("gru", classifier_activation="softmax"),
    "clips by a transformer": lambda: tiny_video("transformer", classifier_activation="softmax"),
}


def randomized(model):
    """The model with weights of some size, so that answers differ; those of normalisations stay."""
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(random.normal(0, 2 / variable.shape[-2] ** 0.5, variable.shape))
    return model


@pytest.mark.parametrize(
    "name", mostly_slow(NETWORKS, "markov", "latent_autoregressive", "transformer", "clips")
)
def test_float_files_are_the_keras_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    kernel = model.get_layer("classifier").kernel
    kernel.assign(5 * kernel)  # so that no two classes are equally likely
    report = export(model, tmp_path / "out", images=inputs_for(model, 4), modes=FLOATS)
    assert [file["refusal"] for file in report["files"]] == ["", "", ""]
    assert report["files"][0]["fidelity"]["largest_difference"] < 1e-5
    assert all(not file["census"]["faults"] for file in report["files"])


@pytest.mark.parametrize("make", [series, NETWORKS["recurrent"]])
def test_files_of_integers_have_no_loops(make, tmp_path):
    model = make()
    values = inputs_for(model, 12)
    modes = ["int8", "int4"]
    report = export(model, tmp_path / "out", images=values, calibration=values, modes=modes, compare=False,
                    tolerances={mode: Tolerance(agreement=0.0) for mode in modes})  # fmt: skip
    for file in report["files"]:
        content = (tmp_path / "out" / file["file"]).read_bytes()
        assert "WHILE" not in operators(content)
        assert Interpreter(model_content=content).get_input_details()[0]["dtype"] == np.float32
    with pytest.raises(
        UserError, match="`io_dtype`: .* takes series in their own units, float32; got 'uint8'"
    ):
        export(model, tmp_path / "out", images=values, calibration=values, modes=["int8"], io_dtype="uint8")


def test_too_many_steps_for_integers():
    model = sequence.recurrent_classifier(units=2, input_shape=(129, 1))
    with pytest.raises(UserError, match="of at most 128 steps; recurrent_classifier has 129: float32"):
        networks.unrolled(model)


CAPTIONERS = [
    f"{decoder} {way}".strip() for decoder in ("lstm", "transformer", "gru") for way in ("", "one_shot")
]


@pytest.mark.parametrize("case", mostly_slow(CAPTIONERS, "lstm", "lstm one_shot", "transformer"))
def test_captions_are_the_greedy_ones(case, tmp_path):
    decoder, _, way = case.partition(" ")
    inject = "every_step" if decoder == "gru" else None
    model = randomized(tiny_captioner(decoder=decoder, inject=inject))
    images = inputs_for(model, 6)["image"]
    greedy = sequence.greedy(model, images)
    references = np.maximum(greedy[:, None], len(SPECIAL))
    report = export(model, tmp_path / "out", images=images, modes=["float32"], way=way, class_names=WORDS,
                    labels=references)  # fmt: skip
    content = (tmp_path / "out" / report["files"][0]["file"]).read_bytes()
    file = Interpreter(model_content=content)
    if way:
        caption = file.get_signature_runner("caption")
        found = np.concatenate([caption(image=image[None])["tokens"] for image in images])
        np.testing.assert_array_equal(found, greedy)
    else:
        encode, step = (file.get_signature_runner(name) for name in ("encode", "step"))
        state = encode(image=images[:1])
        assert {*step.get_input_details()} == {"token", *state}
        assert {*step.get_output_details()} == {"logits", *state}
    assert report["files"][0]["fidelity"]["agreement"] == 1
    assert report["files"][0]["accuracy"]["drop"] == 0
    found = census.census_of(content)
    assert not found.faults
    assert found.metadata["labels"] == list(WORDS)
    assert "Pixels in [0, 255]" in found.metadata["image"]
    names = ["caption(image)"] if way else ["encode(image)", "step("]
    assert [text.startswith(name) for text, name in zip(found.metadata["signatures"], names, strict=True)]
    assert "at most 6 words" in found.metadata["description"]


def test_the_readmes_captioner(tmp_path):
    """The code needs the interpreter alone, and no kvision."""
    model, output = randomized(tiny_captioner()), tmp_path / "runs/captions/export"
    image = np.rint(inputs_for(model, 1)["image"])
    export(model, output, images=image, modes=["float32"], class_names=WORDS)
    Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / "photo.png")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", readme, re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-Ic", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == Vocabulary(WORDS).decode(sequence.greedy(model, image, 20)[0])


def test_int8_captioners_see_in_integers_and_keep_their_state_in_floats(tmp_path):
    model = randomized(tiny_captioner())
    images = inputs_for(model, 12)["image"]
    export(model, tmp_path / "out", images=images, calibration=images, modes=["int8"],
           tolerances={"int8": Tolerance(agreement=0.0)})  # fmt: skip
    file = Interpreter(model_content=(tmp_path / "out/captioner_int8.tflite").read_bytes())
    encode, step = (file.get_signature_runner(name) for name in ("encode", "step"))
    assert encode.get_input_details()["image"]["dtype"] == np.uint8
    assert {details["dtype"] for details in encode.get_output_details().values()} == {np.float32}
    assert step.get_output_details()["logits"]["dtype"] == np.float32


def test_weights_that_two_signatures_share_are_stored_once(tmp_path):
    """The cell sees the image in one, and the words in the other."""
    model = tiny_captioner(units=64)
    parts = task_of(model).signatures(model)
    files = {name: convert.convert(part) for name, part in parts.items()}
    kernel = 4 * 64 * 4 * 64  # bytes; that of the state, which is 0 at first, is in one file alone
    assert len(flatbuffer.merged(files)) < sum(map(len, files.values())) - kernel


@pytest.mark.parametrize("head", mostly_slow(["rnn", "lstm", "gru"], "lstm"))
def test_frame_by_frame_the_clip_is_classified(head, tmp_path):
    model = tiny_video(head, depth=2, classifier_activation="softmax")
    clips = inputs_for(model, 2)
    report = export(model, tmp_path / "out", images=clips, modes=["float32"], way="streaming")
    content = (tmp_path / "out" / report["files"][0]["file"]).read_bytes()
    step = Interpreter(model_content=content).get_signature_runner("step")
    for clip, expected in zip(clips, model.predict(clips, verbose=0), strict=True):
        state = {
            name: np.zeros(details["shape"], np.float32) for name, details in step.get_input_details().items()
        }
        for frame in clip:
            state = step(**state | {"frame": frame[None]})
            probabilities = state.pop("probabilities")
            np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(probabilities[0], expected, atol=1e-5)
    assert "0 in front of the first frame" in str(metadata.read(flatbuffer.read(content), content))


def test_what_a_file_cannot_be(tmp_path):
    captioner, clips = tiny_captioner(), tiny_video("mean", classifier_activation="softmax")
    recurrent = NETWORKS["recurrent"]()
    for model, words, keywords in (
        (clips, "`one_shot` is not for video, which frame_classifier learned", {"way": "one_shot"}),
        (clips, "frame_classifier has no recurrent head", {"way": "streaming"}),
        (captioner, "`streaming` is not for captioning", {"way": "streaming"}),
        (
            captioner,
            "modes are float32, float16 and dynamic; got int8",
            {"way": "one_shot", "modes": ["int8"]},
        ),
        (captioner, "the files of captioner have captions; got 'mask'", {"answer": "mask"}),
        (recurrent, "The Edge TPU has no recurrent layers", {"target": "edgetpu"}),
    ):
        given = inputs_for(model, 4)
        given = given["image"] if isinstance(given, dict) else given
        with pytest.raises(UserError, match=words):
            export(model, tmp_path / "out", images=given, **{"modes": ["float32"]} | keywords)
    assert not list(tmp_path.iterdir())


def test_the_converters_own_integers_of_loops_end_its_process_alone():
    """See tensorflow#75140: where this fails, the converter has learned it, and nothing needs be unrolled."""
    model = NETWORKS["recurrent"]()
    made = convert.convert_apart(model, ["float32", convert.PEER], inputs_for(model, 4))
    assert [*made] == ["float32"]
