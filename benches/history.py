#!/usr/bin/env python3
"""Previews and new audiences over a long history, beside DuckDB on the same events (goals G8 and G8b).

    cargo build --release && pip install duckdb && python3 benches/history.py target/release/personas

Makes 5 million events of 100,000 users within 90 days, in order of time: a Parquet file with typed columns, read by DuckDB on
one thread, and a log, filled by `personas import`. Every round asks both the same question, and the answers have to be
equal. What is compared is the median of the rounds; the first round, with everything cold, is not counted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import duckdb

NOW = "2026-01-01T00:00:00.000Z"
SPACE = "/v1/spaces/default"
NAMES = 20
QUESTIONS = {
    # At most 3 times DuckDB's time.
    "G8": (
        3.0,
        "event('Event 14').where(property('revenue') > 50).within(30 days).count() >= 3",
        "select count(*) from (select user_id from events where event = 'Event 14' and revenue > 50"
        " and ts >= timestamp '2026-01-01' - interval 30 day group by user_id having count(*) >= 3)",
    ),
    # Nothing can be left out: at most 4 times.
    "G8b": (
        4.0,
        "event('*').within(90 days).count() >= 60",
        "select count(*) from (select user_id from events where ts >= timestamp '2026-01-01' - interval 90 day"
        " group by user_id having count(*) >= 60)",
    ),
}


def make(folder, count, users):
    """The events, as Parquet and as lines of JSON."""
    db = duckdb.connect()
    db.execute("select setseed(0.42)")
    db.execute(f"""
        create table events as
        select i, date_trunc('milliseconds', timestamp '2026-01-01' - interval 90 day
                + to_milliseconds((i + 0.5) * 90 * 86400000 / {count})) as ts,
            'user-' || cast(floor(random() * random() * {users}) as int) as user_id,
            'Event ' || cast(floor(random() * {NAMES}) as int) as event,
            cast(floor(random() * 20000) as int) / 100.0 as revenue,
            cast(1 + floor(random() * 5) as int) as quantity, 'category-' || cast(floor(random() * 40) as int) as category,
            'p-' || cast(floor(random() * 5000) as int) as product_id, md5(cast(i as text)) as session
        from range({count}) r(i)""")
    db.execute(f"copy (select * from events order by i) to '{folder}/events.parquet' (format parquet)")
    db.execute(f"""copy (
        select json_object('type', 'track', 'messageId', md5('m' || i), 'userId', user_id, 'event', event,
            'timestamp', strftime(ts, '%Y-%m-%dT%H:%M:%S.%gZ'),
            'properties', json_object('revenue', revenue, 'quantity', quantity, 'category', category,
                'product_id', product_id, 'session', session, 'currency', 'EUR', 'sku', 'S-' || product_id,
                'url', 'https://shop.example.com/p/' || product_id || '?ref=' || session),
            'context', json_object('locale', 'en-GB', 'ip', '192.0.2.1', 'userAgent', 'Mozilla/5.0 (X11; Linux x86_64)'))
        from events order by i) to '{folder}/events.ndjson' (format csv, header false, quote '', escape '', delimiter '\x1f')""")
    db.close()


class Server:
    def __init__(self, binary, folder):
        self.folder = folder
        self.url = "http://127.0.0.1:18123"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PERSONAS_") and k != "DATABASE_URL"}
        self.environment = environment | {
            "PERSONAS_LISTEN": "127.0.0.1:18123", "PERSONAS_DATA_DIR": f"{folder}/data", "PERSONAS_TOKEN": "tok",
            "PERSONAS_BOOTSTRAP_WRITE_KEY": "wk", "PERSONAS_BOOTSTRAP_TOKEN": "tok", "PERSONAS_TELEMETRY_LOG": "warn",
        }
        self.process = subprocess.Popen([binary, "serve", "--test-clock", NOW], env=self.environment)
        while True:
            try:
                urllib.request.urlopen(self.url + "/readyz")
                break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("the server ended")
                time.sleep(0.1)

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.url + SPACE + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer tok", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def ask_personas(server, query):
    began = time.perf_counter()
    answer = server.call("POST", "/audiences/preview", {"definition": {"type": "users", "query": query}})
    return time.perf_counter() - began, answer["size"]


def ask_duckdb(db, sql):
    began = time.perf_counter()
    (size,) = db.execute(sql).fetchone()
    return time.perf_counter() - began, size


def backfill(server, key, query):
    """Seconds until a new audience answers, and its size."""
    began = time.perf_counter()
    server.call("POST", "/audiences", {"key": key, "definition": {"type": "users", "query": query}})
    while server.call("GET", f"/audiences/{key}")["status"] != "live":
        time.sleep(0.005)
    took = time.perf_counter() - began
    size = server.call("GET", f"/audiences/{key}/size")["size"]
    server.call("DELETE", f"/audiences/{key}")
    return took, size


def wait_for(server, what, done):
    print(what, file=sys.stderr)
    began = time.perf_counter()
    while not done(server.call("GET", "/pipeline")):
        time.sleep(0.5)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", metavar="FOLDER", help="keep the events and the log in this folder, and use what is there")
    options = parser.parse_args()
    folder = options.keep or tempfile.mkdtemp(prefix="personas-history-")
    os.makedirs(folder, mode=0o755, exist_ok=True)
    os.chmod(folder, 0o755)
    binary = os.path.abspath(options.binary)
    is_new = not os.path.exists(f"{folder}/data")
    if is_new:
        print("making the events", file=sys.stderr)
        make(folder, options.events, options.users)
    server = Server(binary, folder)
    try:
        if is_new:
            subprocess.run([binary, "import", "--url", server.url, "--write-key", "wk", f"{folder}/events.ndjson"],
                           check=True, env=server.environment)
        wait_for(server, "processing", lambda p: p["lag_events"] == 0 and p["log_end_offset"] >= options.events)
        took = wait_for(server, "making segments",
                        lambda p: p["segments_end_offset"] > options.events - 70_000)
        print(f"segments took {took:.0f} s after the last event was processed")
        db = duckdb.connect()
        db.execute("set threads to 1")
        db.execute(f"create view events as select * from read_parquet('{folder}/events.parquet')")
        failed = False
        for goal, (most, query, sql) in QUESTIONS.items():
            ours, theirs, new = [], [], []
            for n in range(options.rounds + 1):
                mine, other, made = ask_personas(server, query), ask_duckdb(db, sql), backfill(server, f"a{n}", query)
                if not mine[1] == other[1] == made[1]:
                    sys.exit(f"{goal}: a preview says {mine[1]}, DuckDB {other[1]}, an audience {made[1]}")
                if n > 0:
                    ours.append(mine[0]), theirs.append(other[0]), new.append(made[0])
            a, b, c = statistics.median(ours), statistics.median(theirs), statistics.median(new)
            failed |= a / b > most
            print(f"{goal}: preview {a * 1e3:.0f} ms ({min(ours) * 1e3:.0f}-{max(ours) * 1e3:.0f}), DuckDB {b * 1e3:.0f} ms"
                  f" ({min(theirs) * 1e3:.0f}-{max(theirs) * 1e3:.0f}): {a / b:.2f}, at most {most:.0f};"
                  f" a new audience serves after {c * 1e3:.0f} ms: {c / b:.2f}; {mine[1]} members")
        sys.exit(failed)
    finally:
        server.stop()
        if not options.keep:
            shutil.rmtree(folder)


main()
