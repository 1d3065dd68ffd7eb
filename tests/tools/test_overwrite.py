"""Run folders that are replaced, and foreign files and cut-off beginnings in them."""

import os
import shutil
from pathlib import Path

import pytest
from run_folders import check, contents, made

from kvision import run_info
from kvision_tools import run_folder


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
        run_folder.LOCK, run_info.DATASET, run_info.FLAGS, run_info.LABELS, run_info.RUN,
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
    for content in (None, b"", b"\xff\xfe\x00"):
        (run / run_info.FLAGS).unlink() if content is None else (run / run_info.FLAGS).write_bytes(content)
        before = contents(run)
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=r"run/flags.txt', with the flags of the run, is missing or"):
                check(run, overwrite)
        assert contents(run) == before
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
