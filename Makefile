# The two commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
WORKFLOW ?= workflows/churn
UV := .uv/bin/uv
BIN := .venv/bin
# pyenv's Pythons count too, whether or not one of them is switched on here
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
export PATH := $(PATH):$(subst $(eval) ,:,$(sort $(wildcard $(PYENV)/versions/3.1[2-9]*/bin)))
# a program that compiles itself at each start is twice as slow
unexport PYTHONDONTWRITEBYTECODE
PLAY := $(BIN)/ansible-playbook -i inventories/local
PACKAGES := evidence recipe stages sharing_apis model_server
# the end-to-end tests first, as they take longest
TESTS := tests hxMLOps/tests $(addsuffix /tests,$(PACKAGES))

.PHONY: help demo test lint unit test-cluster charts down clean benchmarks lock

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.demo ## the whole workflow: data -> model -> staging -> production, with its energy report
	@$(PLAY) playbooks/workflow.yml -e hxmlops_workflow=$(WORKFLOW)/workflow.yml
	@$(BIN)/python -c 'import glob,os; p=max(glob.glob("$(or $(HXMLOPS_HOME),.hxmlops)/mno-production/stages/report-*/output/report.html"),key=os.path.getmtime); print("The report: file://"+os.path.abspath(p))'

down: ## stop what the demo started
	@test ! -d .venv || $(PLAY) playbooks/teardown.yml

clean: down ## remove the demo's state; its keys only with KEYS=1
	@$(if $(KEYS),rm -rf .hxmlops,find .hxmlops -mindepth 2 -maxdepth 2 ! -name keys ! -name people ! -name cards -exec rm -rf {} + 2>/dev/null || true)

test: .venv/.test .venv-anonymity/.done ## lint, unit tests, the APIs, and the embedded workflow end to end
	@$(MAKE) --no-print-directory lint unit

lint:
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@for each in $(PACKAGES) "collections tests benchmarks workflows hxMLOps"; do $(BIN)/mypy --no-error-summary $$each || exit 1; done
	@$(BIN)/yamllint --strict .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline -q

unit:
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow" $(TESTS)

test-cluster: .venv/.test ## roles and charts on real Kubernetes, sharing APIs on S3, their page in a browser (needs Go, root)
	@command -v chromedriver > /dev/null || apt-get install -qq -y chromium chromium-driver > /dev/null
	@HXMLOPS_S3_SERVER=$$(tests/cluster/tools/build | sed -n 's/^versitygw=//p')/versitygw \
	  $(BIN)/python -m pytest -n 2 --dist loadfile -q -m slow tests/cluster tests/services sharing_apis/tests

charts: .venv/.test ## put what all charts have in common (charts/library of the collection) into each
	@$(BIN)/python tests/charts/pack.py

benchmarks: .venv/.test .venv-anonymity/.done .venv-kubernetes-core/.done .venv-mlflow/.done ## ours and each peer in one run, as tables
	@for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

lock: $(UV) ## resolve requirements/*.in into the pinned *.txt again
	@cd requirements && for each in *.in; do ../$(UV) pip compile -q --upgrade --universal --python-version 3.12 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header $$each -o $${each%.in}.txt; done

$(UV): requirements/uv.txt
	@echo "Setting up: uv"
	@python3 -m venv .uv && .uv/bin/python -m pip install -q --require-hashes -r requirements/uv.txt && touch $@

# Python 3.12 where there is one (every pinned library has wheels for it), else the newest that uv finds or gets
define venv
@echo "Setting up: $(1)"
@$(UV) venv -q --clear --python 3.12 $(1) 2>/dev/null || $(UV) venv -q --clear --python '>=3.12' $(1)
endef
define install
@VIRTUAL_ENV=$(1) $(UV) pip install -q --compile-bytecode --require-hashes -r requirements/$(2).txt
endef

.venv/pyvenv.cfg: $(UV)
	$(call venv,.venv)
	@printf '%s\n' $(CURDIR) $(addprefix $(CURDIR)/,$(PACKAGES)) \
	  > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/hxmlops.pth"

.venv/.demo: .venv/pyvenv.cfg requirements/runtime.txt
	$(call install,.venv,runtime)
	@touch $@

.venv/.test: .venv/pyvenv.cfg requirements/test.txt
	$(call install,.venv,test)
	@touch $@ .venv/.demo

.venv-kubernetes-core/.done: $(UV) requirements/kubernetes_core.txt
	$(call venv,.venv-kubernetes-core)
	$(call install,.venv-kubernetes-core,kubernetes_core)
	@touch $@

.venv-mlflow/.done: $(UV) requirements/mlflow.txt
	$(call venv,.venv-mlflow)
	$(call install,.venv-mlflow,mlflow)
	@touch $@

.venv-anonymity/.done: $(UV) requirements/anonymity.txt
	$(call venv,.venv-anonymity)
	$(call install,.venv-anonymity,anonymity)
	@touch $@
