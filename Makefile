# Two commands do everything on a fresh machine: make report, make test. PYTHON chooses the interpreter
# that .venv is made with. To use an environment of yours instead (a CUDA torch, say): make report PY=python
PYTHON ?= python3
VENV := .venv
PY ?= $(VENV)/bin/python
SETUP := $(if $(filter $(VENV)/bin/python,$(PY)),$(VENV)/.installed)

.PHONY: report test bench lint clean

report: $(SETUP) ## first answers from the records that come with the project, then what 4 minutes measure here
	$(PY) -m reports && $(PY) -m bench.sweep quick --budget 4m && $(PY) -m reports

test: $(SETUP) ## the tests, in two processes of one thread; timed bodies run once
	OMP_NUM_THREADS=1 $(PY) -m pytest --benchmark-disable -n 2 --dist loadfile

bench: $(SETUP) ## only the benchmarks, timed
	$(PY) -m pytest --benchmark-only

lint: $(SETUP)
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch numpy
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) reports/out
