# Binnacle. `make` alone explains itself.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := .tools/uv/bin/uv
BUF := .tools/node_modules/.bin/buf
BUF_VERSION := 1.75.0
ASYNCAPI_SCHEMA := .tools/node_modules/@asyncapi/specs/schemas/3.0.0.json
ASYNCAPI_SPECS_VERSION := 6.11.1
# The messages as last released: whoever was written against them still reads ours.
BASELINE := $(shell ls protos/baseline/*.binpb | sort -V | tail -n 1)
JSON ?=

.PHONY: help
help: ## this list
	@echo "Binnacle: retrieval-augmented LLM applications as event-driven microservices. Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "Start with: make demo"

# The environment: one folder, installed from hashes; renewed when a lock changes.
$(UV): infra/locks/bootstrap.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=…" >&2; exit 2; }
	@echo "» preparing the installer"
	@"$(PYTHON)" -m venv .tools/uv
	@.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/locks/bootstrap.lock
	@touch $@

$(VENV)/.synced: $(UV) infra/locks/dev.lock pyproject.toml
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	@echo "» installing what infra/locks/dev.lock names (about 2 GB)"
	@# Compiled once here: a stack starts ten processes, and each would compile what it imports where Python may not write.
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes --compile-bytecode infra/locks/dev.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --editable .
	@touch $@

.PHONY: env
env: $(VENV)/.synced ## the Python environment in .venv
	@$(BIN)/python -m compileall -q services libs protos/gen

.PHONY: model
model: env ## the embedding model as an ONNX graph, built once
	@$(BIN)/python -m servicekit.adapters.onnx.build

.PHONY: demo
demo: model ## everything at once: stack, corpus, questions, feedback, scores, a drift alert (JSON=1: one line of JSON at the end)
	@$(BIN)/python -m services.local.demo $(if $(JSON),--json)

.PHONY: up
up: model ## the whole stack on this machine, until Ctrl-C (SERVERS=native: on a durable Kafka, =embedded: without; STORE=weaviate)
	@$(BIN)/python -m services.local --servers $(or $(SERVERS),auto) --vector-store $(or $(STORE),lancedb)

.PHONY: test
test: model ## all tests that need no server
	@$(BIN)/pytest -q -m "not servers"

.PHONY: servers
servers: env ## a real Kafka, Weaviate and Redis, natively (Java 17 and Maven; Go; Debian) or by compose, left running; says where
	@$(BIN)/python -m services.local.servers start

.PHONY: stop-servers
stop-servers: env ## stop what `make servers` started
	@$(BIN)/python -m services.local.servers stop

.PHONY: test-servers
test-servers: model ## tests against real servers, which they start themselves, or BINNACLE_TEST_KAFKA, _WEAVIATE, _LLAMA kept for tests
	@$(BIN)/python -m services.local.install_servers
	@$(BIN)/pytest -q -m servers

.PHONY: lint
lint: env ## ruff, mypy --strict, import directions, file sizes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.structure

.PHONY: check
check: lint check-protos check-locks check-compose ## lint, protos, generated code and locks fresh, compose valid

$(BUF) $(ASYNCAPI_SCHEMA):
	@command -v npm >/dev/null || { echo "npm is needed for buf and AsyncAPI's schema: install Node.js 20 or newer" >&2; exit 2; }
	@mkdir -p .tools && npm install --silent --no-save --no-package-lock --prefix .tools \
	  @bufbuild/buf@$(BUF_VERSION) @asyncapi/specs@$(ASYNCAPI_SPECS_VERSION)

.PHONY: check-protos
check-protos: env $(BUF) $(ASYNCAPI_SCHEMA) ## buf's rules hold, nothing released breaks, protos/gen and the topic documents are what the protos say
	@$(BUF) lint protos && echo "buf lint: clean"
	@$(BUF) breaking protos --against $(BASELINE) && echo "buf breaking: nothing that $(notdir $(BASELINE)) allowed is broken"
	@fresh=$$(mktemp -d) && ./protos/generate.sh $$fresh && diff -r --exclude=__pycache__ $$fresh/binnacle protos/gen/binnacle >/dev/null \
	  && echo "generated code: fresh" || { echo "protos/gen is stale: run 'make protos' and commit it" >&2; exit 1; }
	@$(BIN)/python -m servicekit.events.docs --check
	@$(BIN)/check-jsonschema --schemafile $(ASYNCAPI_SCHEMA) protos/asyncapi.yaml >/dev/null && echo "protos/asyncapi.yaml: valid"

.PHONY: check-locks
check-locks: $(UV) ## the locks are what pyproject.toml asks for
	@UV=$(UV) infra/locks/lock.sh --check && echo "locks: fresh"

.PHONY: check-compose
check-compose: env ## docker-compose.yml against the Compose schema
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

.PHONY: protos
protos: env ## regenerate protos/gen and the topic documents
	@./protos/generate.sh
	@$(BIN)/python -m servicekit.events.docs

.PHONY: lock
lock: $(UV) ## renew infra/locks/*.lock (UPGRADE=1: to the newest versions allowed)
	@UV=$(UV) infra/locks/lock.sh

.PHONY: bench
bench: model ## every benchmark; one alone: python -m tests.bench.NAME --json
	@$(BIN)/python -m tests.bench

.PHONY: clean
clean: ## throw away the environment, tools and local data
	@rm -rf $(VENV) .tools .var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
