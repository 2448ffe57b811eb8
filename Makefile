# `make run` and `make test` are all that is needed from a fresh clone.
.DEFAULT_GOAL := help
.PHONY: help setup run build test chaos screenshots fmt lint doc generate fuzz ci clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Flags for the server: make run ARGS="--listen 0.0.0.0:8080"
ARGS ?=

help: ## Show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing: a C compiler and the Postgres server (does nothing when all is there)
	@scripts/setup.sh

run: build ## Build and start personas with its own private Postgres
	@exec $(TARGET)/release/personas serve $(ARGS)

build: setup ## Build the release binary
	cargo build --release --locked

test: ## Run all tests, each on a database of its own, the console in a real browser
	@scripts/setup.sh --tests
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --no-fail-fast && cargo test --locked --doc --quiet; \
	else \
		cargo test --locked --no-fail-fast; \
	fi

chaos: setup ## Break everything that can be broken, CHAOS=full (20 minutes) or soak (hours); CHAOS_SEED=n repeats a run
	CHAOS=$(or $(CHAOS),full) cargo test --release --locked --test chaos -- --test-threads=1 --nocapture

fmt: ## Format the code
	cargo fmt

lint: ## Check format and lints
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

doc: ## Build the code's documentation
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

generate: setup ## Write the files that are made from the code (docs/configuration.md, docs/metrics.md, ...)
	UPDATE_GENERATED=1 cargo test --locked --test it is_up_to_date

fuzz: ## Run the fuzz targets, FUZZ_SECONDS each (600 when not given)
	scripts/fuzz.sh

screenshots: build ## Make the pictures of the console in docs/images
	@scripts/setup.sh --tests
	scripts/screenshots.sh $(TARGET)/release/personas docs/images

ci: ## Everything a change has to pass
	@.ci/run

clean: ## Remove what was built
	cargo clean
