# Everything that a developer runs. `make help` lists it.
PYTHON ?= python3
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-crash dev test test-python test-functions check fix eval chaos bench bench-freeze bench-queries bench-turn codegen check-docker verify lock clean .node .python

export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/.venv/bin:$(PATH)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what everything needs into .venv, .tools and node_modules
	@$(PYTHON) scripts/setup.py

demo: setup ## Hold a lesson with real audio on this machine, no key needed; a whole one with LESSON=short, interrupted with RESUME=1
	@python -m emma_agent demo $(if $(LESSON),--lesson $(LESSON)) $(if $(RESUME),--resume)

demo-crash: setup ## Kill the worker in the middle of a sentence, start it again, and show that nothing is missing
	@python -m emma_agent demo --crash

dev: setup ## Run the tutor's worker for development (embedded Convex unless CONVEX_URL is set)
	@python -m emma_agent dev

test: setup test-functions test-python ## Run every test

test-functions: .node ## Run the tests of convex/ and convex-local
	@npm test --silent

test-python: setup ## Run the Python tests: unit, contract, crash and end to end
	@# Most of an end-to-end test is waiting in real time, so three share two cores; a file stays whole,
	@# and those with few tests, which are the long ones, do not wait for the end.
	@python -m pytest -m "not deployment" -n 3 --dist loadfile --no-loadscope-reorder

check: .python .node ## Lint, types, import direction: ruff, mypy, import-linter, tsc, eslint
	ruff check .
	ruff format --check .
	mypy -p emma_agent -p livekit.plugins.convex
	mypy scripts/*.py benchmarks evals examples/*.py tests
	lint-imports
	npm run check --silent

fix: .python ## Format the Python code and mend what ruff can mend
	ruff check --fix .
	ruff format .

eval: setup ## Let twelve scripted learners have a lesson with Emma: tools, records, steps, in a table
	@python -m evals

chaos: setup ## Break everything on purpose, with real workers and real kills: sent, stored, lost, doubled, reordered
	@python -m tests.chaos

bench: setup ## Measure what recording costs and keeps, beside what people use today
	@python -m benchmarks.outbox

bench-freeze: setup ## Measure how long the official Python client stops the event loop, beside ours
	@python benchmarks/official_client_freeze.py

bench-queries: setup ## Measure what each public query reads and how long it takes, up to 100,000 messages
	@python -m benchmarks.query_cost

bench-turn: setup ## Measure what Emma adds to a turn and to a lesson's start, beside a bare LiveKit agent
	@python -m benchmarks.turn

codegen: setup ## Make convex/_generated anew, by the real convex command against convex-local
	@python scripts/codegen.py

check-docker: .node ## Follow the Dockerfiles step by step without a Docker engine, and check the compose file
	check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	python scripts/check_docker.py

verify: setup ## Run the contract suite against a real deployment: make verify CONVEX_URL=… (CONVEX_AGENT_KEY set)
	@test -n "$$CONVEX_URL" || { echo 'CONVEX_URL is not set: make verify CONVEX_URL=https://….convex.cloud'; exit 2; }
	@test -n "$$CONVEX_AGENT_KEY" || { echo 'CONVEX_AGENT_KEY is not set: the key whose AGENT_JWKS the deployment has (python -m emma_agent keys)'; exit 2; }
	@python -m pytest tests/contract -m deployment

lock: .python ## Pin the Python packages anew from the pyproject files and requirements/*.in
	@python scripts/lock.py

clean: ## Remove what set-up and the tests made
	rm -rf .venv .tools node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.python:
	@$(PYTHON) scripts/setup.py python

.node:
	@$(PYTHON) scripts/setup.py python node

