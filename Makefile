PYTHON ?= python3
VENV := .venv/bin

.PHONY: help demo test check fault bench kafka clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: pyproject.toml constraints.txt deploy/install.py
	$(PYTHON) deploy/install.py

demo: .venv/.ready ## the whole loop on this machine, at most three minutes
	$(VENV)/driftline demo $(ARGS)

test: .venv/.ready ## unit and integration tests
	$(VENV)/python -m pytest $(ARGS)

check: .venv/.ready ## format, lint, types, import rules, alert rules
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	@if command -v promtool >/dev/null; then \
	promtool check rules --lint=all --lint-fatal deploy/prometheus/rules.yml && promtool test rules deploy/prometheus/rules_test.yml deploy/prometheus/rules_slow_test.yml; \
	else echo "promtool is not installed: alert rules are not checked"; fi

fault: .venv/.ready ## fault and attack suite, short form
	$(VENV)/python -m pytest tests/faults $(ARGS)

bench: .venv/.ready ## tables of numbers: make bench NAME=replay
	$(VENV)/driftline bench $(NAME) $(ARGS)

kafka: ## fetch the jars of Apache Kafka into .kafka/libs (Maven, Java 17)
	mvn -q -f deploy/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/.kafka/libs

clean: ## remove what was built and run here
	rm -rf .venv .driftline .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
