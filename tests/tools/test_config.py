"""Training from Python, and the settings that flags fill in."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import dark_and_light, run_python

import kvision_tools
from kvision.errors import UserError
from kvision_tools import TrainConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    return TrainConfig(
        model="vgg11",
        model_kwarg={"hidden_filters": np.int64(8), "filters": (8,) * 5, "depths": (1,) * 5},
        data=f"folder:{dark_and_light(folder / 'images')}",
        image_size=np.int64(32),
        batch_size=16,
        epochs=1,
        learning_rate=0.02,
        precision="bfloat16",
        output=str(folder / "run"),
    )


def test_a_run_from_python_is_lengthened_and_evaluated(config, capsys):
    first = kvision_tools.train(config)
    assert keras.config.dtype_policy().name == "float32"
    assert [row["epoch"] for row in first.history] == [1]
    longer = kvision_tools.train(dataclasses.replace(config, epochs=2))
    assert longer.history[0] == first.history[0]
    assert len(longer.history) == 2
    assert longer.model.output_shape == (None, 2)
    assert str(longer.folder) == config.output
    with pytest.raises(UserError, match=r"`epochs` must be at least 1|holds a run with other flags"):
        kvision_tools.train(config)
    with pytest.raises(UserError, match="`batch_size` 1000 exceeds the 64 training images"):
        kvision_tools.train(dataclasses.replace(config, batch_size=1000, overwrite=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1; got 0"),
        ({"epochs": 1.5}, "`epochs` must be an integer; got 1.5"),
        ({"epochs": True}, "`epochs` must be an integer; got True"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number; got nan"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"label_smoothing": 1}, "`label_smoothing` must be below 1"),
        ({"strict": 1}, "`strict` must be True or False; got 1"),
        ({"model_kwarg": ["a=1"]}, "must be a mapping of keywords"),
        ({"model_kwarg": {"weights": "x"}}, "does not set weights: `weights` says it"),
        ({"seed": -1, "crop": 2}, r"`crop` must be in \(0, 1\]; got 2. `seed` must be in"),
        ({"data": ""}, "`data` is needed"),
    ],
)
def test_settings_are_checked(config, changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(config, **changes)


def test_what_is_no_configuration():
    with pytest.raises(UserError, match="must be a kvision_tools.TrainConfig; got dict"):
        kvision_tools.train({"model": "lenet5"})


def test_equal_settings_have_equal_lines(config):
    assert (
        dataclasses.replace(
            config, weight_decay=0, model_kwarg={"hidden_filters": 8, "filters": (8,) * 5, "depths": (1,) * 5}
        ).lines()
        == config.lines()
    )


def test_all_commands_can_be_imported_in_one_process():
    names = ["train", "evaluate", "predict", "launch", "benchmark", "info"]
    imports = [f"import kvision_tools.commands.{name}" for name in names] + ["import kvision_export.command"]
    run_python("\n".join(imports))
