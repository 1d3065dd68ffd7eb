"""Sequences from the shell: captions, clips, series and rows of measurements."""

import json
import re

import numpy as np
import pytest
from helpers import command, rows
from PIL import Image
from run_folders import check_killed

from kvision import opening
from kvision.data.sources.two_shapes import draw
from kvision.vocabulary import SPECIAL

OPTIMIZER = ["--optimizer=adamw", "--learning_rate=3e-3", "--clip_norm=5", "--deterministic"]
BACKBONE = [
    "--model_kwarg=backbone=resnet18", "--model_kwarg=backbone.filters=8",
    "--model_kwarg=backbone.depths=(1,1,1,1)", "--model_kwarg=units=16", "--norm_momentum=0.8",
]  # fmt: skip
CAPTIONS = [
    "kvision-train", "--model=captioner", "--model_kwarg=decoder=transformer", "--model_kwarg=num_heads=2",
    *BACKBONE, *OPTIMIZER, "--image_size=64", "--length=9", "--batch_size=8", "--label_smoothing=0.1",
]  # fmt: skip
ENCODER = [
    "kvision-train", "--model=transformer_encoder", "--model_kwarg=depth=1", "--model_kwarg=width=16",
    "--model_kwarg=hidden=32", "--model_kwarg=num_heads=2", "--data=shapes", *OPTIMIZER,
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 pictures, two captions each."""
    root, lines = tmp_path_factory.mktemp("captions"), ["path,text"]
    for index in range(40):
        image, text = draw(7, index)
        Image.fromarray(image).save(root / f"{index}.png")
        lines += [f'{index}.png,"{text}"', f'{index}.png,"There is {text}."']
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("captioning") / "run"
    flags = [f"--data=captions:{pictures / 'list.csv'}", "--epochs=4", "--schedule=inverse_sqrt"]
    command(*CAPTIONS, *flags, "--debug_batch", f"--output={output}")
    return output


def test_a_captioner_is_trained_evaluated_and_predicts(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    epochs = rows(run)
    assert float(epochs[-1]["loss"]) < float(epochs[0]["loss"])
    rates = [float(row["learning_rate"]) for row in epochs]  # of 8 steps an epoch; warm-up is the first
    np.testing.assert_allclose(rates[1:], 3e-3 * np.sqrt(8 / np.array([16, 24, 32])), rtol=0.04)
    opened = opening.open_model(str(run))
    assert (opened.task.name, opened.task.length, opened.class_names[:4]) == ("captioning", 9, SPECIAL)
    assert "there" in opened.class_names
    with Image.open(run / "debug_batch.png") as sheet:
        assert min(sheet.size) > 2 * 128
    printed = command("kvision-evaluate", f"--model={run}", "--beam=1", f"--json={tmp_path / 'figures.json'}")
    assert re.search(r"captioner on 8 images: exact match [\d.]+ %, BLEU-1 [\d.]+ %, .*BLEU-4", printed)
    figures = json.loads((tmp_path / "figures.json").read_text())["metrics"]
    assert [*figures] == ["exact", "bleu_1", "bleu_2", "bleu_3", "bleu_4"]
    printed = command("kvision-evaluate", f"--model={run}", "--data=shapes", "--split=val")
    assert "captioner on 300 images" in printed  # which have words of the network's alone
    printed = command("kvision-predict", f"--model={run}", "--beam=2", pictures / "3.png")
    path, sentence, *_ = printed.splitlines()
    assert path == str(pictures / "3.png")
    assert {*sentence.split()} <= {*opened.class_names}
    with Image.open(tmp_path / "predictions/3_attention.png") as picture:
        assert min(picture.size) >= 160


@pytest.mark.slow
def test_a_run_of_captions_that_was_killed_goes_on_to_the_same_weights(pictures, tmp_path):
    flags = [
        *CAPTIONS,
        "--model_kwarg=dropout_rate=0.1",
        f"--data=captions:{pictures / 'list.csv'}",
        "--epochs=6",
    ]
    command(*flags, f"--output={tmp_path / 'whole'}")
    check_killed(flags, tmp_path / "whole", tmp_path)


@pytest.mark.slow
def test_two_workers_judge_all_captions(pictures, tmp_path):
    flags = [*CAPTIONS[1:], f"--data=captions:{pictures / 'list.csv'}", "--epochs=1"]
    command("kvision-train", *flags, f"--output={tmp_path}/one")
    command("kvision-launch", "--workers=2", "--", "kvision-train", *flags, f"--output={tmp_path}/two")
    one, two = rows(tmp_path / "one")[0], rows(tmp_path / "two")[0]
    for name in ("loss", "val_loss"):
        assert float(two[name]) == pytest.approx(float(one[name]), rel=0.1)


def test_clips_are_classified(tmp_path):
    random = np.random.default_rng(0)
    for name in ("down", "up"):
        for clip in range(10):
            folder = tmp_path / f"clips/{name}/{clip}"
            folder.mkdir(parents=True)
            levels = np.linspace(0, 255, 5)[:: 1 if name == "up" else -1]
            for place, level in enumerate(levels + random.uniform(0, 9, 5)):
                Image.fromarray(np.full((32, 32, 3), min(level, 255), np.uint8)).save(folder / f"{place}.png")
    data, run = f"--data=video:{tmp_path / 'clips'}", tmp_path / "run"
    flags = ["--model=frame_classifier", *BACKBONE, *OPTIMIZER, "--image_size=32", "--length=3"]
    command("kvision-train", *flags, data, "--epochs=4", "--batch_size=8", f"--output={run}", "--debug_batch")
    printed = command("kvision-evaluate", f"--model={run}", "--split=all", data)
    assert re.search(r"frame_classifier on 20 clips: loss [\d.]+, top-1 [\d.]+ %", printed)
    first = tmp_path / "clips/up/0"
    frames = [Image.open(path) for path in sorted(first.iterdir())]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    printed = command("kvision-predict", f"--model={run}", "--topk=1", first, tmp_path / "film.gif")
    assert re.fullmatch(rf"{first}\n +[\d.]+ %  \d  \w+\n{tmp_path}/film.gif\n +[\d.]+ %  \d  \w+\n", printed)
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    ended = command("kvision-predict", f"--model={run}", tmp_path / "film.gif", code=2)
    assert "None of the files can be read; clips were expected" in ended
    ended = command("kvision-predict", f"--model={run}", tmp_path / "run/run.json", code=2)
    assert "None of the files has clips, which frame_classifier takes" in ended


def test_series_are_forecast(tmp_path):
    file, run = tmp_path / "sine.csv", tmp_path / "run"
    values = np.sin(0.3 * np.arange(200))
    file.write_text("\n".join(["x,y", *(f"{100 * x},{1 - x}" for x in values)]) + "\n")
    flags = ["--model=autoregressive", "--model_kwarg=window=6", *OPTIMIZER, "--length=8", "--epochs=40"]
    command("kvision-train", *flags, f"--data=series:{file}", f"--output={run}", "--debug_batch")
    assert float(rows(run)[-1]["val_skill"]) > 0.5
    printed = command("kvision-evaluate", f"--model={run}", "--horizon=3", f"--json={tmp_path / 'of.json'}")
    assert re.search(
        r"autoregressive on 40 windows: mean squared errors.*\n +1 ahead .*\n +2 ahead .*\n$", printed
    )
    figures = json.loads((tmp_path / "of.json").read_text())["metrics"]
    assert [*figures["by_step"]] == ["1", "2", "3"]
    file.write_text("\n".join(["y,x", *(f"{1 - x},{100 * x}" for x in values[:20])]) + "\n")
    printed = command("kvision-predict", f"--model={run}", "--horizon=2", file)
    first = re.search(r"1 ahead  x ([-\d.]+), y ([-\d.]+)\n +2 ahead  x", printed)
    assert float(first[1]) == pytest.approx(100 * values[20], abs=40)
    file.write_text("x\n1\n2\n3\n")
    ended = command("kvision-evaluate", f"--model={run}", f"--data=series:{file}", "--split=all", code=2)
    assert "lack 1 column of the network: 'y'" in ended
    file.write_text("x,y\n1,2\n1,one\n")
    assert "a number was expected" in command("kvision-predict", f"--model={run}", file, code=2)


def test_sequences_are_classified(tmp_path):
    run, file = tmp_path / "run", tmp_path / "few.csv"
    printed = command(*ENCODER, "--epochs=2", f"--output={run}")
    assert re.search(r"epoch 2/2: loss [\d.]+, accuracy", printed)
    assert "on 300 sequences: loss" in command("kvision-evaluate", f"--model={run}")
    file.write_text("x,y,side,sequence\n" + "".join(f"{x},16,8,{name}\n" for name in "ab" for x in (3, 5, 7)))
    printed = command("kvision-predict", f"--model={run}", "--topk=1", file)
    assert re.fullmatch(rf"('{file}', row \d\n +[\d.]+ %  \d  (left|right|up|down)\n){{2}}", printed)
    file.write_text("sequence,label,x\na,left,3\n")
    ended = command("kvision-evaluate", f"--model={run}", f"--data=series:{file}", "--split=all", code=2)
    assert "The network takes 3 features; " in ended


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model=captioner", "--data=digits"], "'digits' gives labels and no captions"),
        (["--model=captioner", "--data=shapes", "--min_word_count=9999"], "has 4 classes, '<padding>'"),
        (["--model=captioner", "--data=shapes", "--task=classification"], "must be captioning; got"),
        (["--model=frame_classifier", "--data=shapes", "--task=multilabel"], "must be video; got multilabel"),
        (["--model=frame_classifier", "--data=shapes", "--cache=ram"], "`--cache` is not for clips"),
        (["--model=markov", "--data=shapes"], "and no series: series:FILE.csv was expected"),
        (["--model=markov", "--data=series:no.csv", "--image_size=32"], "`--image_size` is not for series"),
        (["--model=markov", "--data=series:no.csv", "--label_smoothing=0.1"], "`--label_smoothing` is for "),
        (["--model=lenet5", "--data=digits", "--schedule=inverse_sqrt", "--warmup_epochs=0"], "above 0"),
        (["--model=lenet5", "--data=digits", "--length=4"], "`--length` is for video; lenet5"),
        (["--model=lenet5", "--data=digits", "--length=0"], "--length"),
        (["--model=lenet5", "--data=digits", "--max_words=9"], "`--max_words` is for captioning; lenet5"),
        (["--model=lenet5", "--data=digits", "--model_kwarg=backbone.filters=9"], "lenet5 has none"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in command("kvision-train", *arguments, code=2)
    assert not list(tmp_path.iterdir())


def test_flags_of_answers_are_of_their_tasks(run, pictures):
    ended = command("kvision-predict", f"--model={run}", "--horizon=3", pictures / "3.png", code=2)
    assert "`--horizon` is for forecasting; captioner learned captioning" in ended
