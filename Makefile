# Everything a person or CI runs. `make demo` and `make test` need nothing done before them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo run test test-lite soak soak-swaps soak-reload soak-kills soak-overload soak-faults soak-predictions bench bench-traffic bench-predictions bench-functions bench-peers lint docs dist libtorch models clean

export CARGO_TERM_PROGRESS_WHEN ?= auto
PYTHON ?= python3
# What the programs of penstock-loadtest that start a gateway of their own begin with.
DEBUG := --gateway target/debug/penstock --repository models/repository --data models/digits_test.csv
# One of these programs, as short as in the tests.
SHORT := scripts/limited.sh 10 target/debug/penstock-loadtest
RELEASE := --gateway target/release/penstock --repository models/repository --data models/digits_test.csv

help:             ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

libtorch:         ## Bring libtorch into .libtorch/ (PENSTOCK_LIBTORCH=PATH uses your own)
	@scripts/libtorch.sh

demo: libtorch    ## Build, then show the main job on real data; ends by itself
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest demo $(RELEASE)

run: libtorch     ## Build and serve the example models until Ctrl-C
	cargo build --release -p penstock
	target/release/penstock serve models/repository

# Each step has a limit, three times and more what it takes on two busy cores. The first makes
# the programs, examples and fixtures of all that follow.
test: libtorch    ## Every test: unit, module, black-box with real clients
	scripts/limited.sh 40 cargo test --workspace --no-run
	scripts/limited.sh 15 cargo test --workspace
	$(SHORT) swap $(DEBUG) --swaps 200 --callers 32
	$(SHORT) assignment $(DEBUG) --keys 4000
	$(SHORT) reload $(DEBUG) --reloads 200 --through-file 5
	$(SHORT) rollback $(DEBUG) --rollbacks 20 --kills 4 --lenient
	$(SHORT) routes $(DEBUG) --reloads 3 --duration 3s --rounds 1 --lenient
	target/debug/examples/fixtures --bad-digits target/debug/bad-digits
	$(SHORT) shadow $(DEBUG) --fixtures target/debug/bad-digits \
		--rounds 1 --duration 4s --measure 1s --lenient
	$(SHORT) predictions $(DEBUG) --kills 10 --stall 3s --rounds 1 --measure 2s --lenient
	scripts/limited.sh 10 scripts/clients.sh
	scripts/limited.sh 5 scripts/clients.sh --perf
	scripts/limited.sh 5 scripts/clients.sh --promtool
	scripts/limited.sh 5 scripts/clients.sh --mlserver
	scripts/limited.sh 40 gateway/tests/clients/run.sh
	scripts/limited.sh 5 scripts/test-dist.sh target/debug/penstock
	$(MAKE) --no-print-directory test-lite

# In a folder of its own, so that the binary with libtorch is not built over.
test-lite:        ## Every test that needs no libtorch
	scripts/limited.sh 20 cargo test --no-default-features --target-dir target/lite

soak: soak-swaps soak-reload soak-kills soak-overload soak-faults soak-predictions ## The long ones: thousands of swaps and reloads, hundreds of kills, overload, faults

soak-swaps: libtorch
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest swap $(RELEASE) --swaps 2000 --callers 32

soak-reload: libtorch
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest reload $(RELEASE) --reloads 10000 --through-file 100

soak-kills: libtorch
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest rollback $(RELEASE) --kills 200

soak-overload: libtorch
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest overload $(RELEASE)

# PENSTOCK_SOAK_SECONDS=3600 goes on for an hour instead of two minutes.
soak-faults: libtorch
	cargo build --release -p penstock
	PENSTOCK_BINARY=target/release/penstock gateway/tests/clients/run.sh -m soak -s

soak-predictions: libtorch
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest predictions $(RELEASE) --parts kills,disk,room \
		--kills 100 --stall 60s

# One package at a time: built together, the gateway would get features that others ask for.
bench: libtorch   ## Ratios to bare servers and libtorch, stored in benches/results/ (20 minutes)
	cargo build --release -p penstock
	cargo build --release -p penstock-loadtest
	cargo build --release -p engine-torch --examples
	cargo build --release -p penstock-benches
	target/release/ratios $(ARGS)

bench-traffic: libtorch ## Rollback, a thousand routes, shadows: times against what is demanded (10 minutes)
	cargo build --release -p penstock -p penstock-loadtest
	cargo build --release -p engine-torch --example fixtures
	target/release/penstock-loadtest rollback $(RELEASE) --kills 0
	target/release/penstock-loadtest routes $(RELEASE)
	target/release/examples/fixtures --bad-digits target/release/bad-digits
	target/release/penstock-loadtest shadow $(RELEASE) --fixtures target/release/bad-digits

bench-predictions: libtorch ## Calls a second with the prediction log beside those without (5 minutes)
	cargo build --release -p penstock -p penstock-loadtest
	target/release/penstock-loadtest predictions $(RELEASE) --parts throughput \
		--rounds 5 --measure 10s

bench-functions:  ## Timed benches of the hot functions
	cargo bench -p penstock-benches --benches

# Once installed it takes about ten minutes; PEERS_OPTIONS="--peers triton --rounds 5" changes what runs.
bench-peers: libtorch ## Triton, MLServer, TorchServe and LitServe beside Penstock: a table of ratios
	cargo build --release -p penstock -p penstock-loadtest
	scripts/peers.sh
	$(PYTHON) benches/peers/run.py $(PEERS_OPTIONS)

lint: libtorch    ## Formatting, clippy, documentation, shell scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh gateway/tests/clients/*.sh .ci/run; fi
	if command -v cargo-deny >/dev/null; then cargo deny check; fi

docs: libtorch    ## Write the references in docs/ from the code's own tables
	cargo build -p penstock
	scripts/docs.sh target/debug/penstock

models:           ## Export the larger models for benchmarks into models/extra/
	scripts/models.sh extra

dist: libtorch    ## A folder dist/penstock with bin/ and lib/ that runs wherever it is moved
	PENSTOCK_RELOCATABLE=1 cargo build --release -p penstock
	scripts/dist.sh target/release/penstock dist/penstock

clean:            ## Remove what was built, but not .libtorch/
	cargo clean
	rm -rf dist
