# What the README says, as commands. All of it runs as root on Debian 13, and on Debian 12 with Rust 1.85 or newer.

export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

.PHONY: all build deb apt-repo demo test test-slow test-vm bench fuzz lint clean

all: build

build:
	@sh tests/prepare.sh build
	cargo build --release --locked

# The Debian package, into target/debian. It runs on the Debian release that it is built on, and on later ones.
deb:
	@sh tests/prepare.sh deb
	sh debian/make-deb

# A signed apt repository in OUT, of what `make deb` has built or of DEBS; KEY is one that gpg has. docs/install.md has more.
KEY =
OUT = target/apt
DEBS =
apt-repo:
	@sh debian/apt-repo '$(KEY)' '$(OUT)' $(DEBS)

# A miniature node with real traffic. KEEP=1 leaves it up to play with.
demo:
	@sh tests/prepare.sh demo
	@echo "building (a few minutes the first time, and 300 MB in target/) ..."
	@cargo build --quiet --release --locked --bin pve-span --example demo
	@"$${CARGO_TARGET_DIR:-target}"/release/examples/demo

test:
	@sh tests/prepare.sh test
	@echo "the tests: a quarter of an hour, and 5 GB in target/; make test-slow has the rest ..."
	@sh tests/run.sh most

# The package in systems of Debian 12 and 13, changes by chance, and many under load.
test-slow:
	@sh tests/prepare.sh test
	@echo "the slow tests: a quarter of an hour, and 5 GB in target/, systems of Debian 12 and 13 among them ..."
	@sh tests/run.sh slow

# What needs a whole machine: Debian 12's and Debian 13's own kernel, systemd and Open vSwitch, in QEMU. KVM is not needed.
test-vm:
	@sh tests/prepare.sh test-vm
	@echo "virtual machines: two disks are made once, 3 GB in target/ meanwhile; then some minutes ..."
	@tests/vm/test

# Hooks beside a script that does the same with ovs-vsctl, reconciles, what mirroring and its changes cost the traffic, and
# the service.
# ARGS=--quick for a first impression.
bench:
	@sh tests/prepare.sh bench
	cargo bench --locked --bench hook -- $(ARGS)
	cargo bench --locked --bench reconcile -- $(ARGS)
	cargo bench --locked --bench throughput -- $(ARGS)
	cargo bench --locked --bench revalidation -- $(ARGS)
	cargo bench --locked --bench watch -- $(ARGS)

# Each fuzz target for TIME seconds, two at a time for each processor; what it learns stays in fuzz/found. Any toolchain will do. TARGETS=filter runs one.
TIME = 600
TARGETS = guest_config span_cfg filter cluster_files ovsdb netlink mirrors_conf frames
fuzz:
	@sh tests/prepare.sh fuzz
	@sh fuzz/run $(TIME) $(TARGETS)

lint:
	@sh tests/prepare.sh lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	shellcheck tests/prepare.sh fuzz/run tests/run.sh tests/lab/reaper.sh hookscripts/pve-span benches/*.sh .ci/run tests/proxmox/stand-in.sh tests/docs/*.sh \
		tests/vm/test tests/vm/inside tests/vm/run tests/vm/image tests/vm/guest/make tests/vm/guest/init tests/vm/guest/job \
		debian/put-snippet debian/completions/pve-span debian/pve-span.p* debian/make-deb debian/apt-repo debian/licences/collect

clean:
	cargo clean
