# The two commands of README: `make run` and `make test`. What CI runs is these targets and nothing else.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test test-cuda thorough quick setup lint coverage fuzz wheel-check clean

run: setup  ## set up, then naive, PackNet and EPN over 5 permuted tasks of the embedded digits, and a report over them
	runs=runs/quickstart/$$(date +%Y-%m-%d_%H-%M-%S) && \
	$(BIN)/cl-powerprop run -m experiment=quickstart/naive,quickstart/packnet,quickstart/epn run_dir=$$runs && \
	$(BIN)/cl-powerprop compare $$runs --out $$runs/comparison

test: setup lint  ## set up, then style, types and tests, on up to four cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 40

test-cuda: setup  ## the contracts on a GPU, in about two minutes; what matters most and takes longest comes first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cuda --device cuda --numprocesses 8 --dist load --maxschedchunk 8 \
		tests/cuda tests/training tests/sparsity tests/run tests/strategies

thorough: setup  ## what `make test` leaves out: slow variations of its tests, and runs stopped at every moment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 -m thorough
	CL_POWERPROP_MOMENTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 -m slow \
		tests/run/test_resume_at_every_moment.py tests/run/test_resume_within_epochs.py

quick: setup  ## the fast tests, in under a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -m 'not slow and not full_data and not thorough'

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; name another, as in make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov=cl_powerprop --cov-report=term-missing:skip-covered

fuzz: setup  ## 10,000 damaged or hostile files; FUZZ_SEED=N draws others, CASES=N more or fewer
	CL_POWERPROP_FUZZ=$${CASES:-10000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz --timeout 7200 --hypothesis-seed $${FUZZ_SEED:-0}

wheel-check: setup  ## an installed wheel lists and runs from an empty folder
	scripts/check_wheel.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
