# Everything a developer does, one word each. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test chaos check coverage format bench bench-gateway docs lock audit clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with everything locked, and install the sandbox where possible
	@scripts/setup

demo: setup ## Watch a server, a real agent, its cost, and a recovery: no account needed
	@.venv/bin/stationmaster demo

serve: setup ## Start the server
	@.venv/bin/stationmaster serve

test: setup ## Run the tests; what needs a missing service is skipped by name
	@scripts/test

chaos: setup ## Play faults against a cluster and check what it promised: make chaos FAULTS=100 SEED=7
	@.venv/bin/python -m tests.chaos --faults $(or $(FAULTS),50) $(if $(SEED),--seed $(SEED))

check: setup ## Everything CI checks: format, lint, types, imports, docs, then the tests
	@scripts/check

coverage: setup ## Run the tests and report what they cover. Slower; see CONTRIBUTING.md
	@scripts/test --cov --cov-report=term:skip-covered

format: setup ## Format the code and mend what the linter can
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup ## Measure; each figure is a ratio with its baseline in the same run
	@scripts/bench

bench-gateway: setup ## Measure the gateway against nginx and LiteLLM, which it installs
	@scripts/install-bench-tools && scripts/install-bench-peers && .venv/bin/python -m bench.gateway

docs: setup ## Generate the reference pages
	@.venv/bin/python scripts/generate_docs.py

lock: setup ## Re-make requirements/*.lock from pyproject.toml
	@scripts/lock

audit: setup ## Look for known vulnerabilities in what is locked (needs the network)
	@.venv/bin/pip-audit --disable-pip --require-hashes -r requirements/runtime.lock

clean: ## Remove what was built; data and settings stay
	@rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* dist build
