"""Checkpoints as people's own trainings and clouds write them."""

import json
import re
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from helpers import command, small_columns
from pytorch import Call, Class, write_old_pth, write_pth

import kvision
from kvision.errors import UserError
from kvision.weights._states import fitting

REFERENCE = Path(__file__).parents[1] / "reference"
COLUMNS = {"filters": (2, 3, 4, 5)}


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return kvision.models.lenet5(num_classes=7, **COLUMNS)


@pytest.fixture
def tensors(network):
    return {name: np.array(value) for name, value in kvision.weights.state_dict(network).items()}


def lenet5(weights, **keywords):
    return kvision.models.lenet5(weights=weights, **COLUMNS | keywords)


def equal(model, tensors):
    loaded = kvision.weights.state_dict(model)
    return loaded.keys() == tensors.keys() and all(np.array_equal(loaded[k], tensors[k]) for k in tensors)


def prefixed(tensors, prefix):
    return {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("checkpoint.pth.tar", 1000),
        ("checkpoint_old.pth.tar", 1000),
        ("checkpoint_without_average.pth.tar", 0),
    ],
)
def test_checkpoints_that_pytorch_wrote(name, start, caplog):
    """make_checkpoints.py says what is in them: an optimizer, a Namespace, devices, NumPy's numbers."""
    model = lenet5(REFERENCE / name)
    assert model.output_shape == (None, 7)
    for tensor in kvision.weights.state_dict(model).values():
        np.testing.assert_array_equal(np.ravel(tensor), start + np.arange(tensor.size))
    taken = "the average of the weights was taken, which is under 'state_dict_ema'"
    assert (taken in caplog.text) == bool(start)


def test_a_pickled_network_is_named():
    with pytest.raises(UserError, match=r"whole model.*torch.nn.modules.module.Module.*`state_dict\(\)`"):
        lenet5(REFERENCE / "whole.pth")


OTHER = Call("mine.Args", (), {"rate": 0.1})


def forms(tensors):
    """Checkpoints in which the tensors are what is meant."""
    average = {name: value + 1 for name, value in tensors.items()}
    statistics = {name: value * 0 for name, value in tensors.items()}
    partial = {name: value + 1 for name, value in tensors.items() if not name.endswith("bias")}
    return {
        "data parallel": prefixed(tensors, "module."),
        "compiled": prefixed(tensors, "_orig_mod."),
        "nested": {"model": prefixed(tensors, "module._orig_mod.")},
        "nested four times": prefixed(tensors, "module.wrapped.student.encoder."),
        "wrapped inside": {n.replace(".conv", "._fsdp_wrapped_module.conv"): t for n, t in tensors.items()},
        "lightning": {"state_dict": prefixed(tensors, "model."), "hyper_parameters": OTHER, "epoch": 1},
        "lightning with metrics": {"state_dict": prefixed(tensors, "net.") | {"accuracy.hits": np.zeros(3)}},
        "backbone, and a head outside": {
            name if name.startswith("classifier") else f"backbone.{name}": value
            for name, value in tensors.items()
        },
        "two keys deep": {"state": {"model": tensors}, "args": OTHER},
        "an unusual key": {"best": tensors, "args": [OTHER, Class("torch.float16")]},
        "an average": {"model": average, "ema": tensors},
        "an average two keys deep": {"model": average, "model_ema": {"module": tensors}},
        "an average in other words": {"params": average, "params_ema": prefixed(tensors, "module.")},
        "an average of timm": {"state_dict_ema": tensors, "state_dict": average, "optimizer": {"state": {}}},
        "an average in capitals": {"model": average, "EMA": tensors},
        "an average in a shadow": {"model": average, "shadow": tensors},
        "an average of PyTorch": {
            "model": average,
            "best": prefixed(tensors, "module.") | {"n_averaged": np.ones((), "int64")},
        },
        "an average beside it": prefixed(average, "model.") | prefixed(tensors, "ema_model."),
        "an average below it": average | prefixed(tensors, "ema."),
        "an average of PyTorch beside it": {
            **prefixed(average, "net."),
            **prefixed(tensors, "net_ema.module."),
            "net_ema.n_averaged": np.ones((), "int64"),
            "loss.weight": np.ones(3),
        },
        "an average beside it and its counter": {
            **prefixed(average, "model."),
            **prefixed(tensors, "ema_model."),
            "n_averaged": np.ones((), "int64"),
        },
        "an average by its name": {"model": average | {"n_averaged": np.ones(())}, "ema_model": tensors},
        "an average without biases": {"model": tensors, "model_ema": partial},
        "statistics under the same names": {"momentum": statistics, "model": tensors},
        "numbers beside them": tensors | {"epoch": 3, "args": OTHER, "name": "x", "none": None},
        "counters": tensors | {"bn.num_batches_tracked": np.zeros((), "int64"), "n_averaged": np.zeros(())},
        "parameters": {
            name: Call("torch._utils._rebuild_parameter", (value, True, Call("collections.OrderedDict")))
            for name, value in tensors.items()
        },
        "an ordered dict": Call("collections.OrderedDict", ([list(item) for item in tensors.items()],)),
        "attributes of a dict": Call(
            "collections.OrderedDict", ([list(i) for i in tensors.items()],), {"m": 1}
        ),
    }


