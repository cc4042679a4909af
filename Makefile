# Everything a developer runs. Each command does its whole set-up; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
WHEEL := build/wheel
SOURCES := pyproject.toml CMakeLists.txt cuda.cmake constraints.txt $(shell find csrc -type f) tests/cuda_host.cpp \
    pymultigrid adapters/torch adapters/keras
CPP := $(shell find csrc -type f) $(wildcard tests/*.cpp)
# Runs from another directory than the root: there the source folder pymultigrid/ would hide the installed package.
ELSEWHERE := cd build &&

CORE_TESTS := $(addprefix ../tests/test_,golden.py schedule_steps.py schedule_plans.py schedule_values.py \
    schedule_refusals.py schedule_costs.py plans.py grid.py clock.py sample.py report.py progress.py command.py resample_input.py)
# One GPU architecture, for speed: a wheel for all of them is `CUDAARCHS= make wheel`, or plain `pip wheel .`.
CUDAARCHS ?= 90
ifneq ($(CUDAARCHS),)
export CUDAARCHS
endif

.PHONY: demo test lint tidy unit sanitize sanitize-short wheel core bench clean

demo: $(READY)
	$(BIN)/python examples/demo --output demo-output

test: lint unit sanitize-short wheel

$(READY): $(SOURCES)
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed (make core: 3.10)')"
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	    --config-settings=cmake.define.PYMULTIGRID_WERROR=ON --editable ".[torch,video,plot,demo]"
	touch $@

# The linters, and the frameworks that the tests and benchmarks run on.
$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

lint: $(DEV) $(WHEEL)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(ELSEWHERE) MYPYPATH=wheel/unpacked ../$(BIN)/mypy --config-file ../pyproject.toml -p pymultigrid
	MYPYPATH=$(WHEEL)/unpacked:examples/demo $(BIN)/mypy examples/demo
	MYPYPATH=$(WHEEL)/unpacked $(BIN)/mypy benchmarks/*.py

# Takes minutes, so it is not part of `make lint`. tests/races.cpp is compiled by its test, in no build.
tidy: $(DEV)
	printf '%s\n' $(filter-out %.cu %.inl %.h tests/races.cpp,$(CPP)) | \
	    xargs -P 2 -n 1 $(BIN)/clang-tidy --quiet -p $(firstword $(wildcard build/editable-*))

unit: $(DEV)
	$(ELSEWHERE) ../$(BIN)/python -c "from pymultigrid import _core; print('CUDA kernel in this build:', _core.cuda_build())"
	$(BIN)/python -m pytest

# The core under sanitizers (gcc): AddressSanitizer and UndefinedBehaviorSanitizer for the tests that need no framework,
# ThreadSanitizer for those with threads; and a short form, which is part of `make test`.
sanitize:
	PYTHON=$(PYTHON) tests/sanitize.sh whole

sanitize-short:
	PYTHON=$(PYTHON) tests/sanitize.sh short

# The wheel, unpacked for the type checker.
$(WHEEL)/.ready: $(DEV) $(wildcard pymultigrid/* pymultigrid/video/* adapters/*/*)
	rm -rf $(WHEEL)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL) \
	    --config-settings=cmake.define.PYMULTIGRID_WERROR=ON .
	$(BIN)/python -m zipfile -e $(WHEEL)/*.whl $(WHEEL)/unpacked
	touch $@

# The wheel alone in an empty environment: NumPy is all it needs, and the core's tests pass without any framework.
wheel: $(WHEEL)/.ready
	rm -rf build/empty
	$(BIN)/python -m venv build/empty
	build/empty/bin/python -m pip install --quiet $(WHEEL)/*.whl
	$(ELSEWHERE) empty/bin/python -c "import pymultigrid, sys; assert not {'torch', 'keras', 'av', 'matplotlib'} & set(sys.modules)"
	build/empty/bin/python -m pip install --quiet --constraint constraints.txt pytest hypothesis
	$(ELSEWHERE) empty/bin/python -m pytest -c ../pyproject.toml --rootdir .. -q -p no:cacheprovider $(CORE_TESTS)

# The core alone on another Python: make core PYTHON=python3.13
core:
	rm -rf build/core
	$(PYTHON) -m venv build/core
	build/core/bin/python -m pip install --quiet --constraint constraints.txt . pytest hypothesis
	$(ELSEWHERE) core/bin/python -m pytest -c ../pyproject.toml --rootdir .. -q -p no:cacheprovider $(CORE_TESTS)

bench: $(DEV)
	$(BIN)/python benchmarks/schedule.py
	$(BIN)/python benchmarks/resample.py
	$(BIN)/python benchmarks/torch_loop.py
	$(BIN)/python benchmarks/keras_data.py

clean:
	rm -rf build dist demo-output .venv
