# `make` alone lists the targets. All cargo work uses one profile, `quick`, so that demo, tests and benchmarks share one build.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test bench ui fmt clean setup-demo binary

# rustup puts cargo here; a shell that was open before the installation does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
CONURB := $(TARGET_DIR)/quick/conurb
CARGO_QUICK := --profile quick
STAGE := scripts/stage.sh
# Our own crates are compiled by clippy's compiler, which lints and builds in one pass; third-party crates are those of `make demo`.
# `cargo clippy` beside it would check every dependency once more: five minutes of two cores.
LINTED := env RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings
UI_SOURCES := $(wildcard ui/*.html ui/*.json ui/*.ts) \
  $(shell find ui/src ui/public crates/feed/outlines -type f 2>/dev/null)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo binary ## build, then run three cities with a live map; DATA=../shared/data/air replays recorded years; Ctrl-C stops
	$(CONURB) demo $(if $(DATA),--data-from $(DATA))

test: ## everything a change has to pass: console, format, lints, rules, all tests; prints counts and times
	@$(STAGE) begin
	@$(STAGE) run setup scripts/setup.sh --for test
	@$(STAGE) run format cargo fmt --all --check
	@$(STAGE) run tidy cargo xtask tidy
	@$(STAGE) run ui-types npm --prefix ui run check
	@$(STAGE) run ui-unit npm --prefix ui run test
	@$(STAGE) run ui-build $(MAKE) --no-print-directory ui/dist/index.html
	@$(STAGE) run build $(LINTED) cargo build $(CARGO_QUICK) --locked -p conurb
	@$(STAGE) run lints $(LINTED) cargo test $(CARGO_QUICK) --locked --workspace --no-run
	@$(STAGE) run tests $(LINTED) cargo test $(CARGO_QUICK) --locked --workspace --no-fail-fast
	@$(STAGE) summary

bench: setup-demo binary ## measure the canonical workloads on this machine; ARGS=--json prints one line per result
	$(CONURB) bench $(ARGS)

ui: setup-demo ui/dist/index.html ## build the console into ui/dist

fmt: ## format all Rust code
	cargo fmt --all

clean: ## remove what was built: target, ui/dist; installed dependencies stay
	cargo clean
	rm -rf ui/dist

setup-demo:
	@scripts/setup.sh --for demo

# The console is embedded in the binary, so it is built first.
binary: ui/dist/index.html
	cargo build $(CARGO_QUICK) --locked -p conurb

ui/dist/index.html: $(UI_SOURCES)
	npm --prefix ui run build
	@touch $@