@pytest.mark.parametrize("form", forms({}))
@pytest.mark.parametrize(("write", "name"), [(write_pth, "a.ckpt"), (write_old_pth, "a.pth")])
def test_forms_of_checkpoints(form, write, name, tensors, tmp_path):
    write(tmp_path / name, forms(tensors)[form])
    assert equal(lenet5(tmp_path / name), tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"student": t, "teacher": t | {}}, "several networks.*'student', 'teacher'"),
        (lambda t: prefixed(t, "model.") | prefixed(t, "teacher."), "several networks.*'model.'"),
        (lambda t: t | {"f6.bias": t["f6.bias"] * np.nan}, "holds NaN or infinity in f6.bias"),
        (lambda t: t | {"f6.bias": np.full(5, 1e300)}, "holds NaN or infinity in f6.bias"),
        (lambda t: t | {"f6.bias": np.zeros(5, "int8")}, "f6.bias: it holds int8, not floats"),
        (lambda t: t | {"f6.bias": [0.0] * 5}, "f6.bias: it is a list, not a dense tensor"),
        (lambda t: t | {"f6.bias": Call("torch._utils._rebuild_sparse_tensor")}, "f6.bias.*_sparse_tensor"),
        (lambda t: t | {"f6.bias": Call("torch._utils._rebuild_qtensor")}, "f6.bias.*_rebuild_qtensor"),
        (lambda t: t | {"f6.\x1b[31m": np.zeros(5)}, r"1 unexpected .f6.\\x1b"),
        (lambda t: {"model": Call("ultralytics.Model"), "ema": None}, "no tensors.*ultralytics.Model"),
        (lambda t: Call("torchvision.models.resnet.ResNet"), "whole model.*torchvision.models.resnet.ResNet"),
        (lambda t: {"epoch": 3, "optimizer": {"state": {}}}, "no tensors.*'epoch' .int., 'optimizer'"),
        (lambda t: {}, "no tensors by name"),
        (lambda t: [t], "holds a list"),
        (lambda t: t["f6.bias"], "holds a tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_named(change, words, network, tensors, tmp_path):
    write_pth(tmp_path / "a.pth", change(tensors))
    with pytest.raises(UserError, match=words) as error:
        kvision.weights.load(network, tmp_path / "a.pth")
    assert str(error.value).isprintable()
    assert equal(network, tensors)


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".weights.h5", ".keras", "mapping"])
def test_weights_that_are_no_numbers(ending, tensors, tmp_path):
    tensors["c3.conv.weight"][0, 0, 0, 0] = np.inf
    broken = lenet5(tensors, allow_nonfinite=True)
    path = tmp_path / f"a{ending}"
    if ending == ".pth":
        write_pth(path, tensors)
    elif ending == ".safetensors":
        kvision.weights.save(broken, path)
    else:
        {".weights.h5": broken.save_weights, ".keras": broken.save}.get(ending, str)(path)
    source = tensors if ending == "mapping" else path
    with pytest.raises(UserError, match="holds NaN or infinity in c3.conv.weight; `allow_nonfinite=True`"):
        lenet5(source)
    assert equal(lenet5(source, allow_nonfinite=True), tensors)


