"""Losses, metrics and pictures of forecasts, sequences and clips."""

import numpy as np
import pytest
from PIL import Image

from kvision.errors import UserError
from kvision.tasks import Forecasting, Sequence, Video, add

TASK = Forecasting(class_names=("x", "y"), length=2, scale=(1.0, 10.0), horizon=3)
SERIES = np.array([[[0, 0], [1, 10]], [[2, 20], [2, 20]]], np.float32)
BATCH = {"series": SERIES, "next": np.array([[2, 20], [2, 20]], np.float32), "weight": np.ones(2, np.float32)}


def test_errors_are_in_units_of_the_features():
    forecast = np.array([[3, 20], [2, 40]], np.float32)
    np.testing.assert_allclose(TASK.losses(forecast, BATCH, True)["loss"], [0.5, 2])
    half = BATCH | {"weight": np.array([1, 0], np.float32)}
    sums = TASK.sums(forecast, half)
    assert {name: float(value) for name, value in sums.items()} == {"mse": 0.5, "persistence_mse": 1}
    assert TASK.metrics({"images": 1.0, **sums}) == {"mse": 0.5, "persistence_mse": 1, "skill": 0.5}


@pytest.mark.parametrize(("errors", "skill"), [((0.0, 0.0), 0), ((1.0, 0.0), -np.inf), ((0.0, 2.0), 1)])
def test_the_skill_of_constant_series(errors, skill):
    assert TASK.metrics({"images": 1.0, "mse": errors[0], "persistence_mse": errors[1]})["skill"] == skill


def test_steps_are_judged_each_and_where_they_are_known():
    future = np.array([[[2, 20], [3, 30], [4, 40]], [[2, 20], [4, 20], [np.nan, np.nan]]], np.float32)
    answers = np.array([[[2, 20], [3, 30], [3, 40]], [[2, 20], [2, 20], [9, 9]]], np.float32)
    sums = {}
    for part in (slice(0, 1), slice(1, 2)):
        add(
            sums,
            TASK.judge(
                answers[part], {name: value[part] for name, value in {**BATCH, "future": future}.items()}
            ),
        )
    figures = TASK.figures(sums)
    assert [of["mse"] for of in figures["by_step"].values()] == [0, 1, 0.5]
    assert [of["persistence_mse"] for of in figures["by_step"].values()] == [0.5, 3, 9]
    assert (figures["mse"], figures["skill"]) == (0, 1)
    assert TASK.report(sums).splitlines()[1:] == [
        "      1 ahead  0.0000  0.5000  skill 100.0 %",
        "      2 ahead  1.0000  3.0000  skill 66.7 %",
    ]
    nowhere = TASK.judge(answers[1:], {"series": SERIES[1:], "future": future[1:], "weight": np.ones(1)})
    assert [*TASK.figures(nowhere)["by_step"]] == ["1", "2"]


def test_files_are_read_by_the_names_of_their_columns(tmp_path):
    file = tmp_path / "late.csv"
    file.write_text("y,sequence,x\n10,a,1\n20,a,2\n30,a,3\n40,b,4\n")
    (name, rows), (_, short) = TASK.items([str(file)])
    assert name == f"{str(file)!r}, row 2"
    np.testing.assert_array_equal(TASK.read(rows, 2, True), [[2, 20], [3, 30]])
    with pytest.raises(UserError, match="The network takes 2 rows; the series has 1"):
        TASK.read(short, 2, True)
    file.write_text("x,z\n1,2\n3,4\n")
    with pytest.raises(UserError, match="'z'"):
        TASK.items([str(file)])
    assert TASK.describe(np.array([[1.5, 2], [3, 4]]), 1) == [
        "    1 ahead  x 1.5, y 2",
        "    2 ahead  x 3, y 4",
    ]


def test_sequences_are_filled_up_and_have_the_features_of_the_network(tmp_path):
    task = Sequence(class_names=("up", "down"), length=3, features=2)
    file = tmp_path / "few.csv"
    file.write_text("x,y\n1,2\n3,4\n")
    [(_, rows)] = task.items([str(file)])
    np.testing.assert_array_equal(task.read(rows, 2, True), [[1, 2], [3, 4], [0, 0]])
    file.write_text("x\n1\n3\n")
    with pytest.raises(UserError, match="The network takes 2 features; .*few.csv', row 2 has 1: 'x'."):
        task.items([str(file)])


def test_clips_are_folders_of_frames_and_films(tmp_path):
    frames = [np.full((6, 8, 3), shade, np.uint8) for shade in (10, 20, 30, 40)]
    (tmp_path / "clip").mkdir()
    for place, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"clip/{place}.png")
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "film.gif", save_all=True, append_images=others)
    task = Video(class_names=("up", "down"), length=2)
    paths = [str(path) for path in [*sorted((tmp_path / "clip").iterdir()), tmp_path / "film.gif"]]
    (name, clip), (film, _) = items = task.items(paths)
    assert (name, len(clip), film) == (str(tmp_path / "clip"), 4, str(tmp_path / "film.gif"))
    for _, item in items:
        read = task.read(item, 3, True)
        np.testing.assert_allclose(read.mean((1, 2, 3)), [20, 40], atol=4)  # GIF has a palette
        assert task.prepare(read, (4, 4), crop=1.0, interpolation="bilinear").shape == (2, 4, 4, 3)
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="film.gif' failed to decode"):
        task.read([str(tmp_path / "film.gif")], 3, True)


def test_previews_are_strips_and_curves():
    clip = {"image": np.zeros((1, 5, 6, 8, 3)), "label": np.array([1])}
    [(strip, caption)] = Video(class_names=("up", "down")).preview(None, clip)
    assert (strip.size, caption) == ((4 * 8, 6), "down")
    sequence = {"series": SERIES, "label": np.array([1, 0])}
    pictures = Sequence(class_names=("up", "down")).preview(None, sequence)
    assert [caption for _, caption in pictures] == ["down", "up"]
    for (curves, _), _ in zip([*pictures, *TASK.preview(None, BATCH)], range(4), strict=True):
        assert len(curves.getcolors()) >= 2
