# ftq: what a user or a contributor asks for. `make help` lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# The simulator: how many seeds, from which, how many at once; TRACE=1 for the time line, BROKEN=NAME, all or must (those
# of the replica) for the deliberately broken variants, each of which must be caught.
SEEDS ?= 1000
FROM ?= 0
JOBS ?=
TRACE ?=
BROKEN ?=
# How often `make kills` kills clients, and how many lines its shell script pushes.
KILLS ?= 300
COUNT ?= 1000000
# Seconds of each fuzz target.
FUZZ_SECONDS ?= 60

# nft and ip live where ordinary users' PATH does not reach.
export PATH := $(PATH):/usr/sbin:/sbin

MUSL := $(shell uname -m)-unknown-linux-musl
GNU := $(shell uname -m)-unknown-linux-gnu
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# Where `make all` leaves the two static programs.
BIN := $(TARGET_DIR)/bin
MAN := $(wildcard man/*.[178])

.PHONY: all demo test kills check sim bench gap fuzz install tools help

all:                ## the two static programs, in target/bin
	@if [ ! -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)" ]; then \
	    rustup target add $(MUSL) 2>/dev/null || true; fi
	@set -e; if [ -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)" ]; then \
	    triple=$(MUSL); \
	else \
	    echo "no musl target for this toolchain: linking glibc statically"; \
	    triple=$(GNU); export RUSTFLAGS="$$RUSTFLAGS -C target-feature=+crt-static"; \
	fi; \
	$(CARGO) build --release --bins --target $$triple; \
	mkdir -p $(BIN); \
	cp -f $(TARGET_DIR)/$$triple/release/ftqd $(TARGET_DIR)/$$triple/release/ftqc $(BIN)/

demo: all           ## three replicas in a lab: a queue, a network that loses packets, a crash; explained
	@bash tests/demo.sh $(BIN)

test: tools         ## every test; as root also those in private network namespaces
	@[ "$$(id -u)" = 0 ] || echo "not root: the tests that need a network namespace of their own are skipped"
	$(CARGO) test

kills: tools        ## the tests that kill clients and replicas in full: KILLS=n times, COUNT=n lines
	FTQ_KILLS=$(KILLS) FTQ_LINES=$(COUNT) $(CARGO) test --test processes -- --nocapture kills:: shell::

check: tools        ## formatting, lints, man pages, the unit file
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	@bash tests/lint.sh

sim:                ## the simulator: SEEDS=n FROM=seed JOBS=n TRACE=1, or BROKEN=all
	@$(CARGO) test --quiet --profile sim $(if $(BROKEN),--features broken) --test sim -- --seeds $(SEEDS) \
	    --from $(FROM) $(if $(JOBS),--jobs $(JOBS)) $(if $(TRACE),--trace) $(if $(BROKEN),--broken $(BROKEN))

bench: all          ## throughput and latency of three replicas on this machine
	@bash tests/bench/run.sh $(BIN)

gap:                ## the time without service when a replica fails: RUNS=n ONLY=kind; as root also cuts
	@$(CARGO) bench --quiet --bench gap

fuzz:               ## each fuzz target for FUZZ_SECONDS
	@bash tests/fuzz/run.sh $(FUZZ_SECONDS)

install:            ## programs, man pages, completions and unit file under DESTDIR and PREFIX
	@[ -x $(BIN)/ftqd ] && [ -x $(BIN)/ftqc ] || $(MAKE) all
	install -D -m 755 $(BIN)/ftqd $(DESTDIR)$(PREFIX)/sbin/ftqd
	install -D -m 755 $(BIN)/ftqc $(DESTDIR)$(PREFIX)/bin/ftqc
	for page in $(MAN); do \
	    install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	@set -e; share=$(DESTDIR)$(PREFIX)/share; for place in bash:bash-completion/completions/ftqc \
	    zsh:zsh/site-functions/_ftqc fish:fish/vendor_completions.d/ftqc.fish; do \
	    install -d $$share/$$(dirname $${place#*:}); \
	    $(BIN)/ftqc help --completion $${place%%:*} > $$share/$${place#*:}; chmod 644 $$share/$${place#*:}; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|^ExecStart=[^ ]*/ftqd|ExecStart=$(PREFIX)/sbin/ftqd|' systemd/ftqd@.service \
	    > $(DESTDIR)$(PREFIX)/lib/systemd/system/ftqd@.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/ftqd@.service

tools:              # what tests and checks need besides Rust; only what is missing, and only as root
	@missing=; for tool in nft:nftables ip:iproute2 mandoc:mandoc systemd-analyze:systemd curl:curl; do \
	    command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	/usr/bin/python3 -c 'import prometheus_client' 2>/dev/null || missing="$$missing python3-prometheus-client"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing"; export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing </dev/null; \
	else \
	    echo "not here, and not root to install:$$missing; what needs them is skipped"; \
	fi

help:               # this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 10
