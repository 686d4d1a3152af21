# Lamassu: `make demo` shows it, `make test` proves it, `make bench` measures it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=
SOAK_SECONDS ?= 600

.PHONY: help venv venv-dev demo check test soak bench lock clean

help:            ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

venv: $(VENV)/.installed   ## .venv with lamassu and its locked dependencies
venv-dev: $(VENV)/.installed-dev  ## the same with what tests and checks need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: venv       ## install, start the platform, walk one device through its life (DEMO_ARGS=--exit ends after it)
	$(BIN)/lamassu demo --dir var $(DEMO_ARGS)

check: venv-dev  ## style, types, import rules
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

test: venv-dev   ## install what the tests need and run them all (TEST_ARGS goes to pytest)
	scripts/test-packages
	scripts/test-vault
	$(MAKE) --no-print-directory check
	$(BIN)/pytest $(TEST_ARGS)

bench: venv-dev  ## how fast, beside the limit measured in the same run
	$(BIN)/python bench/engines.py
	$(BIN)/python bench/enroll.py
	$(BIN)/python bench/lint.py
	$(BIN)/python bench/importing.py

soak: venv-dev   ## what takes long: random requests against the API's description (SOAK_SECONDS=600)
	LAMASSU_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/pytest tests/e2e/test_openapi.py --timeout 7200

lock:            ## compile the lock files anew (needs uv)
	uv pip compile pyproject.toml --group build --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -q -o requirements.lock
	uv pip compile pyproject.toml --group dev -c requirements.lock --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -q -o requirements-dev.lock

clean:           ## remove what make made, but never an installation under var/
	rm -rf $(VENV) bench/bin .mypy_cache .ruff_cache .pytest_cache .hypothesis
