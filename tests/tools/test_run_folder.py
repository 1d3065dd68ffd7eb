"""Whose a run folder is: other flags, other images, beginnings that were cut off, foreign files, locks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from helpers import TINY, command, dark_and_light

from kvision import run_info
from kvision.data.identity import Files, identify
from kvision_tools import run_folder
from kvision_tools.checkpoints import name_of
from kvision_tools.config import define_flags, from_flags

ARGUMENTS = ["kvision-train", "--model=lenet5", "--data=digits", "--model_kwarg=a=1", "--model_kwarg=b=2"]


class Command:
    """The command whose flags were parsed last."""

    config = None


@pytest.fixture
def parsed():
    """Parses flags of kvision-train."""

    def parse(*more):
        flag_values = flags.FlagValues()
        define_flags(flag_values)
        flag_values([*ARGUMENTS, "--crop=1", "--interpolation=bilinear", *more])
        Command.config = from_flags(flag_values)

    return parse


def check(folder, overwrite=False):
    return run_folder.check(folder, Command.config, overwrite)


def identities(names=("cat", "dog"), labels=(0, 0, 1)):
    here = identify(names, np.array(labels), None)
    return {"train": here, "val": here}


def made(folder, overwrite=False, **what):
    run_folder.make(folder, Command.config, identities(**what), overwrite).close()
    return folder


def trained(folder, step=1):
    """A run that has saved a checkpoint."""
    made(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / name_of(step)).touch()
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_goes_on_with_its_own_flags_alone(parsed, tmp_path):
    parsed()
    run = tmp_path / "run"
    assert not check(run, False)
    trained(run)
    assert check(run, False)
    parsed(f"--output={run}", "--worker_timeout=5")
    assert check(run, False)
    parsed("--model_kwarg=c=3", "--nostrict")
    with pytest.raises(
        ValueError,
        match="the run has --model_kwarg=a=1 --model_kwarg=b=2, this command .* --model_kwarg=c=3.",
    ):
        check(run, False)
    assert not check(run, True)


@pytest.mark.parametrize("step", [None, 0, 1])
def test_a_run_that_took_no_step_is_replaced_by_one_with_other_flags(step, parsed, tmp_path, capsys):
    parsed("--seed=3", "--warmup_epochs=0.5")
    run = made(tmp_path / "run") if step is None else trained(tmp_path / "run", step)
    (run / "tensorboard/train").mkdir(parents=True)
    assert check(run, False)
    parsed("--seed=4")
    if step:
        with pytest.raises(ValueError, match="the run has --seed=3, this command --seed=4"):
            check(run, False)
        return
    (run / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not replaced, as no run writes 'notes.txt'"):
        check(run, False)
    (run / "notes.txt").unlink()
    assert run_folder.warmup_epochs(run) is None
    assert not check(run, False)
    made(run)
    assert "took no step, with other flags (the run has --seed=3, this" in capsys.readouterr().err
    assert "--seed=4" in (run / run_info.FLAGS).read_text().splitlines()
    assert not (run / "checkpoints").exists()


def test_a_run_whose_record_is_damaged_does_not_go_on(parsed, tmp_path):
    parsed()
    run = trained(tmp_path / "run")
    whole = json.loads((run / run_info.RUN).read_text())
    others = ({"crop": None}, {"crop": "1"}, {"crop": 2}, {"interpolation": ["a"]}, {"val_fraction": "a"},
              {"data": 7}, {"exif": "no"}, {"crop": True}, {"task": "a"}, {"versions": []})  # fmt: skip
    for text in ("{", "[]", *(json.dumps(whole | other) for other in others)):
        (run / run_info.RUN).write_text(text)
        with pytest.raises(ValueError, match="run.json' is damaged.* Remove it, and the run writes its own"):
            check(run, False)


def test_flags_that_an_older_run_did_not_have_are_at_their_defaults(parsed, tmp_path):
    parsed()
    path = trained(tmp_path / "run") / run_info.FLAGS
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("--nan_restores")) + "\n")
    assert check(path.parent, False)
    parsed("--nan_restores=7")
    with pytest.raises(ValueError, match="the run has no --nan_restores, this command --nan_restores=7."):
        check(path.parent, False)


def test_paths_of_one_file_are_equal(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    parsed("--data=folder:images", "--weights=w.safetensors")
    run = trained(tmp_path / "run")
    for data, weights in (
        (f"folder:{tmp_path}/images/", f"{tmp_path}/w.safetensors"),
        ("folder:~/images", "~/w.safetensors"),
        ("folder:./run/../images", "./w.safetensors"),
    ):
        parsed(f"--data={data}", f"--weights={weights}")
        assert check(run, False)
    parsed("--data=csv:images", "--weights=w.safetensors")
    with pytest.raises(ValueError, match="the run has --data=folder:images, this command --data=csv:images"):
        check(run, False)


def test_a_run_may_become_longer(parsed, tmp_path, capsys):
    parsed("--epochs=4", "--warmup_epochs=0.5")
    run = trained(tmp_path / "run")
    assert run_folder.warmup_epochs(run) == 0.5
    assert run_folder.warmup_epochs(tmp_path) is None
    parsed("--epochs=6", "--warmup_epochs=0.5")
    assert check(run, False)
    # a launcher that started a new run over it does not go on with it
    assert not run_folder.is_this(run, Command.config)
    made(run)
    assert "had 4 epochs and goes on to 6, with the learning rates" in capsys.readouterr().err
    assert "--epochs=6" in (run / run_info.FLAGS).read_text().splitlines()
    for given in (["--epochs=4", "--warmup_epochs=0.5"], ["--epochs=8", "--warmup_epochs=0.5", "--seed=3"]):
        parsed(*given)
        with pytest.raises(ValueError, match=f"the run has --epochs=6, this command {given[0]}"):
            check(run, False)


def complete(run):
    """A folder with the files of a whole run, of an export, and of kills while they write."""
    made(run)
    names = (
        ".model.keras", ".metrics.tmp", ".curves.png", ".flags.tmp", "model.keras", "metrics.csv",
        "curves.png",
        "checkpoints/step_00000010.safetensors", "checkpoints/.step_00000011.tmp",
        "checkpoints/step_00000011.tmp", "tensorboard/train/events.out.tfevents.17.vm.1.0.v2",
        "tensorboard/validation/events.out.tfevents.17.vm.1.1.v2", "export/lenet5_int8.tflite",
        "export/report.json", "export/report.html", "export/labels.txt", ".export.part/lenet5_float32.tflite",
    )  # fmt: skip
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x")
    return run


def test_overwrite_removes_what_a_run_wrote(parsed, tmp_path):
    parsed()
    run = complete(tmp_path / "run")
    made(run, True)
    assert {path.name for path in run.iterdir()} == {
        run_folder.LOCK, run_folder.DATASET, run_info.FLAGS, run_info.LABELS, run_info.RUN,
    }  # fmt: skip


def link(path, target):
    target.mkdir()
    (target / "thesis.tex").write_text("mine")
    path.symlink_to(target)


FOREIGN = {
    "notes.txt": lambda path: path.write_text("mine"),
    "checkpoints/best.safetensors": lambda path: path.write_text("mine"),
    "checkpoints/old/step_00000001.safetensors": lambda path: (path.parent.mkdir(), path.write_text("mine")),
    "tensorboard/events.csv": lambda path: path.write_text("mine"),
    "export/notes.md": lambda path: path.write_text("mine"),
    "export/assets/labels.txt": lambda path: (path.parent.mkdir(), path.write_text("mine")),
    "src/flags.txt": lambda path: (path.parent.mkdir(), path.write_text("mine")),
    "empty": lambda path: path.mkdir(),
    "more": lambda path: link(path, path.parents[1] / "elsewhere"),
    "checkpoints": lambda path: (shutil.rmtree(path), link(path, path.parents[1] / "elsewhere")),
    "model.keras": lambda path: (path.unlink(), path.symlink_to("metrics.csv")),
    "labels.txt": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_run_writes_is_not_removed(name, parsed, tmp_path):
    parsed()
    run = complete(tmp_path / "run")
    FOREIGN[name](run / name)
    before = contents(tmp_path)
    (top, *_) = name.split("/")
    for _ in range(2):
        with pytest.raises(ValueError, match=f"is not replaced, as no run writes .*{top}"):
            check(run, True)
        with pytest.raises(ValueError, match="is not replaced"):
            made(run, True)
        (run / run_folder.BEGINNING).touch()  # a beginning that was cut off removes no more
        before[f"run/{run_folder.BEGINNING}"] = b""
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "text", [b"", b"mine\n", b"--model=x\n", b"\xff\xfe", b"--data=digits\n--model=x\nUser flags\n"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_flags_txt_makes_no_run_folder(text, overwrite, parsed, tmp_path):
    parsed()
    (tmp_path / run_info.FLAGS).write_bytes(text)
    for _ in range(2):
        with pytest.raises(ValueError, match="not empty and not a run folder"):
            check(tmp_path, overwrite)
        with pytest.raises(ValueError, match="not empty and not a run folder"):
            made(tmp_path, overwrite)
    assert (tmp_path / run_info.FLAGS).read_bytes() == text


def test_a_run_without_its_flags_is_not_begun_anew_in_silence(parsed, tmp_path):
    parsed()
    run = complete(tmp_path / "run")
    (run / run_info.FLAGS).unlink()
    with pytest.raises(ValueError, match="not empty and not a run folder"):
        check(run, False)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="is a file"):
        check(file, True)


class Cut(BaseException):
    """A kill."""


def cut_after(monkeypatch, calls):
    """Ends at the n-th operation on files, as a kill would."""
    left = [calls]

    def counted(function):
        def operation(*arguments, **keywords):
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return function(*arguments, **keywords)

        return operation

    monkeypatch.setattr(os, "replace", counted(os.replace))
    for name in ("write_text", "touch", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


@pytest.mark.parametrize("old", ["nothing", "the same run", "another run"])
def test_a_beginning_that_was_cut_off_is_begun_anew(old, parsed, tmp_path, monkeypatch):
    parsed()
    expected = contents(made(tmp_path / "whole"))
    calls = 0
    while True:
        run = tmp_path / f"run{calls}"
        if old != "nothing":
            parsed("--seed=3" if old == "another run" else "--seed=0")
            complete(run)
        parsed()
        with monkeypatch.context() as patch:
            cut_after(patch, calls)
            try:
                made(run, True)
            except Cut:
                cut = True
            else:
                cut = False
        begun = (run / run_folder.BEGINNING).exists()
        made(run, overwrite=not begun)  # the launcher starts anew without --overwrite
        after = contents(run)
        assert after.keys() == expected.keys()
        for name in expected.keys() - {run_folder.LOCK, run_info.FLAGS}:
            assert after[name] == expected[name]
        if not cut:
            break
        calls += 1
    assert calls > 8 or old == "nothing"


def test_an_empty_folder_and_one_with_a_lock_hold_no_run(parsed, tmp_path):
    parsed()
    (tmp_path / run_folder.LOCK).touch()
    assert not check(tmp_path, False)
    (tmp_path / f".{run_info.LABELS}").touch()
    assert not check(tmp_path, False)
    (tmp_path / run_info.LABELS).write_text("mine")
    with pytest.raises(ValueError, match="not empty and not a run folder"):
        check(tmp_path, False)


HOLDER = """
import sys
from pathlib import Path
import numpy as np
from kvision.data.identity import identify
from kvision_tools import run_folder
from kvision_tools.config import TrainConfig
here = identify(("cat", "dog"), np.array((0, 0, 1)), None)
settings = {{"model_kwarg": {{"a": 1, "b": 2}}, "crop": 1, "interpolation": "bilinear"}}
config = TrainConfig(model="lenet5", data="digits", **settings)
lock = run_folder.make(Path({run!r}), config, {{"train": here, "val": here}}, False)
print("made", flush=True)
sys.stdin.read()
"""


def test_one_training_at_a_time(parsed, tmp_path):
    run = tmp_path / "run"
    parsed()
    code = HOLDER.format(run=str(run))
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with holder:
        assert holder.stdout.readline() == b"made\n"
        before = contents(run)
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=f"Another training .*'process {holder.pid} on .*, since"):
                check(run, overwrite)
            with pytest.raises(ValueError, match="Another training"):
                made(run, overwrite)
        assert contents(run) == before
        holder.kill()
    assert check(run, False)  # at once
    lock = run_folder.make(run, Command.config, identities(), False)
    with pytest.raises(ValueError, match=f"'process {os.getpid()} on"):
        check(run, False)
    lock.close()


def files(root, **sizes):
    paths = [root / name for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        if not path.exists():
            path.write_bytes(bytes(size))
    return Files(list(map(str, paths)), str(root), np.arange(len(paths)))


def test_a_run_goes_on_with_its_own_images_alone(parsed, tmp_path, capsys):
    parsed()
    run = made(tmp_path / "run")
    run_folder.compare(run, identities())
    assert not capsys.readouterr().err
    for other, words in (
        ({"names": ("cat", "canine")}, "train: class 'dog' is gone, class 'canine' is new; val: "),
        ({"names": ("dog", "cat")}, "the classes have another order"),
        ({"labels": (0, 1, 1)}, "class 'cat' has 1 image instead of 2"),
    ):
        with pytest.raises(ValueError, match=f"trained on other images .*{words}.*`overwrite=True` starts"):
            run_folder.compare(run, identities(**other))
    (run / run_info.LABELS).write_text("dog\ncat\n")
    with pytest.raises(ValueError, match="labels.txt' has other class names than the run: 'dog', 'cat' inst"):
        run_folder.compare(run, identities())
    (run / run_info.LABELS).unlink()
    run_folder.compare(run, identities())
    made(run)
    assert (run / run_info.LABELS).read_text() == "cat\ndog\n"
    only_val = identities() | {"val": identities(labels=(0, 1))["val"]}
    with pytest.raises(ValueError, match="other images .val: class 'cat' has 1 image instead of 2."):
        run_folder.compare(run, only_val)
    (run / run_folder.DATASET).write_text("{")
    with pytest.raises(ValueError, match="is damaged: remove it"):
        run_folder.compare(run, identities())
    (run / run_folder.DATASET).unlink()
    with pytest.raises(ValueError, match="has the classes 'cat', 'dog', but `data` has 'dog', 'cat'"):
        run_folder.compare(run, identities(names=("dog", "cat")))
    run_folder.compare(run, identities())
    assert "has no dataset.json: it goes on" in capsys.readouterr().err
    made(run)
    run_folder.compare(run, identities())  # and remembers from now on
    assert not capsys.readouterr().err
    fields = json.loads((run / run_folder.DATASET).read_text())
    assert fields["train"]["counts"] == [2, 1]


def test_files_that_were_touched_alone_are_said(parsed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kvision.data.identity.CHEAP", 0)
    parsed()

    def identities_now():
        here = identify(("cat", "dog"), np.array([0, 1]), files(tmp_path, a=3, b=4))
        return {"train": here, "val": here}

    run = tmp_path / "run"
    run_folder.make(run, Command.config, identities_now(), False).close()
    os.utime(tmp_path / "b", (1, 1))
    run_folder.compare(run, identities_now())
    assert "were written since" in capsys.readouterr().err
    (tmp_path / "b").write_bytes(b"12345")
    with pytest.raises(ValueError, match="other names, sizes, contents or labels"):
        run_folder.compare(run, identities_now())


def learning_rates(run):
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [row[lines[0].index("learning_rate")] for row in lines[1:]]


def test_a_finished_run_becomes_longer(tmp_path):
    """Its warm-up stays, and the learning rates are from there on those of a run of the new length."""
    lenet = ["kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--batch_size=300"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    command(*lenet, "--epochs=1", f"--output={run}")
    printed = command(*lenet, "--epochs=3", f"--output={run}")
    assert "had 1 epoch and goes on to 3" in printed
    assert "Going on after step 4" in printed
    command(*lenet, "--epochs=3", "--warmup_epochs=0.5", f"--output={whole}")
    assert learning_rates(run)[1:] == learning_rates(whole)[1:]
    assert "has all of its 3 epochs" in command(*lenet, "--epochs=3", f"--output={run}")
    words = "the run has --epochs=3, this command --epochs=2"
    assert words in command(*lenet, "--epochs=2", f"--output={run}", code=2)
    command(*lenet, "--epochs=3", f"--output={tmp_path / 'default'}")  # with a warm-up of an epoch
    sentence = command(*lenet, "--epochs=1", f"--output={tmp_path / 'default'}", code=2)
    assert "the run has --epochs=3, this command --epochs=1" in sentence
    assert "warmup" not in sentence


def test_warm_ups_that_do_not_fit_and_folders_that_cannot_be(tmp_path):
    images = dark_and_light(tmp_path)
    arguments = ["kvision-train", *TINY, f"--data=folder:{images}"]
    sentence = command(*arguments, "--epochs=2", "--warmup_epochs=2", "--ema_decay=1", "--output=", code=2)
    assert "`--warmup_epochs` (2.0) must be below `--epochs` (2)." in sentence
    assert "`--ema_decay` must be between 0 and 1; got 1.0." in sentence
    assert "`--output` must be a folder; got ''." in sentence
    sentence = command(*arguments, "--epochs=1", "--warmup_epochs=0.9", f"--output={tmp_path}-run", code=2)
    assert "`--warmup_epochs` (0.9) must end before the run does, after 1 step." in sentence
    for inside in (images, images / "dark", images / "runs" / "new"):
        sentence = command(*arguments, f"--output={inside}", code=2)
        assert f"must be outside the folder of `--data=folder:{images}`; got '{inside}'." in sentence
    assert {path.name for path in images.iterdir()} == {"dark", "light"}


def test_commands_refuse_other_images(tmp_path_factory, tmp_path):
    """One in another's place, and a class of another name; a finished run too."""
    folder = dark_and_light(tmp_path_factory.mktemp("images"))
    run = tmp_path / "run"
    arguments = ["kvision-train", *TINY, f"--data=folder:{folder}", "--batch_size=16", "--epochs=1",
                 f"--output={run}"]  # fmt: skip
    command(*arguments)
    shutil.copy(folder / "dark" / "0.png", folder / "dark" / "1.png")
    assert "images have other names, sizes, contents or labels" in command(*arguments, code=2)
    (folder / "dark").rename(folder / "night")
    sentence = command(*arguments, code=2)
    assert "class 'dark' is gone, class 'night' is new" in sentence
    assert (run / "labels.txt").read_text() == "dark\nlight\n"
