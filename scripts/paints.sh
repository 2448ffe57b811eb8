#!/usr/bin/env bash
# How soon the pages of the console are seen, and what they weigh, with many profiles behind them: a server of its own in a folder that
# is thrown away. Usage: scripts/paints.sh PERSONAS [PROFILES]; ends with 1 when a page takes more than half a second or 200 KiB.
set -euo pipefail
personas=$(realpath "$1")
profiles=${2:-1000000}
cd "$(dirname "$0")/console"

PERSONAS_LISTEN="${PERSONAS_LISTEN:-127.0.0.1:8766}"
PERSONAS_BOOTSTRAP_TOKEN=tok_of_the_paints
export PERSONAS_BOOTSTRAP_WRITE_KEY=wk_of_the_paints
. ./serve.sh
api() {
    local path=$1 body=$2
    shift 2
    curl -sf -u "$CONSOLE_TOKEN:" "$CONSOLE_URL/v1/spaces/default/$path" -d "$body" "$@" >/dev/null
}
api audiences '{"key":"pro","name":"Pro","definition":{"query":"trait('"'plan'"') = '"'pro'"'"}}'
api audiences '{"key":"buyers","name":"Buyers","definition":{"query":"event('"'Order Completed'"').count() >= 1"}}'
api audiences '{"key":"spenders","name":"Spenders","definition":{"query":"event('"'Order Completed'"').within(90 days).sum(property('"'total'"')) > 200"}}'
api computed-traits '{"key":"spent","name":"Spent","definition":{"query":"event('"'Order Completed'"').sum(property('"'total'"'))"}}'
api search/settings '{"traits":["plan","city"]}' -X PATCH
PROFILES=$profiles python3 - >"$data/people.ndjson" <<'END'
import json, os

for n in range(int(os.environ["PROFILES"])):
    at = f"2026-11-{1 + n % 28:02}T{n % 24:02}:{n % 60:02}:00Z"
    traits = {"email": f"person{n}@example.org", "plan": ["free", "pro", "team"][n % 3], "city": f"City {n % 500}"}
    call = {"type": "identify", "userId": f"user-{n}", "messageId": f"i{n}", "timestamp": at, "traits": traits}
    print(json.dumps(call))
    if n % 2 == 0:
        order = {"event": "Order Completed", "properties": {"total": n % 300, "sku": f"s{n % 40}"}}
        print(json.dumps({"type": "track", "userId": f"user-{n}", "messageId": f"t{n}", "timestamp": at, **order}))
END
"$personas" import "$data/people.ndjson" --url "$CONSOLE_URL" --write-key "$PERSONAS_BOOTSTRAP_WRITE_KEY" >/dev/null
lag() { curl -sf -u "$CONSOLE_TOKEN:" "$CONSOLE_URL/v1/spaces/default/pipeline" | python3 -c 'import json, sys; print(json.load(sys.stdin)["lag_events"])'; }
until [ "$(lag)" = 0 ]; do sleep 1; done
node paints.mjs
