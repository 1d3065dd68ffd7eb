.PHONY: demo test test-lowest check clean
PYTHON ?= python3.11
BIN := .venv/bin

# Three of the 360 held-out digits are all but undecided; int8 may turn each, and each is 0.28 points of the drop.
demo: .venv/installed
	$(BIN)/kvision-train --flagfile=tools/recipes/demo.flags
	$(BIN)/kvision-export --model=runs/demo --quantize=float32,float16,dynamic,int8 --max_drop=1

test: .venv/installed
	$(BIN)/pytest

# The tests with the lowest version of each dependency.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --editable ".[dev]"
	touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--requirements pyproject.toml --extra dev
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv-lowest runs exports
