SCALE ?= demo
TABLES ?= adabin_cifar10 unified_cifar10 native_structure_cifar10 \
	bonn_cifar bonn_lambda_theta bonn_ablation adabin_imagenet bonn_imagenet bonn_efficiency \
	adabin_voc
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install test test-all chaos lint format bench bench-runtime reproduce-tables report docs clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

install: $(VENV)/.installed ## set up .venv with the exact versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --editable ".[dev]"
	@touch $@

test test-all chaos: export OMP_NUM_THREADS = 1 # workers of two threads would wait for one another

test: install ## run the quick tests, of every kind of behaviour: minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: install ## run all tests, the slow ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile

chaos: export CHAOS_KILLS = 10
chaos: install ## kill runs ten times at random moments and compare them with uncut ones: minutes
	$(BIN)/python -m pytest tests/test_chaos.py

lint: install ## ruff (lint and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## print speed and memory as ratios of one run
	$(BIN)/python tests/bench.py

bench-runtime: install ## print packed layers against the best float and int8, as ratios of one run
	$(BIN)/python tests/bench_runtime.py

reproduce-tables: install ## train and render every table: SCALE=demo (default) | quick | full
	@status=0; for table in $(TABLES); do \
		$(BIN)/python src/train.py -m table=$$table scale=$(SCALE) || status=1; \
	done; exit $$status

report: install ## render every table and figure again from the results on disk
	$(BIN)/python src/report.py

docs: install ## write docs/methods.md with its plots, and the picture of the README
	$(BIN)/python docs/build/methods.py
	$(BIN)/python docs/build/picture.py

clean: ## remove the environment and the logs; data and results stay
	rm -rf $(VENV) logs .pytest_cache .ruff_cache
