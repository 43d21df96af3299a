# The README shows each of these as plain commands, for those without make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SITE := _build/html
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup book read lab pdf lint test flakes execute times bench mutants

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version + ". Try: make PYTHON=python3.13 ...")'
	@echo "Setting up .venv from requirements.txt (once; some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

setup: $(READY) ## make the virtual environment .venv and install everything (the other targets do it when they must)

book: $(READY) ## build the HTML book from the stored outputs
	@rm -rf $(SITE)
	@$(BIN)/jupyter-book build . --all --quiet
	@echo "The book is at $(CURDIR)/$(SITE)/index.html (make read serves it on this machine and opens a browser)"

read: book ## build the book, serve it on this machine, open a browser
	@$(BIN)/python scripts/read_book.py $(SITE)

lab: $(READY) ## open the notebooks in JupyterLab, to run and change them (installs it the first time)
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install --quiet "jupyterlab>=4,<5" "jupyterlab-myst>=2,<3"
	@$(BIN)/jupyter-lab book

pdf: $(READY) ## build the PDF of the whole book (some minutes; names what is missing: LaTeX, fonts)
	@$(BIN)/python scripts/build_pdf.py

lint: $(READY) ## check names, imports and types (ruff, mypy): seconds
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## prove everything: names and types, the build without a warning, the pages in a browser, unit tests, every notebook
	@rm -rf $(SITE)
	$(BIN)/jupyter-book build . --all --quiet -W -n --keep-going
	$(BIN)/python scripts/check_site.py $(SITE)
	$(BIN)/python -m pytest $(PARALLEL)

flakes: $(READY) ## the unit tests five times with one thread and five with two, the notebooks once with each (takes an hour or more)
	@for threads in 1 2; do export DIFFUSION_CORE_TEST_THREADS=$$threads; \
	  for folder in tests tests tests tests tests book; do echo "$$folder, $$threads thread(s)"; $(BIN)/python -m pytest -q $(PARALLEL) $$folder || exit 1; done; done

execute: $(READY) ## run the notebooks again in place, on the CPU (all, or NB=book/ground/00_start_here.ipynb)
	$(BIN)/python scripts/execute_book.py $(NB)

times: $(READY) ## measure how long the notebooks run (all, or NB=...), for the pages that state it
	$(BIN)/python scripts/time_book.py $(NB)

bench: $(READY) ## measure training, sampling, learning and import against diffusers, on this machine
	@for script in training_step sampler_overhead score_error_2d import_time; do $(BIN)/python benchmarks/$$script.py || exit 1; done

.mutants/tool: tests/mutation/requirements.txt | $(READY)
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ -r $< && touch $@

mutants: $(READY) .mutants/tool ## break 200 formulas on purpose, one at a time, and see which no test notices (takes an hour; goes on where it was stopped)
	$(BIN)/python scripts/mutate.py run
	$(BIN)/python scripts/mutate.py table