def test_half_precision(tensors, tmp_path):
    halves = {name: value.astype("float16") for name, value in tensors.items()}
    write_pth(tmp_path / "a.pth", halves)
    assert equal(lenet5(tmp_path / "a.pth"), {name: value.astype("f4") for name, value in halves.items()})
    halves = {name: np.ascontiguousarray(value, ml_dtypes.bfloat16) for name, value in tensors.items()}
    safetensors.numpy.save_file(halves, tmp_path / "a.safetensors")
    loaded = lenet5(tmp_path / "a.safetensors")
    assert equal(loaded, {name: value.astype("f4") for name, value in halves.items()})


def write_shards(folder, tensors, **places):
    """Writes safetensors in two files, and their index."""
    names = list(tensors)
    shards = {"1-of-2.safetensors": names[::2], "2-of-2.safetensors": names[1::2]}
    for shard, part in shards.items():
        safetensors.numpy.save_file({n: np.ascontiguousarray(tensors[n]) for n in part}, folder / shard)
    places = {name: shard for shard, part in shards.items() for name in part} | places
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return path


def test_shards_and_their_index(tensors, tmp_path):
    folder = tmp_path / "below"
    folder.mkdir()
    assert equal(lenet5(write_shards(folder, tensors)), tensors)
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    for shard in ("../a.safetensors", str(tmp_path / "a.safetensors"), "", "..", "a.weights.h5", 3, None):
        with pytest.raises(UserError, match="failed to read"):
            lenet5(write_shards(folder, tensors, a=shard))
    with pytest.raises(UserError, match="lacks the tensor 'a' of its index"):
        lenet5(write_shards(folder, tensors, a="1-of-2.safetensors"))
    path = write_shards(folder, tensors)
    (folder / "2-of-2.safetensors").unlink()
    with pytest.raises(
        UserError, match="no file.*2-of-2.safetensors.*, which .*index.json' lists"
    ) as missing:
        lenet5(path)
    (folder / "2-of-2.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="failed to read .*2-of-2.safetensors") as damaged:
        lenet5(path)
    assert [str(error.value).count("`weights`") for error in (missing, damaged)] == [1, 1]
    for text in ("[]", "{}", '{"weight_map": []}', '{"weight_map": 3}', "3"):
        path.write_text(text)
        with pytest.raises(
            UserError, match="failed to read.*'weight_map', the name of a file for each tensor"
        ):
            lenet5(path)
    for text in ("", "[" * 10**5):
        path.write_text(text)
        with pytest.raises(UserError, match="failed to read"):
            lenet5(path)


def test_paths_of_a_home_and_of_other_kinds(network, tensors, tmp_path, monkeypatch):
    class Place:
        def __fspath__(self):
            return "~/a.safetensors"

    monkeypatch.setenv("HOME", str(tmp_path))
    kvision.weights.save(network, "~/a.safetensors")
    assert (tmp_path / "a.safetensors").is_file()
    for path in ("~/a.safetensors", Path("~/a.safetensors"), Place(), b"~/a.safetensors"):
        assert equal(lenet5(path), tensors)
        assert kvision.weights.num_classes(path, "classifier") == 7
    (tmp_path / "A.SAFETENSORS").write_bytes((tmp_path / "a.safetensors").read_bytes())
    assert equal(lenet5("~/A.SAFETENSORS"), tensors)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(FileNotFoundError, match="no file.*folder.pth"):
        lenet5("~/folder.pth")
    for nothing in (3, ["a.pth"], object()):
        with pytest.raises(UserError):
            lenet5(nothing)
        with pytest.raises(UserError):
            kvision.weights.load(network, nothing)


@pytest.mark.parametrize(
    ("name", "ending", "other"),
    [
        pytest.param(
            "mobilenet_v3_small",
            ".keras",
            {"num_classes": 5, "input_shape": (64, 64, 4)},
            marks=pytest.mark.slow,
        ),
        ("resnet18", ".weights.h5", {"include_top": False, "input_shape": (64, 64, 1)}),
        pytest.param("vit_tiny_patch16", ".weights.h5", {"input_shape": (96, 96, 3)}, marks=pytest.mark.slow),
        pytest.param("swin_tiny", ".keras", {"input_shape": (96, 96, 3)}, marks=pytest.mark.slow),
    ],
)
def test_files_of_keras_adapt_as_pytorchs_do(name, ending, other, tmp_path):
    """To other classes, channels and sizes, to the same weights as the same tensors in PyTorch's names."""
    columns = small_columns(name)
    source = kvision.create_model(name, **columns, num_classes=3, input_shape=(64, 64, 3))
    path = tmp_path / f"a{ending}"
    (source.save if ending == ".keras" else source.save_weights)(path)
    models = []
    for weights in (path, kvision.weights.state_dict(source)):
        keras.utils.set_random_seed(0)
        models.append(kvision.create_model(name, weights=weights, **columns | other))
    assert equal(models[0], kvision.weights.state_dict(models[1]))


def test_networks_in_a_keras_file_of_another_model(network, tensors, tmp_path):
    """One that was wrapped, and one that is foreign."""
    pixels = keras.Input((32, 32, 1))
    keras.Model(pixels, network(pixels), name="outer").save(tmp_path / "wrapped.keras")
    assert equal(lenet5(tmp_path / "wrapped.keras"), tensors)
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="mine")])
    dense.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(
        UserError, match="does not fit lenet5 .10 parameters.: .*missing.*2 unexpected .mine/0"
    ):
        lenet5(tmp_path / "a.weights.h5")


