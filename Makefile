# Everything below sets itself up in .venv; it needs Python 3.11 or newer, make and a package index.
#
#   PYTHON=python3.12   the interpreter .venv is made from
#   TORCH="torch torchvision --index-url ADDRESS"   what pip installs as torch, before everything else and over the one
#                                                   that is there (another build, another version)
#   JOBS=2              processes that `make test` runs on
#   ROWS="lowest 3.13" TESTS=tests/images   what `make test-matrix` makes environments for (default: lowest 3.11 3.12 3.13),
#                                           and the tests that it runs (default: the fast ones)
#   MINUTES=60 SEED=0   how long `make fuzz` and `make soak` go on, and where they begin
#
# A torch that is already there, in .venv or in PYTHON itself, is used as it is: only when there is none
# does constraints.txt decide which one is installed. timm needs a torchvision made for the torch: beside a torch
# without one the package index has the one for its version. Where that is of another build (a CPU's beside CUDA's) or
# there is none, name both: TORCH="torch torchvision --index-url ADDRESS".

PYTHON ?= python3
TORCH ?=
JOBS ?= 2
ROWS ?= lowest 3.11 3.12 3.13
TESTS ?=
MINUTES ?= 60
SEED ?= 0
VENV := .venv
EXTRAS := dev,docs,geo,onnx,openslide,remote,tensorboard,vips,zarr
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: force help setup demo test test-slow test-matrix fuzz soak style lint format docs bench dist

help:
	@echo "make setup      make .venv and install foveate with its development tools"
	@echo "make demo       train the demonstration and print its table (about five minutes on two cores)"
	@echo "make test       lint, types, then the fast tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-matrix  the fast tests on Python 3.11 to 3.13 and with the lowest dependencies, in environments of their own"
	@echo "make fuzz       mutated files and model folders, for an hour (MINUTES=60) from SEED=0 on"
	@echo "make soak       trains, predicts and kills, for an hour (MINUTES=60)"
	@echo "make lint       ruff and mypy alone"
	@echo "make format     let ruff rewrite what it can"
	@echo "make docs       build the documentation's site into build/site, strictly"
	@echo "make dist       build the sdist and, of it, the wheel into dist/"
	@echo "make bench      run every benchmark in benchmarks/, beside libraries installed for it"

setup: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"foveate needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: run make with PYTHON=python3.11")'
	@if $(PYTHON) -c 'import torch' 2>/dev/null; \
	then echo "using the torch of $(PYTHON)"; $(PYTHON) -m venv --system-site-packages $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi || { rm -rf $(VENV); exit 1; }

# With TORCH it is made anew each time: what is asked for is installed, whatever is there.
$(STAMP): pyproject.toml constraints.txt $(if $(strip $(TORCH)),force) | $(BIN)/python
	$(if $(strip $(TORCH)),$(PIP) install --force-reinstall $(TORCH))
	@if $(BIN)/python -c 'import torch' 2>/dev/null; \
	then grep -vE '^(torch|torchvision|sympy|mpmath|networkx)==' constraints.txt > $(VENV)/constraints.txt; \
	  $(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $(VENV)/constraints.txt; \
	else cp constraints.txt $(VENV)/constraints.txt; fi
	$(PIP) install --constraint $(VENV)/constraints.txt --editable ".[$(EXTRAS)]"
	@$(BIN)/python -c 'import timm' 2>/dev/null || echo 'pretrained networks cannot be used: the torchvision that is installed is not made for this torch: make setup TORCH="torch torchvision --index-url ADDRESS" installs both from one place'
	@touch $@

# Other libraries, which only the benchmarks need.
$(BENCH_STAMP): $(STAMP)
	$(PIP) install --constraint $(VENV)/constraints.txt --editable ".[bench]"
	@touch $@

demo: setup
	$(BIN)/foveate demo --out runs/demo

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint: style
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes of one thread each finish sooner than one process of two threads. Files are tested in their order, so that
# what a file's tests share is made once; whoever is done first takes half of what the other has left. Bytecode is kept,
# whatever the user's environment says: tests start a hundred processes, and each would compile foveate again.
test: style
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Each in an environment of its own, made, tested in and removed one after the other.
test-matrix: setup
	$(BIN)/python tests/matrix.py --rows "$(ROWS)" --jobs $(JOBS) --torch "$(TORCH)" $(TESTS)

fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --minutes $(MINUTES) --seed $(SEED)

soak: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --minutes $(MINUTES) --seed $(SEED)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The wheel is made of what the sdist holds, as whoever packages foveate makes it.
dist: setup
	rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -d dist
	$(PIP) wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist dist/*.tar.gz
	@ls -l dist

bench: $(BENCH_STAMP)
	@for benchmark in benchmarks/*.py; do \
	  [ -e "$$benchmark" ] || { echo "no benchmark in benchmarks/"; exit 0; }; \
	  echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; \
	done
