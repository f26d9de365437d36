# Each target is a thin line over a documented command; see CONTRIBUTING.md.
PYTHON ?= python3
BIN := .venv/bin
NOWHERE := http://127.0.0.1:9
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
# Two workers, each with whole files, in this order: chapters take longest, so they come first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	--nbval-lax --nbval-current-env --nbval-cell-timeout 300 notebooks tests
# On large images glibc's allocator gives memory back and asks for it again all the time; kept, crafting is faster.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 100000000000

.PHONY: book test test-without-data update artifacts mutants hero data lock clean

book: .venv/ready data ## execute what changed, render the book, print the page to open
	$(BIN)/uaplib book build

test: .venv/ready .venv/peers data ## lint, then unit, conformance, notebook and book tests; skips are listed at the end
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)

# Left out is what cannot tell the difference: attacks on made-up networks, the rendering of what was executed before,
# a chapter on scenes that the library computes. The list is of what is left out, so that a new test is not forgotten.
test-without-data: .venv/ready .venv/peers ## once more without data sets and network: what needs them is skipped
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && mkdir "$$folder/home" "$$folder/data" && \
	env HOME="$$folder/home" UAPLIB_DATA="$$folder/data" no_proxy= NO_PROXY= \
		HTTP_PROXY=$(NOWHERE) HTTPS_PROXY=$(NOWHERE) ALL_PROXY=$(NOWHERE) \
		http_proxy=$(NOWHERE) https_proxy=$(NOWHERE) all_proxy=$(NOWHERE) \
		$(PYTEST) \
		--ignore=tests/attacks --ignore=tests/pipeline --ignore=tests/notebooks \
		--ignore=tests/book/test_html.py --ignore=tests/book/test_window.py --ignore=notebooks/08-depth.ipynb

update: .venv/ready data ## execute what changed and write the outputs back into notebooks/; then register what they read
	$(BIN)/uaplib book update
	$(BIN)/uaplib book leaderboard
	$(BIN)/uaplib book registry

artifacts: .venv/ready data ## craft and measure what chapters load and is missing or out of date
	$(BIN)/uaplib craft --all

mutants: .venv/ready .venv/peers .venv/mutmut data ## MODULE=priors: change one thing at a time; which changes do the tests not notice?
	$(BIN)/python benchmarks/mutants.py $(MODULE)

hero: .venv/ready data ## draw the front page's picture anew
	$(BIN)/uaplib book hero

data: .venv/ready ## make sure that the data sets are there
	$(BIN)/uaplib book data

lock: .venv/ready ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra book --extra test --extra imagenet --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

clean: ## remove what was built; .venv stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# uv resolves and installs in parallel. The project itself is installed last, editable. Compiled here, once (30 s): each
# of the many Python processes would compile all of PyTorch for itself (8 s) where bytecode is not written.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	@echo "installing the locked environment (about 5 GB with torch's CUDA build)"
	$(UV) --compile-bytecode --require-hashes -r requirements.lock
	$(UV) --no-deps --no-build-isolation --editable .
	touch $@

# The peers' own requirements are out of date or not needed, so they come without.
.venv/peers: .venv/ready requirements-peers.txt
	$(UV) --no-deps -r requirements-peers.txt
	touch $@

.venv/mutmut: .venv/ready
	$(UV) mutmut==3.8.1
	touch $@