def test_commands_take_a_checkpoint(tmp_path, tensors):
    weights = f"--weights={REFERENCE / 'checkpoint.pth.tar'}"
    sentence = command("kvision-evaluate", "--model=lenet5", weights, "--data=digits", code=2)
    assert "does not fit lenet5" in sentence
    full = kvision.weights.state_dict(kvision.models.lenet5())
    write_pth(tmp_path / "a.pt", full | {"f6.bias": np.full(84, np.nan, "f4")})
    arguments = "kvision-evaluate", "--model=lenet5", f"--weights={tmp_path / 'a.pt'}", "--data=digits"
    assert "NaN or infinity in f6.bias" in command(*arguments, code=2)
    assert "no better than chance" in command(*arguments, "--allow_nonfinite")


def averages_that_are_left_out(tensors):
    """Checkpoints in which the tensors are meant, and what is said of the average beside them."""
    other = {name: value + 1 for name, value in tensors.items()}
    wrapped, counter = prefixed(other, "module."), np.zeros((), "int64")
    arrays = list(other.values())
    shadow = {"decay": 0.99, "num_updates": 7, "shadow_params": arrays}
    callbacks = {"SWA": {"n_averaged": 1, "average_model_state": prefixed(other, "model.")}}
    fewer = dict([*other.items()][:8])
    nameless = "was left out: it is a list of tensors without names"
    return {
        "torch_ema": ({"model": tensors, "ema": shadow}, f"'ema/shadow_params' {nameless}"),
        "diffusers": ({"state_dict": tensors, "unet_ema": shadow}, f"'unet_ema/shadow_params' {nameless}"),
        "shadow": ({"state_dict": tensors} | shadow, f"'shadow_params' {nameless}"),
        "a list": ({"model": tensors, "ema_weights": arrays}, f"'ema_weights' {nameless}"),
        "a tuple": (tensors | {"ema": tuple(arrays)}, f"'ema' {nameless}"),
        "nemo": (  # its EMAOptimizer's state
            {"state_dict": tensors, "optimizer_states": [{"opt": {}, "ema": tuple(arrays)}]},
            "'optimizer_states/0/ema' was left out: it is an average in a list or an optimizer",
        ),
        "composer": (
            {"state": {"model": tensors, "algorithms": [("EMA", {"ema_model": {"named": other}})]}},
            "'state/algorithms/0/1/ema_model/named' was left out: it is an average in a list",
        ),
        "an object": ({"model": tensors, "ema": Call("mine.Ema")}, "it is an object of the class mine.Ema"),
        "none yet": ({"model": tensors, "swa": wrapped | {"n_averaged": counter}}, "it averages nothing yet"),
        "none yet, beside it": (
            prefixed(tensors, "net.") | prefixed(wrapped, "net_ema.") | {"net_ema.n_averaged": counter},
            "'net_ema' was left out: it averages nothing yet",
        ),
        "parameters alone": (
            {"state_dict": tensors, "state_dict_ema": fewer},
            r"'state_dict_ema' was left out: it holds 8 of the network's 10 tensors",
        ),
        "parameters alone, beside it": (
            prefixed(tensors, "model.") | prefixed(fewer, "ema_model."),
            r"8 tensors outside of 'model.' were left out \(some of an average: 'ema_model.c1",
        ),
        "lightning": (
            {"state_dict": prefixed(tensors, "model."), "callbacks": callbacks},
            "'callbacks/SWA/average_model_state' was left out: it is an average without its batch norms'",
        ),
        "mmengine": (
            {"state_dict": tensors, "ema_state_dict": wrapped | {"steps": counter}},
            "it holds the weights before averaging, and 'state_dict' their average",
        ),
    }


