# What people run. `make` alone lists the targets.
.PHONY: help run test check schemathesis bench bench-peers install setup fmt

help:
	@echo "make run          the demo: two origins, the proxy and its admin side"
	@echo "make test         everything that proves it"
	@echo "make check        what CI runs: format, lints as errors, tests, docs"
	@echo "make schemathesis the admin side against its own OpenAPI document, with odd requests"
	@echo "make bench        the micro-benchmarks"
	@echo "make install      the program into ~/.cargo/bin"

setup:
	@./scripts/setup

run: setup
	cargo run --release -- demo

test: setup
	cargo test

check: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

schemathesis: setup
	./scripts/schemathesis

bench: setup
	cargo bench

install: setup
	cargo install --path . --locked

bench-peers: setup
	cargo build --release
	cargo bench --bench bare --no-run
	python3 benches/peers/run.py
