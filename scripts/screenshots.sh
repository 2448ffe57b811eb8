#!/usr/bin/env bash
# Makes the pictures of the console: a server of its own in a folder that is thrown away, the demo's shop, and a browser that goes
# through all pages. Usage: scripts/screenshots.sh PERSONAS FOLDER
set -euo pipefail
personas=$(realpath "$1")
images=$(realpath "$2")
cd "$(dirname "$0")/console"

PERSONAS_LISTEN="${PERSONAS_LISTEN:-127.0.0.1:8765}"
PERSONAS_BOOTSTRAP_TOKEN=tok_of_the_pictures
export CONSOLE_SPACE=demo
. ./serve.sh

"$personas" demo --url "$CONSOLE_URL" --token "$CONSOLE_TOKEN" --seconds 20 >/dev/null
api() {
    local path=$1 body=$2
    shift 2
    curl -sf -u "$CONSOLE_TOKEN:" "$CONSOLE_URL/v1/spaces/demo/$path" -d "$body" "$@"
}
# What the demo does not have: somewhere to tell, and something refused.
hook=$(api destinations '{"name":"CRM","kind":"webhook","settings":{"url":"https://crm.invalid/hook"}}' |
    sed 's/.*"id":"\(dst_[0-9a-f]*\)".*/\1/')
api "destinations/$hook/subscriptions" '{"subject":"audience","key":"big_spenders"}' >/dev/null
api search/settings '{"traits":["plan","city"]}' -X PATCH >/dev/null
node screenshots.mjs "$images"
for image in "$images"/*.png; do
    [ "$(wc -c <"$image")" -le 153600 ] || { echo "$image is larger than 150 KiB" >&2; exit 1; }
done
