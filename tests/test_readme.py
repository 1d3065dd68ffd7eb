"""The README's examples run, in its order, and its table is the registry's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvision
from kvision_tools.commands.info import markdown

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_table_is_the_registrys():
    table = re.search(r"<!-- models:.*?-->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert table.group(1).strip() == markdown(kvision.list_models())


EXAMPLES = re.findall(r"```(python|sh)\n(.*?)```", README, re.DOTALL)


def test_the_languages_of_the_examples():
    assert [language for language, _ in EXAMPLES] == [
        "python", "sh", "sh", "python", "python", "sh", "python", "sh", "sh", "python", "sh", "python",
    ]  # fmt: skip


@pytest.mark.slow
def test_examples_run(tmp_path):
    """Commands are what the tests of each run, too."""
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    for language, code in EXAMPLES:
        program = [sys.executable, "-c"] if language == "python" else ["sh", "-ec"]
        result = subprocess.run(
            [*program, code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, code + result.stdout + result.stderr[-3000:]
    assert (tmp_path / "runs/digits/export/report.json").exists()
