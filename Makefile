# What CI calls is here and nowhere else. `make` alone lists the targets.

CARGO_DENY_VERSION := 0.20.2
DENY := .tools/bin/cargo-deny

.DEFAULT_GOAL := help
.PHONY: help demo build check fmt lint doc deny advisories test

help:         ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo:         ## gateway, certificate, broker and a page: prints the URL
	cargo run --release --features demo -- demo

build:        ## the binary that ships: target/release/tidegate
	cargo build --release --locked

check: fmt lint doc deny  ## everything that needs no running broker

fmt:
	cargo fmt --check

lint:
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features demo,otlp -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

deny: $(DENY) ## licences, banned crates, unknown sources: needs no network
	$(DENY) --locked check licenses bans sources

advisories: $(DENY)  ## known vulnerabilities: fetches the RustSec database
	$(DENY) --locked check advisories

# About two minutes on two cores, once.
$(DENY):
	cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION) --root .tools

test:         ## install the real brokers and clients, then run every test
	tests/install.sh
	cargo test --locked --features demo,otlp
