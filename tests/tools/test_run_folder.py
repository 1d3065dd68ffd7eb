"""Owner of a run folder, by its flags, its images and its lock."""

import json
import os
import time

import numpy as np
import pytest
from helpers import COMMANDS
from run_folders import Command, check, contents, identities, made, trained

from kvision import run_info
from kvision.data.identity import Files, identify
from kvision_tools import run_folder
from kvision_tools.config import TrainConfig


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


def test_a_learning_rate_that_follows_from_the_optimizer_is_no_difference(parsed, tmp_path):
    parsed("--learning_rate=0.05")
    run = trained(tmp_path / "run")
    parsed("--epochs=1")
    with pytest.raises(ValueError, match=r"other flags .the run has --epochs=\d+, this command --epochs=1.;"):
        check(run, False)


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
    for given, words in ((["--epochs=4"], "a run may have more"), (["--epochs=8", "--seed=3"], "the run")):
        parsed(*given, "--warmup_epochs=0.5")
        with pytest.raises(ValueError, match=rf"the run has --epochs=6, this command {given[0]}\)?; {words}"):
            check(run, False)


def hold(run, made):
    """Begins a run, whose folder this process then holds."""
    settings = {"model_kwarg": {"a": 1, "b": 2}, "crop": 1, "interpolation": "bilinear"}
    config = TrainConfig(model="lenet5", data="digits", **settings)
    here = identify(("cat", "dog"), np.array((0, 0, 1)), None)
    lock = run_folder.make(run, config, {"train": here, "val": here}, False)
    made.set()
    time.sleep(100)
    lock.close()


def test_one_training_at_a_time(parsed, tmp_path):
    run = tmp_path / "run"
    parsed()
    begun = COMMANDS.Event()
    holder = COMMANDS.Process(target=hold, args=(run, begun))
    holder.start()
    assert begun.wait(60)
    before = contents(run)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"Another training .*'process {holder.pid} on .*, since"):
            check(run, overwrite)
        with pytest.raises(ValueError, match="Another training"):
            made(run, overwrite)
    assert contents(run) == before
    holder.kill()
    holder.join()
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
    (run / run_info.DATASET).write_text("{")
    with pytest.raises(ValueError, match="is damaged: remove it"):
        run_folder.compare(run, identities())
    (run / run_info.DATASET).unlink()
    with pytest.raises(ValueError, match="has the classes 'cat', 'dog', but `data` has 'dog', 'cat'"):
        run_folder.compare(run, identities(names=("dog", "cat")))
    run_folder.compare(run, identities())
    assert "has no dataset.json: it goes on" in capsys.readouterr().err
    made(run)
    run_folder.compare(run, identities())  # and remembers from now on
    assert not capsys.readouterr().err
    fields = json.loads((run / run_info.DATASET).read_text())
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
    with pytest.raises(ValueError, match="other names, sizes, contents, labels or boxes"):
        run_folder.compare(run, identities_now())
