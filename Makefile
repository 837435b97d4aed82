# Every target sets up what it needs in .venv: the package, for tests with the extra [dev].
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
suite ?= quick

.DEFAULT_GOAL := help
.PHONY: help install bench test test-lowest test-slow test-gpu gpu gpu-dry ui dashboard report access lint typecheck check fuzz soak bench-overhead bench-commands bench-checkpoints bench-race bench-velo bench-celo2 bench-scoring bench-report bench-metatrain bench-data bench-steps bench-records bench-scale pictures docs docs-serve notebook wheel clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{printf "  make %-15s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "timetrial needs Python >= 3.11; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into $(VENV) (about a minute, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ui]'
	@touch $@
	@echo "Installed $(BIN)/timetrial; after 'source $(BIN)/activate' it is just timetrial"

$(DEV): $(STAMP)
	@echo "Installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ui,dev]'
	@touch $@

$(DOCS): $(STAMP)
	@test $(DEV) -nt pyproject.toml || { echo "Installing what the documentation needs into $(VENV)"; $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ui,docs]'; }
	@touch $@

install: $(STAMP) ## Set up the virtual environment (every other target does this by itself)

bench: $(STAMP) ## Race the optimizers: the quick suite, or suite=mini (make bench suite=mini)
	@$(BIN)/timetrial bench suite=$(suite) $(args)

test: $(DEV) ## Run the tests
	@$(BIN)/python -m pytest -m 'not slow and not gpu' $(args)

LOWEST := .venv-lowest
EXTRAS := --extra ui --extra data --extra slurm --extra postgres

# New warnings of old libraries say nothing here; those of the newest fail in `make test`.
test-lowest: ## Run unit and contract tests with the oldest dependencies that the metadata allow
	@test -x $(LOWEST)/bin/uv || { $(PYTHON) -m venv $(LOWEST) && $(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	@$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct $(EXTRAS) --output-file $(LOWEST)/lowest.txt pyproject.toml
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --constraints $(LOWEST)/lowest.txt --editable '.[ui,dev]'
	@$(LOWEST)/bin/python -m pytest -m 'not slow and not gpu' -W ignore::DeprecationWarning $(or $(args),tests/contract tests/unit)

test-slow: $(DEV) ## Run the tests that take minutes
	@$(BIN)/python -m pytest -m 'slow and not gpu' $(args)

test-gpu: $(DEV) ## Run the tests that need a GPU
	@XLA_PYTHON_CLIENT_PREALLOCATE=false $(BIN)/python -m pytest -m gpu -n 0 tests/gpu $(args)

# These two install nothing: they take PYTHON where it is given, else .venv where there is one.
GPU_PYTHON = $(if $(and $(filter file,$(origin PYTHON)),$(wildcard $(BIN)/python)),$(BIN)/python,$(PYTHON))

gpu: ## Measure the full-size workloads on one GPU, 9 minutes; the tables go to docs/gpu.md
	@$(GPU_PYTHON) -m benchmarks.gpu --append docs/gpu.md $(args)

gpu-dry: ## Try the code of make gpu on this CPU, at reduced size
	@$(GPU_PYTHON) -m benchmarks.gpu --dry --json runs/gpu-dry.json $(args)

ui: $(STAMP) ## Open the recorded runs in the MLflow UI
	@$(BIN)/timetrial ui suite=$(suite) $(args)

storage ?= sqlite:///runs/studies.db

dashboard: $(STAMP) ## Open the HPO studies in optuna-dashboard (storage=URL for others than runs/studies.db)
	@test -x $(BIN)/optuna-dashboard || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dashboard]'
	@$(BIN)/optuna-dashboard $(storage) --host 127.0.0.1 --port 8080 $(args)

report: $(STAMP) ## Write the report of the recorded runs again
	@$(BIN)/timetrial report suite=$(suite) $(args)

pages ?= runs/reports/$(suite)/report.html

access: $(STAMP) ## Check pages with axe-core in Chromium (pages='site/*.html'; needs npm)
	@$(BIN)/python tools/access.py $(pages)

lint: $(DEV) ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

typecheck: $(DEV) ## Check types
	@$(BIN)/mypy

check: lint typecheck test ## Everything that must be green before a commit

soak: $(DEV) ## Kill commands 50 times and signal them in all phases, an hour (args='--seed 7 --kills 200')
	@PYTHONPATH=.:tests $(BIN)/python -m soak $(args)

fuzz: $(DEV) ## Feed 9,000 damaged files to every loader, half an hour (args='--seed 7 --inputs 20000')
	@PYTHONPATH=.:tests $(BIN)/python -m fuzz $(args)

bench-overhead: $(DEV) ## Measure what the training loop costs over a bare loop
	@$(BIN)/python -m benchmarks.overhead $(args)

bench-commands: $(DEV) ## Measure the commands that answer at once: help, lists, completion (args='--rounds 25')
	@$(BIN)/python -m benchmarks.commands $(args)

bench-race: $(DEV) ## Measure a race by phases, without and with compiled programs on disk (args='seeds=[0]')
	@$(BIN)/python -m benchmarks.race $(args)

bench-checkpoints: $(DEV) ## Measure what checkpoints cost (args='--largest 10000' for 10 GB)
	@$(BIN)/python -m benchmarks.checkpoints $(args)

bench-velo: $(DEV) ## Measure VeLO's update against Adam's: time, compilation, memory (args='--compile-for h100': counts)
	@$(BIN)/python -m benchmarks.velo $(args)

bench-celo2: $(DEV) ## Measure Celo2's update against Adam's (args='--orthogonalize')
	@$(BIN)/python -m benchmarks.celo2 $(args)

bench-scoring: $(DEV) ## Measure scoring 1,000 runs with 10,000 bootstrap samples
	@$(BIN)/python -m benchmarks.scoring $(args)

bench-report: $(DEV) ## Measure the whole report of 1,000 runs: scores, page, tables, plots
	@$(BIN)/python -m benchmarks.report $(args)

bench-metatrain: $(DEV) ## Measure meta-training: inner steps of all lanes per CPU second
	@$(BIN)/python -m benchmarks.metatrain $(args)

bench-data: $(DEV) ## Measure the data pipelines of the full-size workloads: examples per CPU second
	@$(BIN)/python -m benchmarks.data $(args)

bench-steps: $(DEV) ## Measure the training step against plain JAX (args='--algoperf DIR': and AlgoPerf's models)
	@$(BIN)/python -m benchmarks.steps $(args)

bench-records: $(DEV) ## Measure finding finished runs, and a trial of a study, as their number grows
	@$(BIN)/python -m benchmarks.records $(args)

bench-scale: $(DEV) ## Simulate a race of 10,000 runs on 500 workers (args='--database postgresql://me@host/name')
	@$(BIN)/python -m benchmarks.scale $(args)

pictures: $(DEV) ## Make the README's pictures from a race of this code (root=DIR: from that race)
	@$(BIN)/python tools/pictures.py docs $(if $(root),--root $(root))

docs: $(DOCS) ## Build the documentation into site/, which reads from the disk; a broken link or reference fails
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(args)
	@echo "open site/index.html"

docs-serve: $(DOCS) ## Show the documentation at http://127.0.0.1:8000 while you write
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000 $(args)

notebook: $(DEV) ## Run the notebook in docs/ and store its results
	@PYTHONPATH=. $(BIN)/python tools/notebook.py docs/race-your-optimizer.ipynb

wheel: $(DEV) ## Build the wheel into dist/
	@rm -rf build
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean: ## Remove the environment and every cache (recorded runs stay)
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
