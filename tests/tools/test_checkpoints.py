"""Checkpoints that are damaged, by the one before them."""

import json

import keras
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tensorflow as tf

from kvision.tasks import Classification
from kvision_tools import checkpoints
from kvision_tools.loop import Loop

STATE = {"step": 1, "history": [], "totals": [0.5, 1.0, 2.0], "rate_factor": 1.0}
NEWEST, BEFORE = "step_00000002.safetensors", "step_00000001.safetensors"


def loop():
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(3, name="dense"),
        keras.layers.Dropout(0.5, name="dropout"),
    ]
    model = keras.Sequential(layers, name="network")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, name="sgd")
    optimizer.build(model.trainable_variables)
    return Loop(model, optimizer, tf.distribute.get_strategy(), Classification(class_names=("a", "b", "c")))


@pytest.fixture
def saved(tmp_path):
    """A loop and its two checkpoints, with ones and then twos in them."""
    trained = loop()
    for step in (1, 2):
        trained.model.get_layer("dense").kernel.assign(np.full((2, 3), step, "float32"))
        checkpoints.save(tmp_path, step, trained, STATE | {"step": step})
    return trained, tmp_path


def rewritten(path, change=lambda tensors: None, state=None, keep=("state", "blake2b")):
    """Writes the file anew, as another tool would, with other tensors or another state."""
    with safetensors.safe_open(path, "numpy") as file:
        metadata = {key: value for key, value in file.metadata().items() if key in keep}
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    if state is not None:
        metadata["state"] = state
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def signed(path, change=lambda tensors: None, state=None):
    """The same, with a checksum that is right, as a fault of ours would write it."""
    rewritten(path, change, state)
    with safetensors.safe_open(path, "numpy") as file:
        text = file.metadata()["state"]
    tensors = safetensors.numpy.load_file(path)
    metadata = {"state": text, "blake2b": checkpoints._digest(tensors, text)}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


KERNEL = "model/network/dense/kernel"


def poison(tensors):
    tensors[KERNEL][0, 0] = np.nan


def cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def blank(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)].ljust(len(content), b"\0"))


def foreign(path):
    path.write_bytes(safetensors.numpy.save({"conv.weight": np.ones((2, 2), "float32")}, {"format": "pt"}))


DAMAGE = {
    "truncated": lambda path: cut_off(path, 0.9),
    "truncated in its header": lambda path: cut_off(path, 0.1),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "half of it zeros": lambda path: blank(path, 0.5),
    "foreign": foreign,
    "foreign text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "other values": lambda path: rewritten(path, lambda t: t.update({KERNEL: t[KERNEL] + 1})),
    "other state": lambda path: rewritten(path, state=json.dumps(STATE | {"step": 7})),
    "no checksum beside others": lambda path: rewritten(path, keep=("state",), state=json.dumps({"step": 2})),
    "NaN": lambda path: rewritten(path, poison),
    "NaN before there were checksums": lambda path: rewritten(path, poison, keep=("state",)),
    "NaN with its checksum": lambda path: signed(path, poison),
    "another shape": lambda path: signed(path, lambda t: t.update({KERNEL: t[KERNEL][:1]})),
    "another dtype": lambda path: signed(path, lambda t: t.update({KERNEL: t[KERNEL].astype("float64")})),
    "a tensor missing": lambda path: signed(path, lambda t: t.pop(KERNEL)),
    "a tensor too many": lambda path: signed(path, lambda t: t.update(more=t[KERNEL])),
    "no state": lambda path: rewritten(path, keep=()),
    "state incomplete": lambda path: signed(path, state=json.dumps({"step": 2})),
    "state of other types": lambda path: signed(path, state=json.dumps(STATE | {"step": "2"})),
    "state of other lengths": lambda path: signed(path, state=json.dumps(STATE | {"totals": [0.5]})),
    "state of nothing": lambda path: signed(path, state="null"),
    "state of no JSON": lambda path: signed(path, state="{"),
    "state of much depth": lambda path: signed(path, state="[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(kind, saved, capsys):
    trained, folder = saved
    DAMAGE[kind](folder / NEWEST)
    assert checkpoints.restore(folder, trained, STATE) == STATE
    np.testing.assert_array_equal(trained.model.get_layer("dense").kernel, np.ones((2, 3)))
    said = capsys.readouterr().err
    assert NEWEST in said
    assert "the one before" in said
    assert len(said) < 600
    trained.model.get_layer("dense").kernel.assign(np.zeros((2, 3)))
    DAMAGE[kind](folder / BEFORE)
    with pytest.raises(
        ValueError,
        match=rf"No checkpoint in .* can be used: .*{NEWEST}.*{BEFORE}.*Put back a good copy, or start anew",
    ):
        checkpoints.restore(folder, trained, STATE)
    np.testing.assert_array_equal(trained.model.get_layer("dense").kernel, np.zeros((2, 3)))


def test_a_folder_in_place_of_a_checkpoint_is_refused(saved):
    """It could not be replaced by what is saved later."""
    trained, folder = saved
    for name in (NEWEST, BEFORE):
        (folder / name).rename(folder / "away")
        (folder / name).mkdir()
        with pytest.raises(ValueError, match=f"{name}' is a folder in place of a checkpoint: move it away"):
            checkpoints.restore(folder, trained, STATE)
        (folder / name).rmdir()
        (folder / "away").rename(folder / name)


def test_every_flipped_bit_is_seen(saved):
    """Or changes nothing: the blanks that fill up a header."""
    trained, folder = saved
    path = folder / NEWEST
    whole = path.read_bytes()
    (folder / BEFORE).unlink()
    checkpoints.restore(folder, trained, STATE)
    expected = [v.numpy() for v in checkpoints._variables(trained).values()]
    unseen = 0
    for bit in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            state = checkpoints.restore(folder, trained, STATE)
        except ValueError:
            continue
        unseen += 1
        assert state == STATE | {"step": 2}
        for value, variable in zip(expected, checkpoints._variables(trained).values(), strict=True):
            np.testing.assert_array_equal(value, variable.numpy())
    assert unseen < 64


def test_checkpoints_of_earlier_versions_are_gone_on_from(saved):
    trained, folder = saved
    rewritten(folder / NEWEST, keep=("state",))
    assert checkpoints.restore(folder, trained, STATE) == STATE | {"step": 2}


def test_saving_removes_later_checkpoints_and_what_was_cut_off(saved):
    """Later ones that were passed over would be taken again, and would push out the good ones."""
    trained, folder = saved
    for name in (".step_00000003.tmp", "step_00000003.tmp", "step_00000009.safetensors"):
        (folder / name).write_bytes(b"cut off")
    for name in ("notes.txt", "step_5_of_mine.safetensors"):
        (folder / name).write_text("mine")
    checkpoints.save(folder, 3, trained, STATE)
    assert {path.name for path in folder.iterdir()} == {
        NEWEST, "step_00000003.safetensors", "notes.txt", "step_5_of_mine.safetensors",
    }  # fmt: skip
