# Everything a fresh machine needs is Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUESTION ?= What is gravity?
CLIENTS_VENV ?= .venv-clients
CLUSTER_VENV ?= .venv-cluster
DEPLOY_VENV ?= .venv-deploy
UI_VENV ?= .venv-ui
AGENTS ?= .agents
# Each process that a test starts would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
# Tests that start no process (tests/support/unit_guard.py holds them to it) and are not marked as long.
UNIT := not live and not process and not thorough

# Workers for tests that wait: two for each core.
WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
# Unit tests wait a quarter of their time, and each worker spends seconds to find the tests: three for two cores.
UNIT_WORKERS = $(shell $(PYTHON) -c 'import os; print(max(1, (3 * (os.cpu_count() or 1)) // 2))')

.PHONY: shared-beginnings measure-requests measure-scrapes ui check-ui chaos chaos-nodes hostile soak chat test test-long test-unit test-pythons test-clients test-cluster cluster-demo bench-cluster test-agents test-ui ui-shots bench-budget check check-types check-style coverage build check-build check-deploy conformance fuzz bench env-transformers lock \
	lock-environments clean

# The package, a real small chat model, and its first answer in the terminal.
chat: $(VENV)/.installed
	@uid=$$($(BIN)/xinference launch --model-engine llama.cpp --model-name smollm2-instruct \
		--size-in-billions 0_135 --model-format ggufv2 --quantization Q4_1) && \
		$(BIN)/xinference chat --model-uid "$$uid" --temperature 0 --max-tokens 256 "$(QUESTION)" && \
		printf '\nNext:\n' && printf '  %-46s  %s\n' "$(BIN)/xinference chat $$uid" 'start a conversation' \
			"$(BIN)/xinference list" 'list the running models' "$(BIN)/xinference stop" 'stop the server'

# Every check and every test. The Transformers environment, in which live tests run, is built beside the checks. Tests
# that start processes wait for them most of the time, so there are two workers for each core. Live tests wait half of
# the time: three run at once, but only one of those whose models compute for long.
test: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory --jobs 3 --output-sync=target check-types check-style env-transformers
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not live"
	$(BIN)/pytest -n 3 --dist loadfile -m "live and not long"

# The live tests that compute for long: ten minutes on two cores.
test-long: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist loadfile -m long

# The unit tests on each Python that the package promises and this machine has, and the gate on the newest of them.
test-pythons:
	.ci/pythons

# 500 random faults and requests, as SEED chooses them, with checks between: minutes to an hour.
chaos: $(VENV)/.installed-dev
	CHAOS_EVENTS=500 CHAOS_SEED=$(or $(SEED),1) $(BIN)/pytest tests/chaos/test_chaos.py

# The same over a supervisor and three workers: 200 faults of nodes, links and processes, all invariants after each. As
# root, the workers are on hosts of their own, whose cables are pulled.
chaos-nodes: $(VENV)/.installed-dev
	CHAOS_STEPS=200 CHAOS_SEED=$(or $(SEED),1) $(BIN)/pytest -s tests/chaos/test_node_chaos.py

# 300 answers with shared beginnings, beside those of the same engine without them.
shared-beginnings: $(VENV)/.installed-dev
	SHAREDPROMPTS=300 $(BIN)/pytest tests/live/test_shared_beginnings.py

# Hostile requests against llama.cpp, Transformers where its environment is built, and stand-ins that record: a minute
# for each 500. FIRST repeats from one number on.
hostile: $(VENV)/.installed-dev
	HOSTILE_REQUESTS=$(or $(REQUESTS),10000) HOSTILE_SEED=$(or $(SEED),1) HOSTILE_FIRST=$(or $(FIRST),0) \
		$(BIN)/pytest -s tests/hostile

# Mixed traffic, and whether memory, descriptors, threads, store, logs and metrics are flat in its second half.
soak: $(VENV)/.installed-dev
	SOAK_MINUTES=$(or $(MINUTES),30) $(BIN)/pytest -s tests/soak

# The tests that start no process and ask no other machine, on all cores, in less than a minute on two. Properties get a
# tenth of their examples, and tests marked `thorough` are left out: `make test` runs these, with all examples.
test-unit: $(VENV)/.installed-dev
	EXAMPLES_DIVISOR=10 $(BIN)/pytest -n $(UNIT_WORKERS) --dist worksteal -p no:pytest_cov -m "$(UNIT)"

check: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target check-types check-style

check-types: $(VENV)/.installed-dev
	$(BIN)/mypy

check-style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# Lines and branches that the fast tests reach, in the terminal and in htmlcov/. Under the tracer no CPU budget holds.
coverage: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not live" -n logical --cov --cov-report=term --cov-report=html --ignore=tests/gateway/test_cpu_budget.py

# The sdist and the wheel, in dist/.
build: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m hatchling build

# What both files contain, and that they install and run without a network.
check-build: build
	$(BIN)/python -m tests.packaging.check_build

# The Dockerfile by hadolint, the manifests by the schemas of Kubernetes, and the steps of the image in a new folder.
check-deploy: $(DEPLOY_VENV)/.installed
	$(DEPLOY_VENV)/bin/python -m tests.deploy.check_deploy

$(DEPLOY_VENV)/.installed: deploy/check-requirements.txt
	$(PYTHON) -m venv --clear $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/pip install --quiet --requirement deploy/check-requirements.txt
	touch $@

# Our server through the newest public clients: OpenAI's, Anthropic's, Xinference's, LangChain's and LlamaIndex's.
test-clients: $(CLIENTS_VENV)/.installed
	$(CLIENTS_VENV)/bin/python -m pytest tests/third_party_clients

