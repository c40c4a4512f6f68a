# `make demo`: from nothing to classified photographs and a trained, quantized classifier in a web page.
# `make test`: the tests.
# Every step makes a file, so a second run does only what is missing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 7860
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# Comes with the project; see saved_models/README.md.
SHIPPED := saved_models/resnet20-cifar10
SEEN := runs/photographs/examples.txt
UNKNOWN := runs/photographs/unknown.txt

BUNDLE := saved_models/digits
MANIFEST := $(BUNDLE)/1/assets.extra/manifest.json
# What was measured is kept, and printed again by the next run.
SPEED := runs/digits/benchmark.txt
ANSWERS := runs/digits/examples.txt

SEEN_COMMAND = $(BIN)/toolkit bundles examples $(SHIPPED) --engine recommended
PHOTOGRAPHS_COMMAND = $(BIN)/toolkit samples photographs data/photographs
UNKNOWN_COMMAND = $(BIN)/toolkit predict $(SHIPPED) data/photographs --engine recommended
SAMPLES_COMMAND = $(BIN)/toolkit samples digits data/digits
TRAIN_COMMAND = $(BIN)/toolkit train data/digits --model lenet5 --out runs/digits --resume --export $(BUNDLE) \
	--examples 10 --set run.epochs=40 --set run.batch_size=16
SPEED_COMMAND = $(BIN)/toolkit benchmark $(BUNDLE)
ANSWERS_COMMAND = $(BIN)/toolkit bundles examples $(BUNDLE)
DEMO_COMMAND = $(BIN)/toolkit demo saved_models

# A heading, then the command that does the same without make.
say = @echo "== $(1)"; echo "   $(strip $(2))"

.PHONY: demo photographs digits docs test test-slow lint format clean

demo: photographs digits
	$(call say,the web page: drop a picture in or draw a digit,$(DEMO_COMMAND))
	@PORT=$(PORT) $(DEMO_COMMAND)

# What a network that comes with the project says to photographs.
photographs: $(SEEN) $(UNKNOWN)
	$(call say,what a network of ten classes says to photographs of them beside their true labels,$(SEEN_COMMAND))
	@cat $(SEEN)
	$(call say,and to photographs of other things: what they are most like or none of these,$(UNKNOWN_COMMAND))
	@cat $(UNKNOWN)

$(SEEN): | $(VENV)/installed-all
	@mkdir -p $(@D)
	@$(SEEN_COMMAND) > $@.part && mv $@.part $@

$(UNKNOWN): | data/photographs
	@mkdir -p $(@D)
	@$(UNKNOWN_COMMAND) > $@.part && mv $@.part $@

data/photographs: | $(VENV)/installed-all
	$(call say,writing photographs that come with scikit-learn and Gradio,$(PHOTOGRAPHS_COMMAND))
	@mkdir -p data
	@$(PHOTOGRAPHS_COMMAND)

# Everything else the demo shows, without opening the page.
digits: $(SPEED) $(ANSWERS)
	$(call say,how fast each engine is on this machine and what it costs in accuracy,$(SPEED_COMMAND))
	@cat $(SPEED)
	$(call say,what the network says to pictures it has not learned from beside their true labels,$(ANSWERS_COMMAND))
	@cat $(ANSWERS)

$(SPEED): $(MANIFEST)
	@mkdir -p $(@D)
	@$(SPEED_COMMAND) > $@.part && mv $@.part $@

$(ANSWERS): $(MANIFEST)
	@mkdir -p $(@D)
	@$(ANSWERS_COMMAND) > $@.part && mv $@.part $@

$(MANIFEST): | data/digits $(VENV)/installed-all
	$(call say,training LeNet-5 on handwritten digits and writing it as a bundle,$(TRAIN_COMMAND))
	@$(TRAIN_COMMAND)

data/digits: | $(VENV)/installed-all
	$(call say,writing scikit-learn's handwritten digits as pictures,$(SAMPLES_COMMAND))
	@mkdir -p data
	@$(SAMPLES_COMMAND)

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
	$(BIN)/hadolint apps/serving/Dockerfile

# The pages as a site, in site/: seconds. A link that leads nowhere ends it.
docs: $(VENV)/installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo site/index.html

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One stamp per extra: all, docs, test, dev.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing toolkit[$*] into $(VENV) (minutes the first time)"
	@$(PIP) -e '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "toolkit needs Python 3.11 to 3.13, this is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) data/digits data/photographs runs/digits runs/photographs $(BUNDLE)
