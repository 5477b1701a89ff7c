# Everything runs in .venv, which `env` creates and other targets depend on.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help env demo test lint docs bench bench-full soak

help:
	@echo "make env     make or update .venv"
	@echo "make demo    label the embedded demo, end to end (CLEAN=1 starts from nothing)"
	@echo "make test    lint, type check and tests (TESTS=unit: those that start no process and no pretended GPU; TESTS=path: some of them)"
	@echo "make lint    ruff and mypy alone"
	@echo "make docs    build the pages of docs/ and the API reference into site/"
	@echo "make soak    endurance under kills and outages"
	@echo "make bench   the short benchmarks, JSON in runs/bench (make bench-full: the long ones)"

env: $(STAMP)

# torch and torchvision first and alone: pip then takes the pinned builds rather than a newer one that something admits.
# They are compiled beside the rest's installation, and the rest at the end, on all cores (pip has one); a few packages
# carry files that no Python compiles.
COMPILE := $(BIN)/python -m compileall -q $(VENV)/lib
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch torchvision
	$(COMPILE) >/dev/null 2>&1 & $(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[test]'; \
		installed=$$?; wait; exit $$installed
	$(COMPILE) -j 0 >/dev/null 2>&1 || true
	touch $(STAMP)

demo: env
	$(if $(filter-out 0 no false,$(CLEAN)),rm -rf runs/demo)
	$(BIN)/python jobs/demo.py --output runs/demo

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a link, an anchor or a documented name that does not exist is an error.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The package is compiled first, because the tests start hundreds of processes. Some of the tests need no pages.
test: lint $(if $(TESTS),,docs)
	$(BIN)/python -m compileall -q wsss_ray
	$(BIN)/python -m pytest $(if $(filter unit,$(TESTS)),-n 2 -m unit tests,$(or $(TESTS),-n 2 tests))

RESULTS := runs/bench
BENCH = mkdir -p $(RESULTS); $(BIN)/python benchmarks/$(1).py --json $(RESULTS)/$(or $(2),$(1)).json

bench: env
	$(call BENCH,after_decoder)
	$(call BENCH,decoder) --repeats 1
	$(call BENCH,encoder) --repeats 1
	$(call BENCH,detector) --repeats 1 --all
	$(call BENCH,pipeline)
	$(call BENCH,resume)
	$(call BENCH,roofline)
	$(call BENCH,cluster)
	$(call BENCH,evaluation)

# The long ones: the networks at full size with random weights, through the job and against the packages as installed;
# fake GPUs from 1 to 16, and a simulated COCO train2014.
bench-full: env
	$(call BENCH,full_size)
	$(call BENCH,whole_job)
	$(call BENCH,encoder,encoder-batches) --batch 1 4 --repeats 1
	$(call BENCH,encoder,encoder-vit_h) --models vit_h --skip-tuned-package --repeats 1 --warm 0
	$(call BENCH,decoder,decoder-boxes) --boxes 4 30
	$(call BENCH,decoder,decoder-300) --boxes 300 --images 1 --repeats 1 --warm 0
	$(call BENCH,student)
	$(call BENCH,training_feed)
	$(call BENCH,cluster,cluster-scaling) --gpus 1 2 4 8 16 --units-per-gpu 12
	$(call BENCH,cluster,cluster-coco) --images 82081 --placement fused split

# 20,000 simulated images with an actor killed every 5 s, then the fault tests with more kills and longer outages.
soak: env
	$(BIN)/python benchmarks/soak.py --json runs/soak.json
	WSSS_SOAK=1 $(BIN)/python -m pytest tests/labelling/test_faults.py tests/engine/test_faults.py tests/training/test_feed.py \
		tests/training/test_updates.py tests/training/test_job.py tests/prediction/test_job.py tests/export/test_job.py \
		tests/cluster/test_nodes.py tests/cluster/test_submit.py tests/tools/test_compare_students.py
