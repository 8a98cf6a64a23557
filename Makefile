# What CI calls is here and nowhere else. `make` alone lists the targets.

CARGO_DENY_VERSION := 0.20.2
DENY := .tools/bin/cargo-deny
CARGO_DEB_VERSION := 3.8.0
DEB := .tools/bin/cargo-deb

.DEFAULT_GOAL := help
.PHONY: help demo build static deb check fmt lint doc deny guard guard-renew advisories test scan bench

help:         ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo:         ## gateway, certificate, broker and a page: prints the URL
	cargo run --profile demo --features demo -- demo

build:        ## the binary that ships: target/release/tidegate
	cargo build --release --locked

static:       ## the same without any library, as in the container image: target/release/tidegate
	cargo rustc --release --locked --bin tidegate -- -C target-feature=+crt-static

deb: build $(DEB)  ## the Debian package: target/debian/
	deploy/debian/build

check: fmt lint doc deny guard  ## everything that needs no running broker

fmt:
	cargo fmt --check
	cargo fmt --check --manifest-path bench/Cargo.toml

lint:
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features demo,otlp -- -D warnings
	cargo clippy --locked --all-targets --manifest-path bench/Cargo.toml -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

deny: $(DENY) ## licences, banned crates, unknown sources: needs no network
	$(DENY) --locked check licenses bans sources
	$(DENY) --locked --manifest-path bench/Cargo.toml --config deny.toml check licenses bans sources

# Instructions are the same on a busy machine, so a rise of 5 % is a rise. Builds the bench profile, which is that of a release.
guard:        ## instructions for a packet, a frame, a choice, and the bytes of the program: no more than benches/instructions.txt
	tests/install.sh valgrind:valgrind
	cargo bench --locked --bench instructions -- check

guard-renew:  ## write benches/instructions.txt: after a change that is worth its price, or of the compiler
	tests/install.sh valgrind:valgrind
	cargo bench --locked --bench instructions -- renew

advisories: $(DENY)  ## known vulnerabilities: fetches the RustSec database
	$(DENY) --locked check advisories

# About two minutes on two cores, once.
$(DENY):
	cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION) --root .tools

# As long.
$(DEB):
	cargo install --locked cargo-deb --version $(CARGO_DEB_VERSION) --root .tools

IMAGE_TEST := deploy::docker::the_image_holds_one_program_that_runs_as_nobody_from_a_tree_that_it_cannot_write

test:         ## install the real brokers and clients, then run every test
	tests/install.sh
	@# cargo builds the image's static program inside of this test: first and alone, for beside it others measure time.
	-cargo test --locked --features demo,otlp --test it -- --exact $(IMAGE_TEST) >/dev/null
	cargo test --locked --features demo,otlp
	cargo test --locked --manifest-path bench/Cargo.toml

scan:         ## what testssl.sh says of the default TLS policy: a minute
	tests/install.sh testssl:testssl.sh
	cargo test --locked --features demo,otlp --test it -- --ignored --exact --nocapture scanners::testssl_finds_nothing_to_say

ROUNDS ?= 5
SECONDS ?= 4
OUT ?= docs

# A try: make bench ROUNDS=1 SECONDS=2 OUT=/tmp/bench
bench:        ## Tidegate, nginx and HAProxy side by side, under half an hour: writes docs/benchmark.*
	tests/install.sh nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client unshare:util-linux ip:iproute2
	cargo build --release --locked
	cargo run --release --locked --manifest-path bench/Cargo.toml -- run \
	  --tidegate $(or $(CARGO_TARGET_DIR),target)/release/tidegate --rounds $(ROUNDS) --seconds $(SECONDS) --out $(OUT)
