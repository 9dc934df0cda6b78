# What a user runs: `make demo` and `make test`. Both set up .venv first; nothing outside this directory is changed.
#
#   PYTHON       the Python to build .venv with, 3.11 or later        (default: the first that fits)
#   TORCH_INDEX  where to look for PyTorch first; the default holds builds without CUDA, a tenth of the size.
#                TORCH_INDEX= takes what pip is configured for, which on PyPI is the build with CUDA.
#   WORKERS      processes that run tests side by side, with 1 GB of memory each                   (default: 2)
#   PYTEST_FLAGS what else pytest is told, such as '-k latency -x'

PYTHON      ?= $(shell tools/find-python)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS     ?= 2

VENV        := .venv
BIN         := $(VENV)/bin
INSTALLED   := $(VENV)/installed
CONSTRAINTS := requirements/constraints.txt

.DELETE_ON_ERROR:
.PHONY: demo test test-all lint format install constraints clean

demo: $(INSTALLED)
	$(BIN)/python -m enet_tvm.demo

# Containers often forbid Python to keep bytecode. The suite starts hundreds of Pythons, which would compile the package each time.
unexport PYTHONDONTWRITEBYTECODE

# A file stays with one worker, so that what its tests share is made once; the longest files come first (tests/support/suite.py).
# PyTorch's threads sleep while they wait: those of one worker would otherwise spin on the processors of the other.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST) -m 'not slow' --hypothesis-profile quick $(PYTEST_FLAGS)

test-all: $(INSTALLED)
	$(PYTEST) $(PYTEST_FLAGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@echo 'setting up $(VENV): once, and again when pyproject.toml or $(CONSTRAINTS) change'
	@TORCH_INDEX='$(TORCH_INDEX)' tools/install '$(PYTHON)' $(VENV) $(CONSTRAINTS)
	@touch $@

# Resolves the newest versions that pyproject.toml allows, with every extra, and pins all of them; run `make test-all` before committing the result.
constraints:
	rm -rf build/constraints
	TORCH_INDEX='$(TORCH_INDEX)' tools/install '$(PYTHON)' build/constraints /dev/null 'test,dev,annotations,cuda,peers,tensorboard,tune,live'
	tools/freeze build/constraints > build/constraints.txt
	mv build/constraints.txt $(CONSTRAINTS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
