# What people run. `make` alone lists the targets.
.PHONY: help run test check bench-check schemathesis h2spec fuzz faults surroundings endurance soak crash segments stream websockets sticky upgrades switching bench bench-peers bench-segments bench-switching bench-growth install setup

help:
	@echo "make run          the demo: two origins, the proxy and its admin side"
	@echo "make test         everything that proves it"
	@echo "make crash        the store and the whole program, killed 1,000 times, on a full and a failing disk (root)"
	@echo "make segments     the long form: 200 kills during imports and merges of segments"
	@echo "make check        what CI runs: format, lints as errors, tests, docs"
	@echo "make schemathesis the admin side against its own OpenAPI document, with odd requests"
	@echo "make h2spec       HTTP/2 as RFC 9113 and RFC 7541 have it, in clear text and with TLS (needs Go)"
	@echo "make fuzz         the parsers and guards, a minute each (needs a nightly toolchain and cargo-fuzz)"
	@echo "make stream       the long form: 1 GiB each way through every pair of protocols, in constant memory"
	@echo "make websockets   the long form: 10,000 WebSocket handshakes with echo, none lost"
	@echo "make sticky       the long form: 100,000 requests of 1,000 users while endpoints fail"
	@echo "make faults       the long form: endpoints that fail under load, 100,000 requests over connections that are closed"
	@echo "make surroundings the long form: logs that nobody reads for a minute, a clock that jumps"
	@echo "make endurance    half load with an upgrade each five minutes; MINUTES says how long (30)"
	@echo "make upgrades     the long form: 100 upgrades and 125 killed successors under load, no request lost"
	@echo "make soak         faults, surroundings, endurance and upgrades: every fault in its long form, about an hour"
	@echo "make switching    the long form: 10,000 switches of random users under load"
	@echo "make bench        the micro-benchmarks"
	@echo "make bench-peers  the same job by nginx, HAProxy, Gin, Caddy and bare Pingora: about 15 minutes (needs Go)"
	@echo "make bench-segments  a segment of 100 million users: bytes an id, deciding, building (needs 8 GiB)"
	@echo "make bench-check  instructions of a decision and of a request, beside those that are kept (valgrind)"
	@echo "make bench-switching  changes while traffic flows, a flood of admin requests, an import of a million users"
	@echo "make bench-growth what a request costs with 1 to 10,000 rollouts, routes, endpoints, connections, and millions of users"
	@echo "make install      the program into ~/.cargo/bin"

setup:
	@./scripts/setup

run: setup
	cargo run --release -- demo

test: setup
	cargo test

# Kills the store's program 1,000 times, and the whole program as often, fills its disk and makes it fail; needs root
# and strace.
crash: setup
	SWITCHYARD_LONG=1 cargo test --test store crash::
	SWITCHYARD_LONG=1 cargo test --test it -- switching_crash:: switching_disk:: --test-threads 1 --nocapture

check: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

schemathesis: setup
	./scripts/schemathesis

h2spec: setup
	./scripts/h2spec

# A minute each; SECONDS says how long. What is found is written to tests/fuzz/artifacts: once it is understood, it becomes
# a seed. No sanitizer: what is fuzzed has no unsafe code to watch.
SECONDS = 60
FUZZERS = config identity jwt spec import roster guard frames
fuzz: setup
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	for fuzzer in $(FUZZERS); do \
		mkdir -p target/fuzz-corpus/$$fuzzer && \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none --target-dir target/fuzz $$fuzzer \
			target/fuzz-corpus/$$fuzzer tests/fuzz/seeds/$$fuzzer -- \
			-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=4096 -max_len=16384 -print_final_stats=1 || exit 1; \
	done

# The long forms of tests that `make test` runs in short, with a release build: what is proved is what runs.
LONG = cargo build --release && SWITCHYARD_PROGRAM=$(CURDIR)/target/release/switchyard SWITCHYARD_LONG=1 cargo test --test it
stream: setup
	$(LONG) -- streams:: --test-threads 1 --nocapture

websockets: setup
	$(LONG) -- upgrades:: --test-threads 1 --nocapture

sticky: setup
	$(LONG) -- sticky:: --test-threads 1 --nocapture

surroundings: setup
	$(LONG) -- surroundings:: --test-threads 1 --nocapture

MINUTES = 30
endurance soak: export MINUTES := $(MINUTES)
endurance: setup
	$(LONG) -- endurance:: --test-threads 1 --nocapture

# The whole matrix of faults.
soak: setup
	$(LONG) -- faults:: surroundings:: upgrade_load:: drains:: handover:: endurance:: --test-threads 1 --nocapture

segments: setup
	$(LONG) -- segments:: --test-threads 1 --nocapture

faults: setup
	$(LONG) -- faults:: --test-threads 1 --nocapture

upgrades: setup
	$(LONG) -- upgrade_load:: drains:: handover:: --test-threads 1 --nocapture

switching: setup
	$(LONG) -- switching:: --test-threads 1 --nocapture

bench: setup
	cargo bench

install: setup
	cargo install --path . --locked

# About 15 minutes; `make bench-peers CASES=200` is the first table alone.
CASES ?= all
bench-peers: setup
	cargo build --release
	cargo bench --bench bare --no-run
	CASES=$(CASES) python3 benches/peers/run.py

bench-segments: setup
	MILLIONS=100 cargo bench --bench segments
	cargo build --release
	python3 benches/segments/run.py --millions 10 100

# Instructions, which do not depend on what else the machine does, beside those that are kept.
bench-check: setup
	cargo build --release
	cargo bench --bench decide --no-run
	python3 benches/counts/run.py

bench-switching: setup
	cargo build --release
	python3 benches/switching/run.py

bench-growth: setup
	cargo build --release
	python3 benches/growth/run.py