@pytest.mark.parametrize("form", averages_that_are_left_out({}))
def test_an_average_that_is_left_out_is_named(form, tensors, tmp_path, caplog):
    checkpoint, words = averages_that_are_left_out(tensors)[form]
    write_pth(tmp_path / "a.pth", checkpoint)
    assert equal(lenet5(tmp_path / "a.pth"), tensors)
    message, unchecked = caplog.messages
    assert "holds no settings" in unchecked
    assert re.search(words, message), message


def test_what_is_no_average_is_not_named(tensors, tmp_path, caplog):
    losses = [np.zeros(()), np.ones(())]
    number = Call("numpy.core.multiarray.scalar")
    nothing = {
        "ema": None,
        "avg_loss": losses,
        "ema_loss": number,
        "optimizer": {"exp_avg": [np.zeros((2, 2))]},
        "optimizer_states": [{"state": {"exp_avg": {"a": np.zeros((2, 2))}}, "ema": losses}],
    }
    write_pth(tmp_path / "a.pth", {"model": tensors} | nothing)
    assert equal(lenet5(tmp_path / "a.pth"), tensors)
    assert all("holds no settings" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "keys",
    [
        ("optimizer", "exp_avg"),
        ("exp_avg_sq",),
        ("ema_grad",),
        ("state_dict_no_ema",),
        ("model_without_ema",),
    ],
)
def test_what_only_sounds_like_an_average_is_not_taken(keys):
    wanted = {"a.weight": np.zeros(2), "a.bias": np.ones(2)}
    other = {name: value + 7 for name, value in wanted.items()}
    for key in reversed(keys):
        other = {key: other}
    taken, _ = fitting({"model": wanted} | other, wanted)
    assert taken["a.weight"] is wanted["a.weight"]
