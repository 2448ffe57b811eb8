#!/bin/sh
# Imports data with published totals into fresh servers and compares what comes out, to the cent; replays what SDKs
# were recorded sending. The data is not part of this repository: without it there is nothing to do.
#   PERSONAS_BIN   the binary; else the newest one that was built
#   PERSONAS_DATA  the folder with data/ and recordings/; else ../shared
set -eu
cd "$(dirname "$0")/.."

shared=${PERSONAS_DATA:-../shared}
if [ ! -f "$shared/data/cdnow_master.jsonl.gz" ]; then
    echo "acceptance: NOTE: no data in $shared/data, nothing was checked"
    exit 0
fi
command -v python3 >/dev/null 2>&1 || { echo "acceptance: this needs python3" >&2; exit 1; }

target=${CARGO_TARGET_DIR:-target}
if [ -z "${PERSONAS_BIN:-}" ]; then
    # shellcheck disable=SC2012 # our own two names
    PERSONAS_BIN=$(ls -t "$target/release/personas" "$target/debug/personas" 2>/dev/null | head -n 1)
fi
[ -x "${PERSONAS_BIN:-}" ] || { echo "acceptance: no binary; run cargo build or set PERSONAS_BIN" >&2; exit 1; }
exec python3 scripts/acceptance.py "$PERSONAS_BIN" "$shared" "$@"
