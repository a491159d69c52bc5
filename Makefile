# The words that laptop and CI both type. `make` alone says what there is.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
SOURCES := client cli preprocess export server training loadtest examples model_repository tests tools

.PHONY: help demo test check fmt bench docs clean

help:
	@echo "make demo         set everything up, start Triton, paint and draw, leave pictures in out/, keep serving"
	@echo "make demo ONCE=1  the same, but stop after the pictures"
	@echo "make test         set everything up and run the tests"
	@echo "make check        lint, types and import rules"
	@echo "make fmt          format the code"
	@echo "make bench        measure the served pipeline against the same one in a single process"
	@echo "make docs         the documentation as a site, in out/site"
	@echo "make clean        remove what the others made (.venv, out, caches)"

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py $(if $(ONCE),--once)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.dev
	$(BIN)/python -m sketchbridge_loadtest.overhead $(ARGS)

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "wrote: out/site/index.html"

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@tools/install-system-packages "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	@echo "Installing the server and the SDK into $(VENV): about a minute the first time."
	$(PIP) --editable '.[serve,demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@echo "Installing everything into $(VENV): a few minutes the first time."
	$(PIP) --editable '.[serve,demo,export,train,loadtest,dev]'
	@touch $@ $(VENV)/.demo
