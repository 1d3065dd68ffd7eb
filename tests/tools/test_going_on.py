"""kvision-train on the folder of an earlier run: it goes on, or says why not."""

import shutil

import keras
import numpy as np
import pytest
from helpers import TINY, command, dark_and_light, rows


@pytest.mark.slow
def test_a_finished_run_becomes_longer(tmp_path):
    """Its warm-up of half an epoch stays; the learning rates are then those of a run of the new length."""
    run = tmp_path / "run"
    lenet = ["kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--batch_size=300",
             "--learning_rate=0.05", f"--output={run}"]  # fmt: skip
    command(*lenet, "--epochs=1")
    printed = command(*lenet, "--epochs=3")
    assert "had 1 epoch and goes on to 3" in printed
    assert "Going on after step 4" in printed
    whole = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.05, warmup_steps=2)
    found = [float(row["learning_rate"]) for row in rows(run)]
    np.testing.assert_allclose(found, [0, *(float(whole(step)) for step in (8, 12))], rtol=1e-5, atol=1e-9)
    assert "has all of its 3 epochs" in command(*lenet, "--epochs=3")
    words = "the run has --epochs=3, this command --epochs=2"
    assert words in command(*lenet, "--epochs=2", code=2)
    flags = (run / "flags.txt").read_text()
    assert "--warmup_epochs=0.5" in flags
    (run / "flags.txt").write_text(flags.replace("--warmup_epochs=0.5", "--warmup_epochs=1.0"))
    sentence = command(*lenet, "--epochs=1", code=2)  # the length of the warm-up
    assert "the run has --epochs=3, this command --epochs=1" in sentence
    assert "warmup" not in sentence


def test_commands_refuse_other_images(tmp_path_factory, tmp_path):
    """One in another's place, and a class of another name; a finished run too."""
    folder = dark_and_light(tmp_path_factory.mktemp("images"))
    run = tmp_path / "run"
    arguments = ["kvision-train", *TINY, f"--data=folder:{folder}", "--batch_size=16", "--epochs=1",
                 f"--output={run}"]  # fmt: skip
    command(*arguments)
    evaluate = ["kvision-evaluate", f"--model={run}"]
    assert "of the run is 0.2; got 0.5" in command(*evaluate, "--val_fraction=0.5", code=2)
    shutil.copy(folder / "dark" / "0.png", folder / "dark" / "1.png")
    assert "images have other names, sizes, contents, labels or boxes" in command(*arguments, code=2)
    printed = command(*evaluate, f"--data=folder:{folder}")
    assert "on 16 images" in printed  # as no image moved from the training to those held out
    (folder / "light" / "0.png").unlink()
    for moved in (evaluate, ["kvision-export", f"--model={run}", f"--calibration=folder:{folder}"]):
        sentence = command(*moved, code=2)
        assert "(class 'light' has 31 images instead of 32), and images of the training may be" in sentence
    assert "on 79 images" in command(*evaluate, "--split=all")
    (folder / "dark").rename(folder / "night")
    sentence = command(*arguments, code=2)
    assert "class 'dark' is gone, class 'night' is new" in sentence
    assert (run / "labels.txt").read_text() == "dark\nlight\n"


def test_a_run_whose_best_model_is_damaged_does_not_go_on(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    model = tmp_path / "run/model.keras"
    content = model.read_bytes()
    flags = [f"--flagfile={tmp_path / 'run/flags.txt'}", f"--output={tmp_path / 'run'}"]
    assert "has all of its 4 epochs" in command("kvision-train", *flags)
    middle = len(content) // 2
    for damaged in (content[:middle], content[:middle] + bytes(9) + content[middle + 9 :], None):
        model.unlink() if damaged is None else model.write_bytes(damaged)
        assert "is missing or damaged" in command("kvision-train", *flags, code=2)


def test_a_finished_run_is_left_alone_and_other_flags_are_refused(run):
    output, _ = run
    before = (output / "metrics.csv").read_text()
    printed = command("kvision-train", f"--flagfile={output}/flags.txt")
    assert "has all of its 4 epochs" in printed
    sentence = command("kvision-train", f"--flagfile={output}/flags.txt", "--epochs=3", code=2)
    assert "the run has --epochs=4, this command --epochs=3" in sentence
    assert (output / "metrics.csv").read_text() == before


@pytest.mark.slow
def test_a_folder_in_place_of_a_file_of_the_run_ends_with_a_sentence(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run/metrics.csv").unlink()
    (tmp_path / "run/metrics.csv").mkdir()
    flags = [f"--flagfile={tmp_path / 'run/flags.txt'}", f"--output={tmp_path / 'run'}", "--epochs=5"]
    assert "Is a directory: " in command("kvision-train", *flags, code=2)


def test_a_run_that_lost_files_says_so(run, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(run[0], output)
    again = ["kvision-train", f"--flagfile={output}/flags.txt", f"--output={output}"]
    (output / "labels.txt").unlink()
    assert "has all of its 4 epochs" in command(*again)
    assert (output / "labels.txt").read_text() == "dark\nlight\n"
    (output / "model.keras").unlink()
    assert "model.keras', with the weights of the run's best epoch, is missing" in command(*again, code=2)
    shutil.rmtree(output / "checkpoints")
    assert "a run without its checkpoints" in command(*again, code=2)
