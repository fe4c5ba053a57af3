# Everything runs from .venv, which is made here and again when what it is made from changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests start hundreds of interpreters: each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: .venv test check torture fuzz bench simulate demo chat clean

.venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Much of the suite waits for sockets, disks and screens: two workers use the time.
test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q tests/test_house.py

# Every promise tried at length (docs/testing.md): most of an hour. NAMES='...' for some of them.
torture: $(INSTALLED)
	@$(BIN)/python -m tests.torture $(NAMES)

# Coverage-guided, SECONDS for each target; NAMES='...' for some of them.
SECONDS ?= 60
fuzz: $(INSTALLED)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install -qq \
	    --disable-pip-version-check -c constraints.txt -e '.[fuzz]' >/dev/null 2>&1 || true
	@$(BIN)/python -m tests.fuzzing --seconds $(SECONDS) $(NAMES)

# The relay beside its peers, three runs in turns: most of an hour, on a machine that does nothing
# else. WORKS=room-256,idle PEERS=saltline,nats RUNS=1 for a part (benchmarks/relay/README.md).
bench: $(INSTALLED)
	@test -x $(BIN)/nats-server || $(BIN)/python -m pip install -qq \
	    --disable-pip-version-check -c constraints.txt -e '.[bench]' >/dev/null 2>&1 || true
	@$(BIN)/python -m benchmarks.relay --works '$(WORKS)' --peers '$(PEERS)' --runs $(or $(RUNS),3)

# 10,000 towns in which everything goes wrong: most of an hour. ARGS='--seed 7' for one of them.
simulate: $(INSTALLED)
	@$(BIN)/python -m tests.simulation $(ARGS)

demo: $(INSTALLED)
	@$(BIN)/python -m demo.demo

chat: $(INSTALLED)
	@$(BIN)/python -m demo.chat

clean:
	rm -rf $(VENV) build dist *.egg-info .demo .chat tests/fuzzing/found
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find client crypto protocol server src tests benchmarks demo -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
