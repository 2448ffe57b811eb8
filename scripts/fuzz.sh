#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (600 when not given) from the corpus of the repository; what is found on the way is kept
# outside of it. FUZZ_FLAGS go to `cargo fuzz run`: --dev builds faster and runs slower. Works with the stable compiler: coverage needs flags that it has only been told to take.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-${CARGO_TARGET_DIR:-target}/fuzz}"
command -v cargo-fuzz >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz@0.13.2
for target in ${*:-body timestamp query fql url}; do
    found="$CARGO_TARGET_DIR/corpus/$target"
    mkdir -p "$found"
    echo "== $target"
    cargo fuzz run --sanitizer none ${FUZZ_FLAGS:-} "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-600}" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
