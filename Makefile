# make setup | test | demo | lint | clean. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup test demo lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard src/fewbits/kernels/native/*.* src/fewbits/kernels/native/*/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	touch $(INSTALLED)

test: setup
	$(BIN)/python -m pytest -n 2

demo: setup
	$(BIN)/fewbits demo --out build/demo

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright

clean:
	rm -rf .venv build
