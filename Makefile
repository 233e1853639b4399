# `make train` and `make test` work on a fresh clone: scripts/with_venv.py makes .venv when it is missing or out of date.
# ARGS are words for the program, quoted as in a shell: make train ARGS="data.path='my photo.png' model.width=512"
PYTHON ?= python3
ARGS ?=
# The raw text: make must not expand the dollars of an interpolation such as $${seed}.
export SPECTRAIN_ARGS = $(value ARGS)

RUN = @command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	echo "error: $(PYTHON) was not found; install Python 3.11 or newer, or name it: make $@ PYTHON=/path/to/python3" >&2; \
	exit 2; }; \
	"$(PYTHON)" scripts/with_venv.py

.DEFAULT_GOAL := help
.PHONY: help train evaluate compare report test test-slow test-gpu docs lint format venv clean clean-venv

help: ## show this list
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

train: ## train a network; ARGS are overrides: make train ARGS="model.width=512 logger=csv"
	$(RUN) --args python scripts/train.py

evaluate: ## evaluate a checkpoint: make evaluate ARGS="ckpt_path=runs/.../checkpoints/best.ckpt"
	$(RUN) --args python scripts/evaluate.py

compare: ## race methods over tasks in equal CPU time: make compare ARGS="race=photographs budget=20"
	$(RUN) --args python scripts/compare.py

report: ## one offline page of runs: make report ARGS="runs/A runs/B"
	$(RUN) --args python scripts/report.py

test: ## run the quick tests in two processes; ARGS are pytest's: make test ARGS="-k spectrum -x -n 0"
	$(RUN) --args python -m pytest -n 2 --dist loadfile

test-slow: ## run the slow tests
	$(RUN) --args python -m pytest -m "slow and not gpu"

test-gpu: ## run the tests that need a CUDA device
	$(RUN) --args python -m pytest -m gpu

docs: ## build the site in build/site; open build/site/index.html
	@NO_MKDOCS_2_WARNING=1 "$(PYTHON)" scripts/with_venv.py mkdocs build --quiet && echo "build/site/index.html"

lint: ## ruff check, ruff format --check, mypy --strict
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: ## let ruff sort imports and format
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

venv: ## only make .venv
	$(RUN)

clean: ## remove caches and build outputs (not runs, not .venv)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv: ## remove .venv
	@rm -rf .venv .venv.lock
