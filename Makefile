SCALE ?= demo
TABLES ?= adabin_cifar10 unified_cifar10 native_structure_cifar10 \
	bonn_cifar bonn_lambda_theta bonn_ablation adabin_imagenet bonn_imagenet bonn_efficiency \
	adabin_voc tasks architectures_cifar10 sensitivity_cifar10 calibration_cifar10
CORRUPTED = $(if $(filter demo,$(SCALE)),dataset=digits,dataset=cifar10c) \
	$(if $(filter quick,$(SCALE)),images=1000)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install test test-all test-python chaos lint format bench bench-runtime \
	gpu-check reproduce-tables report site docs clean

help: ## list every target
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## /\1\t/' | expand -t 22

install: $(VENV)/.installed ## set up .venv with the exact versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --editable ".[dev]"
	@touch $@

test test-all chaos: export OMP_NUM_THREADS = 1 # workers of two threads would wait for one another

test: install ## run the quick tests, of every kind of behaviour: minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 -m "not slow"

test-all: install ## run all tests, the slow ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 --durations=20

test-python: ## the quick tests under another Python, in an environment of its own: PYTHON=python3.12
	$(MAKE) test VENV=.venv-$(notdir $(PYTHON))

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

bench: install ## print speed and memory as ratios of one run: PARTS="floor loop", all by default
	$(BIN)/python tests/bench.py $(if $(PARTS),--parts $(PARTS))

bench-runtime: install ## time packed networks beside float and int8 ones: 10 idle minutes
	$(BIN)/bnnbench bench out=results/bench

gpu-check: install ## hold a GPU against the CPU and time it: DEVICE=cuda:1, a dry run without one
	$(BIN)/python tools/gpu_check.py --device $(or $(DEVICE),auto)

reproduce-tables: install ## train and render TABLES, robustness and scores: SCALE=demo (default) | quick | full
	@status=0; for table in $(TABLES); do \
		$(BIN)/python src/train.py -m table=$$table scale=$(SCALE) || status=1; \
	done; \
	$(BIN)/bnnbench robustness sweep=native_structure_cifar10_$(SCALE) $(CORRUPTED) || status=1; \
	$(BIN)/python src/report.py scores scale=$(SCALE) || status=1; exit $$status

report: install ## render every table and figure again from the results on disk
	$(BIN)/python src/report.py

site: install ## write results and docs as pages that open from disk: build/site/index.html
	$(BIN)/python src/report.py site=true

docs: install ## write docs/methods.md with its plots, and the picture of the README
	$(BIN)/python docs/build/methods.py
	$(BIN)/python docs/build/picture.py

constraints-cpu.txt: constraints.txt ## the same versions without what only CUDA needs
	grep -vE '^(nvidia-|cuda-|triton==)' constraints.txt > $@

clean: ## remove the environments and the logs; data and results stay
	rm -rf $(VENV) .venv-* logs .pytest_cache .ruff_cache