# Three nodes on this machine, a replica on each, a chat, a killed node, and a chat; as any user.
cluster-demo: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.cluster_demo

# The budgets of a cluster, each with its figure; as root, on hosts of their own: ten minutes.
bench-cluster: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.cluster

# The link to the nodes of a cluster over a real Ray: two of its nodes on this machine.
test-cluster: $(CLUSTER_VENV)/.installed
	$(CLUSTER_VENV)/bin/python -m pytest -s tests/fabric

$(CLUSTER_VENV)/.installed: requirements-cluster.lock pyproject.toml
	$(PYTHON) -m venv --clear $(CLUSTER_VENV)
	$(CLUSTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(CLUSTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-cluster.lock
	$(CLUSTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Codex, Claude Code and OpenAI's client for node against a server whose model answers by script (needs node and npm).
test-agents: $(VENV)/.installed-dev $(AGENTS)/.installed
	AGENTS_FOLDER=$(AGENTS) $(BIN)/pytest tests/agents

# The web page in a real Chromium: stories of its users, and axe on each page. It needs node 20, npm and Debian's chromium;
# the stories of proxies need nginx-light.
test-ui: $(UI_VENV)/.installed ui/node_modules/.installed
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || { echo 'Chromium is missing: apt-get install chromium fonts-noto-cjk nginx-light'; exit 1; }
	$(UI_VENV)/bin/python -m pytest -n 2 --dist loadfile -m browser tests/ui

# Pictures of each page for people to look at, in two widths, themes and languages.
ui-shots: $(UI_VENV)/.installed
	$(UI_VENV)/bin/python -m tests.ui.shots ui-shots

$(UI_VENV)/.installed: requirements-dev.lock requirements-ui.lock pyproject.toml
	$(PYTHON) -m venv --clear $(UI_VENV)
	$(UI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(UI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-dev.lock -r requirements-ui.lock
	$(UI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(AGENTS)/.installed: tests/agents/package.json
	mkdir -p $(AGENTS)
	cp tests/agents/package.json $(AGENTS)/
	npm install --prefix $(AGENTS) --no-audit --no-fund --no-package-lock --loglevel=error
	@touch $@

$(CLIENTS_VENV)/.installed: requirements.lock requirements-dev.lock requirements-clients.lock pyproject.toml
	$(PYTHON) -m venv --clear $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-clients.lock
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Every launch line of llama-2-chat's page, as printed, against a hub on loopback.
conformance: $(VENV)/.installed-dev
	$(BIN)/python -m tests.conformance

# Every route with many requests made from the OpenAPI document, with and without models and keys.
fuzz: $(VENV)/.installed-dev
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(BIN)/pytest -s tests/live/test_openapi_fuzz.py

# What the gateway costs, in about four minutes: docs/performance.md says how to read it.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gateway --json benchmarks/gateway.json --picture docs/gateway.svg

# The CPU time of a request and of a chunk, against that of a bare server on the same machine.
bench-budget: $(VENV)/.installed-dev
	$(BIN)/pytest -m measured tests/gateway/test_cpu_budget.py

# The web page, into src/xinference/web/dist (needs node 20 and npm).
ui: ui/node_modules/.installed
	npm --prefix ui run build

# Types, markup and unit tests of the web page, and that its committed files are the build of its source.
check-ui: ui/node_modules/.installed
	npm --prefix ui run check
	npm --prefix ui run build
	git diff --exit-code --stat -- src/xinference/web/dist
	test -z "$$(git status --porcelain -- src/xinference/web/dist)"

ui/node_modules/.installed: ui/package-lock.json
	npm --prefix ui ci --no-audit --no-fund --loglevel=error
	@touch $@

# 400 mixed requests of a client that measures them itself, with one and with two gateway processes: minutes.
measure-requests: $(VENV)/.installed-dev
	REQUESTS=$(or $(REQUESTS),400) $(BIN)/pytest -s tests/live/test_measuring_client.py

# Prometheus scrapes a server for five minutes, with 1,000 keys and 1,000 names of models that do not exist.
measure-scrapes: $(VENV)/.installed-dev
	SCRAPE_SECONDS=$(or $(SCRAPE_SECONDS),300) SCRAPE_INTERVAL=$(or $(SCRAPE_INTERVAL),15s) \
		$(BIN)/pytest -s tests/live/test_monitoring.py -k thousand

# What the live tests of the Transformers engine run in (1.3 GB on the disk).
env-transformers: $(VENV)/.installed
	$(BIN)/xinference env install transformers --hardware cpu

$(VENV)/bin/python:
	@echo 'Creating the Python environment $(VENV) …'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.installed: $(VENV)/bin/python requirements.lock pyproject.toml
	@echo 'Installing Xinference (about 300 MB, takes a minute or two) …'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# Newest versions of everything, pinned with hashes (needs uv).
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
		pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
		pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
		--override tests/third_party_clients/overrides.txt pyproject.toml --group dev --group clients -o requirements-clients.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
		pyproject.toml --extra cluster --group dev -o requirements-cluster.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --constraint requirements.lock \
		pyproject.toml deploy/requirements.in -o requirements-images.lock

# The engines' packages; each version that is meant stands in src/xinference/environments/locks/*.toml.
lock-environments: $(VENV)/.installed
	$(BIN)/python -m xinference.environments.relock

clean:
	rm -rf $(VENV) .venv-3.* $(CLIENTS_VENV) $(CLUSTER_VENV) $(UI_VENV) dist htmlcov .coverage
