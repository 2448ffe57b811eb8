"""Checks a server from outside against data whose answers are known. See acceptance.sh.

Every scenario has a server of its own: a new data folder, its private Postgres, a free port. Half of the definitions
are made before the events, so that they are computed live, half after, so that they are computed from history.
"""

import csv
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path

WRITE_KEY, TOKEN, SPACE = "wk_test", "tok_acceptance", "default"
SEED = 20_240_301
READY_WITHIN, SETTLED_WITHIN = 120, 600
failures = []


def check(what, found, wanted):
    right = found == wanted
    print(f"  {'ok   ' if right else 'WRONG'} {what}: {found}" + ("" if right else f", expected {wanted}"), flush=True)
    if not right:
        failures.append(what)


class Server:
    """A server in a folder of its own, stopped and removed at the end."""

    def __init__(self, binary):
        self.binary, self.folder = binary, tempfile.mkdtemp(prefix="personas-acceptance-")
        # As root, Postgres runs under another account, which has to be able to enter.
        os.chmod(self.folder, 0o755)

    def __enter__(self):
        own = {name: value for name, value in os.environ.items()
               if not name.startswith("PERSONAS_") or name == "PERSONAS_POSTGRES_BIN"}
        own.pop("DATABASE_URL", None)
        self.environment = environment = own | {
            "PERSONAS_DATA_DIR": f"{self.folder}/data", "PERSONAS_LISTEN": "127.0.0.1:0",
            "PERSONAS_BOOTSTRAP_SPACE": SPACE, "PERSONAS_BOOTSTRAP_WRITE_KEY": WRITE_KEY,
            "PERSONAS_BOOTSTRAP_TOKEN": TOKEN, "PERSONAS_TELEMETRY_LOG": "error",
        }
        # The folder is the current one, so that no configuration file is found by accident.
        self.process = subprocess.Popen([self.binary, "serve"], cwd=self.folder, env=environment, text=True,
                                        stdout=subprocess.PIPE)
        greeting = self.process.stdout.readline()
        if "http://" not in greeting:
            self.__exit__()
            sys.exit("acceptance: the server did not start")
        self.url = "http://" + greeting.split("http://")[1].split()[0]
        self.wait(READY_WITHIN, "ready", lambda: self.raw("GET", "/readyz")[0] == 200)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def verify(self):
        """Stops the server and lets `personas verify` compare everything with the log."""
        self.process.terminate()
        self.process.wait(60)
        ended = subprocess.run([self.binary, "verify"], cwd=self.folder, env=self.environment, text=True,
                               capture_output=True)
        said = ended.stdout.strip() + ended.stderr.strip()
        check("what is stored is what the log says", (ended.returncode, "0 differ" in said), (0, True))
        print(f"  {said}")

    def wait(self, seconds, what, done):
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise SystemExit(f"acceptance: not {what} within {seconds} s")
            time.sleep(0.1)

    def raw(self, method, path, body=None, headers=None):
        """Status, headers, body of any request."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers, answer.read()

    def call(self, method, path, body=None):
        """JSON of a management call that has to succeed."""
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        status, _, text = self.raw(method, f"/v1/spaces/{SPACE}{path}", sent, headers)
        if status >= 300:
            raise SystemExit(f"acceptance: {method} {path} was answered {status}: {text.decode(errors='replace')}")
        # Numbers stay as they are written: sums are compared to the cent.
        return json.loads(text, parse_float=Decimal) if text else None

    def rows(self, path):
        """Every row of a list."""
        cursor = ""
        while cursor is not None:
            page = self.call("GET", f"{path}?limit=1000{cursor}")
            yield from page["data"]
            follows = page["cursor"]
            cursor = f"&cursor={follows['next']}" if follows["has_more"] else None

    def define(self, kind, definitions):
        for key, query in definitions:
            self.call("POST", f"/{kind}", {"key": key, "definition": {"type": "users", "query": query}})

    def settle(self):
        """Waits until everything received is processed and every definition is live."""
        def is_settled():
            pipeline = self.call("GET", "/pipeline")
            return pipeline["lag_events"] == 0 and not pipeline["backfills"]
        self.wait(SETTLED_WITHIN, "settled", is_settled)
        for kind in ("audiences", "computed-traits"):
            for definition in self.rows(f"/{kind}"):
                if definition["status"] != "live":
                    check(f"{definition['key']} is live", definition["status"], "live")

    def load(self, file):
        """`personas import`; the closing count by word."""
        environment = os.environ | {"PERSONAS_URL": self.url, "PERSONAS_WRITE_KEY": WRITE_KEY}
        ended = subprocess.run([self.binary, "import", str(file)], env=environment, text=True, capture_output=True)
        if ended.returncode != 0:
            raise SystemExit(f"acceptance: the import failed: {ended.stderr}")
        words = [line.split() for line in ended.stdout.splitlines()[1:]]
        return {word: int(count) for word, count in words}


TRAITS = [
    ("orders", "event('Order Completed').count()"),
    ("revenue", "event('Order Completed').sum(property('revenue'))"),
]
AUDIENCES = [
    ("often", "event('Order Completed').count() >= 10"),
    ("much", "event('Order Completed').sum(property('revenue')) >= 1000"),
    ("june", "event('Order Completed').between(1998-06-01, 1998-07-01).count() >= 1"),
]


def totals(binary, file, events, duplicates):
    """The published totals of the whole file."""
    with Server(binary) as server:
        server.define("computed-traits", TRAITS[:1])
        server.define("audiences", AUDIENCES[:2])
        started = time.monotonic()
        counts = server.load(file)
        took = time.monotonic() - started
        server.define("computed-traits", TRAITS[1:])
        server.define("audiences", AUDIENCES[2:])
        server.settle()
        print(f"  sent {sum(counts.values())} events in {took:.1f} s")
        check("accepted, duplicate, rejected", counts, {"accepted": events, "duplicate": duplicates, "rejected": 0})
        pipeline = server.call("GET", "/pipeline")
        check("user profiles", pipeline["profiles"]["users"], 23_570)
        check("duplicates", pipeline["duplicates"], duplicates)
        orders = [row["value"] for row in server.rows("/computed-traits/orders/values")]
        # Who never ordered has the value 0, and there is nobody like that.
        check("customers with orders", sum(1 for count in orders if count > 0), 23_570)
        check("orders", sum(orders), 69_659)
        revenue = [Decimal(row["value"]) for row in server.rows("/computed-traits/revenue/values")]
        check("revenue", sum(revenue), Decimal("2500315.63"))
        sizes = {row["key"]: row["size"] for row in server.call("GET", "/audiences/sizes")["data"]}
        check("audiences", sizes, {"often": 1_154, "much": 200, "june": 1_506})
        for key, size in sizes.items():
            members = [row["profile_id"] for row in server.rows(f"/audiences/{key}/members")]
            check(f"distinct members of {key}", len(set(members)), size)
        server.verify()


def shuffled(file, folder):
    """The same lines in another order, a fifth of them twice."""
    with gzip.open(file, "rt") as lines:
        lines = lines.read().splitlines()
    chance = random.Random(SEED)
    again = chance.sample(lines, len(lines) // 5)
    mixed = lines + again
    chance.shuffle(mixed)
    path = Path(folder) / "shuffled.jsonl"
    path.write_text("\n".join(mixed) + "\n")
    return path, len(lines), len(again)


SAMPLE = [
    ("orders", "orders", "event('Order Completed').count()"),
    ("units", "units", "event('Order Completed').sum(property('quantity'))"),
    ("revenue", "revenue", "event('Order Completed').sum(property('revenue'))"),
    ("max_order", "max_order", "event('Order Completed').max(property('revenue'))"),
    ("first_order", "first_order_at", "event('Order Completed').first(timestamp())"),
    ("last_order", "last_order_at", "event('Order Completed').last(timestamp())"),
]


def customers(binary, data):
    """What is expected of every single customer of the sample."""
    with Server(binary) as server, open(data / "cdnow_sample_expected.csv", newline="") as table:
        half = len(SAMPLE) // 2
        definitions = [(key, query) for _, key, query in SAMPLE]
        server.define("computed-traits", definitions[:half])
        server.load(data / "cdnow_sample.jsonl.gz")
        server.define("computed-traits", definitions[half:])
        server.settle()
        values = {key: {row["profile_id"]: row["value"] for row in server.rows(f"/computed-traits/{key}/values")}
                  for key, _ in definitions}
        found, wrong = 0, []
        for row in csv.DictReader(table):
            profile = f"user_id:cdnows-{row['customer']}"
            identity = server.call("GET", f"/collections/users/profiles/{profile}/metadata")
            found += 1
            for column, key, _ in SAMPLE:
                value, wanted = values[key].get(identity["metadata"]["profile_id"]), row[column]
                right = value[:10] == wanted if key.endswith("_at") else Decimal(value) == Decimal(wanted)
                if not right:
                    wrong.append(f"{profile} {key}: {value}, expected {wanted}")
        check("customers", found, 2_357)
        check("customers' values that differ", wrong[:5], [])


def recordings(binary, folder):
    """Everything SDKs were recorded sending is taken, and counts once however often it was sent."""
    with Server(binary) as server:
        sent, refused, distinct = 0, 0, set()
        for file in sorted(folder.glob("*.jsonl")):
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    call = json.loads(line)
                    if call["method"] != "POST" or not call["body"]:
                        continue
                    accepted, ids, over = replay(server, call, f"{file.name} {call['seq']}")
                    sent += accepted
                    refused += over
                    distinct |= ids
        server.settle()
        pipeline = server.call("GET", "/pipeline")
        print(f"  {sent} events were sent, {len(distinct)} of them different, {refused} were refused for a limit they break")
        check("stored", pipeline["log_end_offset"], sent)
        check("counted", sent - pipeline["duplicates"], len(distinct))


def replay(server, call, name):
    """Sends one recorded request. How many events were taken, their message ids, how many were refused."""
    body = call["body"].encode("utf-8", "surrogatepass")
    skipped = ("host", "content-length", "accept-encoding", "connection")
    headers = {key: value for key, value in call["headers"].items() if key.lower() not in skipped}
    sent = json.loads(call["body"])
    if call["contentEncoding"] == "gzip":
        body = gzip.compress(body)
    status, _, text = server.raw("POST", call["path"], body, headers)
    if call["path"].split("?")[0].rstrip("/") == "/v1/m":
        check(f"{name} status", status, 200)
        return 0, set(), 0
    events = sent["batch"] if isinstance(sent.get("batch"), list) else [sent]
    answer = json.loads(text)
    rejected = answer.get("rejected", [])
    if status != 200 and not rejected:
        rejected = [{"index": index, "code": answer.get("code")} for index in range(len(events))]
    for item in rejected:
        if not breaks_limit(events[item["index"]], item["code"]):
            check(f"{name} refused", item, "nothing but what breaks a documented limit")
    refused = {item["index"] for item in rejected}
    if status != 200 and len(refused) < len(events):
        check(f"{name} status", status, 200)
    ids = {event["messageId"] for index, event in enumerate(events) if index not in refused}
    return len(events) - len(refused), ids, len(refused)


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def numbers(value):
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def breaks_limit(event, code):
    """Whether the event is what the code says: the recorded scripts try what no service takes, too."""
    # Some SDKs count the bytes before they add to them, so that 32 KiB is not exact here.
    size = len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    return {
        "payload_too_large": size > 32_000,
        "json_too_deep": depth(event) > 32,
        "number_out_of_range": any(len(str(abs(n))) > 40 or abs(n) > 1e307 for n in numbers(event)),
        "event_name_too_long": len(str(event.get("event", ""))) > 255,
        "timestamp_out_of_range": str(event.get("timestamp", "")) < "1970",
    }.get(code, False)


def main():
    binary, shared = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).resolve()
    wanted = sys.argv[3:] or ["totals", "shuffled", "sample", "recordings"]
    data = shared / "data"
    with tempfile.TemporaryDirectory(prefix="personas-acceptance-") as folder:
        # A copy: the journal of an import stands beside its file.
        master = Path(shutil.copy(data / "cdnow_master.jsonl.gz", folder))
        if "totals" in wanted:
            print("all purchases, in order")
            totals(binary, master, 93_229, 0)
        if "shuffled" in wanted:
            print("all purchases, shuffled, a fifth sent twice")
            path, events, again = shuffled(master, folder)
            totals(binary, path, events, again)
        if "sample" in wanted and (data / "cdnow_sample_expected.csv").is_file():
            print("every customer of the sample")
            customers(binary, data)
    if "recordings" in wanted and (shared / "recordings").is_dir():
        print("what SDKs were recorded sending")
        recordings(binary, shared / "recordings")
    if failures:
        sys.exit(f"acceptance: {len(failures)} checks failed")
    print("acceptance: all as published")


main()
