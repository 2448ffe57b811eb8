# To be sourced: starts $personas as a server of its own, whose folder ($data) is thrown away at the end, and says where it and Chromium are.
# Needs PERSONAS_LISTEN, PERSONAS_BOOTSTRAP_TOKEN; what else the server is to be told is exported before.
data=$(mktemp -d)
# Started as root, the private Postgres runs under an account of its own, which has to get there.
chmod 755 "$data"
server=
finish() { if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server"; fi; rm -rf "$data"; }
trap finish EXIT

export PERSONAS_DATA_DIR="$data/data" PERSONAS_LISTEN PERSONAS_BOOTSTRAP_TOKEN
export CONSOLE_URL="http://$PERSONAS_LISTEN" CONSOLE_TOKEN=$PERSONAS_BOOTSTRAP_TOKEN
CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"
export CHROMIUM
"$personas" serve >"$data/log" 2>&1 &
server=$!
until curl -sf "$CONSOLE_URL/readyz" >/dev/null; do kill -0 "$server" || { cat "$data/log" >&2; exit 1; }; sleep 0.2; done
