#!/usr/bin/env bash
# Each fuzz target for so many seconds, beginning with the committed corpus: `make fuzz`. What is new goes into a
# corpus of its own under target/, what fails into tests/fuzz/artifacts.
set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${1:-60}
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly compiler and cargo-fuzz:"
    echo "  rustup toolchain install nightly && cargo install cargo-fuzz"
    echo "The committed corpus is replayed by the ordinary tests: cargo test --test corpus"
    exit 1
fi
failed=0
for target in datagram client_frame client_datagram stream_frame log_replay apply http; do
    mkdir -p "target/fuzz/$target"
    cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" "target/fuzz/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=65536 || failed=1
done
exit "$failed"
