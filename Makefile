# What the README says, as commands. All of it runs as root on Debian 13, and on Debian 12 with Rust 1.85 or newer.

export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

.PHONY: all build demo test bench lint clean

all: build

build:
	@sh tests/prepare.sh build
	cargo build --release --locked

# A miniature node with real traffic. KEEP=1 leaves it up to play with.
demo:
	@sh tests/prepare.sh demo
	@echo "building (a minute or two the first time) ..."
	@cargo build --quiet --release --locked --bin pve-span --example demo
	@target/release/examples/demo

test:
	@sh tests/prepare.sh test
	cargo test --locked

# Hooks beside a script that does the same with ovs-vsctl, reconciles, and what mirroring costs the traffic. ARGS=--quick for a first impression.
bench:
	@sh tests/prepare.sh bench
	cargo bench --locked --bench hook -- $(ARGS)
	cargo bench --locked --bench reconcile -- $(ARGS)
	cargo bench --locked --bench throughput -- $(ARGS)

lint:
	@sh tests/prepare.sh lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	shellcheck tests/prepare.sh tests/lab/reaper.sh hookscripts/pve-span benches/*.sh .ci/run

clean:
	cargo clean
