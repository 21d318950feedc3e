# make demo   install into .venv and run the main job on the starter task
# make test   install into .venv and run lint, types and tests
# make check  lint, types and tests in an environment that is there already

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test check install install-dev

install: $(BIN)/kdcli

$(BIN)/kdcli: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

install-dev: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'

demo: install
	$(BIN)/kdcli distill --teachers bert,roberta --student 4L
	$(BIN)/kdcli evaluate
	$(BIN)/kdcli export --onnx

test: install-dev
	$(MAKE) check VENV=$(VENV)

check:
	$(BIN)/ruff format --check kdcli tests benchmarks
	$(BIN)/ruff check kdcli tests benchmarks
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=15
