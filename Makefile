# Everything runs with Python 3.11 or newer and make. uv is brought along if the machine has none.
#   PYTHON=python3.12   another interpreter      PORT=…  DATA_DIR=…   where the demo runs
#   ARGS="-k resume"    more for the tests       UV=…                 another uv

PYTHON ?= python3
# Each of these processes has its own PostgreSQL, Valkey and servers; most of a test's time is waiting.
PARALLEL ?= -n 3 --dist loadfile
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
SHELL := /bin/sh

# The interpreter itself: version managers put scripts in front of it, which change with the directory.
find_python = "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
# A uv of the machine serves if it runs and is new enough (`uv` may be such a script too); else pip brings one.
define bring_uv
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "This needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing)." >&2; \
		echo "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }; \
	if [ -n "$(UV)" ]; then uv="$(UV)"; \
	elif uv --version 2>/dev/null | grep -Eq '^uv (0\.(9|[1-9][0-9]+)|[1-9][0-9]*)\.'; then uv=uv; \
	else uv=.tools/bin/uv; fi; \
	if [ "$$uv" = .tools/bin/uv ] && ! [ -x .tools/bin/uv ]; then \
		echo "Fetching uv $(UV_VERSION) into .tools …"; \
		$(PYTHON) -m venv .tools || { \
			echo "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv) or uv." >&2; exit 1; }; \
		.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)" || exit 1; \
	fi
endef

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all coverage lint format bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed ## Make .venv with everything that is locked in uv.lock

demo: .venv/.installed ## Run everything on this machine, with sample documents (PORT, DATA_DIR)
	@# Bound to make: whatever ends make ends the demo, which then stops its services in order.
	@exec .venv/bin/python -I -S django_chain/embedded/launch.py --parent $$PPID --death-signal 15 -- \
		.venv/bin/python -m django_chain demo

test: .venv/.installed ## Run the tests
	.venv/bin/python -m pytest $(PARALLEL) $(ARGS)

test-all: test .venv-3.13/.installed ## Run the tests on Python 3.13 with the newest Django as well
	.venv-3.13/bin/python -m pytest $(PARALLEL) $(ARGS)

coverage: .venv/.installed ## Run the tests and tell what they reach, in servers and workers too (.coverage/html)
	@rm -rf .coverage
	@# The verdict is the tests' own, also told after the report: how much they reach fails nothing.
	.venv/bin/coverage run -m pytest $(PARALLEL) $(ARGS); verdict=$$?; \
		.venv/bin/python -m tests.support.coverage_report && exit $$verdict

lint: .venv/.installed ## Check style, types, layers and missing migrations
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@# Without a running database it warns that it can't compare the history; what is asked here are the files.
	LOG_LEVEL=CRITICAL .venv/bin/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

format: .venv/.installed ## Put the code into shape
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

bench: .venv/.installed ## Measure what must be fast, against its peers
	.venv/bin/python -m benchmarks $(ARGS)

clean: ## Remove the environments and caches; the demo's data stays
	rm -rf .venv .venv-3.13 .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage

.venv/.installed: uv.lock pyproject.toml
	@$(bring_uv); echo "Installing into .venv …"; "$$uv" sync --frozen --quiet --compile-bytecode --python $(find_python)
	@touch $@

.venv-3.13/.installed: uv.lock pyproject.toml
	@python="$$(for found in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3.13; do \
		"$$found" -c 'import sys; print(sys.executable)' 2>/dev/null && break; done)"; \
	if [ -z "$$python" ]; then echo "test-all needs Python 3.13, and there is none on PATH or under ~/.pyenv/versions." >&2; exit 1; fi; \
	$(bring_uv); echo "Installing into .venv-3.13 …"; UV_PROJECT_ENVIRONMENT=.venv-3.13 "$$uv" sync --frozen --quiet --compile-bytecode --python "$$python"
	@touch $@
