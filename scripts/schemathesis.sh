#!/usr/bin/env bash
# Sends generated requests to every route of a server of its own, most of them about what is there: no 5xx, no status and no body
# that the description does not have. CASES says about how many; PERSONAS_BIN which build (else the debug build).
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${PERSONAS_BIN:-${CARGO_TARGET_DIR:-target}/debug/personas}"
cases="${CASES:-12000}"
# The service refuses variables it does not know.
unset PERSONAS_BIN
folder=$(mktemp -d)
chmod 755 "$folder"
trap 'code=$?; kill "${server:-}" 2>/dev/null || true; wait 2>/dev/null || true
    [ "$code" = 0 ] || tail -n 20 "$folder/log"; rm -rf "$folder"' EXIT
if ! command -v st >/dev/null 2>&1; then
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet schemathesis
    PATH="$folder/venv/bin:$PATH"
fi
export PERSONAS_DATA_DIR="$folder/data" PERSONAS_BOOTSTRAP_TOKEN=tok_generated PERSONAS_BOOTSTRAP_WRITE_KEY=wk_generated
"$bin" serve --listen 127.0.0.1:18765 2>"$folder/log" &
server=$!
until curl -fs http://127.0.0.1:18765/readyz >/dev/null; do kill -0 "$server"; sleep 0.2; done
python3 scripts/schemathesis.py http://127.0.0.1:18765 tok_generated wk_generated <docs/openapi.json >"$folder/description.json"
routes=$(python3 -c 'import json; d=json.load(open("docs/openapi.json")); print(sum(len(p) for p in d["paths"].values()))')
cd "$folder"
generate() {
    st run description.json --url http://127.0.0.1:18765 --max-examples $((cases / routes + 1)) --phases examples,fuzzing \
        --checks all --workers 2 --continue-on-failure \
        --exclude-checks "positive_data_acceptance,unsupported_method,missing_required_header,ignored_auth$also" "$@"
}
# What answers for as long as somebody listens is left out.
failed=0 also=
generate --exclude-path-regex 'events/tail$' --exclude-tag Tracking --header "Authorization: Bearer tok_generated" || failed=1
# What SDKs send is taken as far as it makes sense, whatever else is in it.
also=,negative_data_rejection
generate --include-tag Tracking --header "Authorization: Basic $(printf wk_generated: | base64)" || failed=1
kill -0 "$server"
exit "$failed"
