# `make demo`: from nothing to a trained, quantized classifier in a web page. `make test`: the tests.
# Every step makes a file, so a second run does only what is missing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 7860
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

BUNDLE := saved_models/digits
MANIFEST := $(BUNDLE)/1/assets.extra/manifest.json

.PHONY: demo digits test test-slow lint format clean

demo: digits
	@echo "== the web demo"
	@$(BIN)/toolkit demo saved_models --port $(PORT)

# Everything the demo shows, without opening the page.
digits: $(MANIFEST)
	@echo "== every engine on this machine"
	@$(BIN)/toolkit benchmark $(BUNDLE)
	@echo "== a few held-out pictures"
	@$(BIN)/toolkit predict $(BUNDLE) $(BUNDLE)/1/assets.extra/examples/*.png --top-k 2

$(MANIFEST): | data/digits $(VENV)/installed-all
	@echo "== training LeNet-5, then writing the bundle"
	@$(BIN)/toolkit train data/digits --model lenet5 --out runs/digits --resume --export $(BUNDLE) --examples 10 \
		--set run.epochs=40 --set run.batch_size=16

data/digits: | $(VENV)/installed-all
	@mkdir -p data
	@$(BIN)/toolkit samples digits data/digits

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# What takes minutes: every network on every way it travels.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One stamp per extra: all, test, dev.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing toolkit[$*] into $(VENV) (minutes the first time)"
	@$(PIP) -e '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "toolkit needs Python 3.11 to 3.13, this is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) data/digits runs/digits $(BUNDLE)
