"""Fills a fresh server with some of everything, and prints its description with what there is as the values of paths: else most
generated requests would be about things that do not exist.

    python3 scripts/schemathesis.py URL TOKEN WRITE_KEY < docs/openapi.json > description.json
"""

import json
import sys
import time
import urllib.request

SPACES = ["default", "second", "third"]


def main():
    url, token, write_key = sys.argv[1:]
    server = Server(url, token)
    keys = {"default": write_key}
    for space in SPACES[1:]:
        server.call("POST", "/v1/spaces", {"id": space, "name": space})
        made = server.call("POST", f"/v1/spaces/{space}/sources", {"name": "web"})
        keys[space] = made["write_key"]
    known = {}
    for space in SPACES:
        for name, values in fill(server, space, keys[space]).items():
            known.setdefault(name, []).extend(values)
    description = json.load(sys.stdin)
    for path, item in description["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                values = known.get(of(path, parameter["name"]))
                if parameter["in"] == "path" and values:
                    parameter["schema"] = {"type": "string", "enum": sorted(set(values))}
            # A read that waits for events nobody has sent gives up after ten seconds: tests of their own look at that.
            operation["parameters"] = [p for p in operation.get("parameters", []) if p["name"] != "min_offset"]
    json.dump(description, sys.stdout)


def of(path, name):
    """What a parameter of a path is about: `id` is many things."""
    if name not in ("id", "key", "other"):
        return name
    before = path.split("{" + name + "}")[0].rstrip("/").split("/")[-1]
    return "audiences" if name == "other" or before == "explain" else before


class Server:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, path, body=None, key=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {key or self.token}")
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, data) as answer:
            text = answer.read()
            self.offset = answer.headers.get("Personas-Offset")
            return json.loads(text) if text else None


def fill(server, space, key):
    """Some of everything in a space; the names and ids of it."""
    base = f"/v1/spaces/{space}"
    post = lambda path, body: server.call("POST", base + path, body)
    post("/audiences", {"key": "buyers", "name": "Buyers", "definition": {"query": "event('Order').count() >= 1"}})
    post("/computed-traits", {"key": "spent", "name": "Spent", "definition": {"query": "event('Order').sum(property('total'))"}})
    hook = post("/destinations", {"name": "Hook", "kind": "webhook", "settings": {"url": "https://hook.invalid/"}})
    wanted = {"subject": "audience", "key": "buyers"}
    subscription = post(f"/destinations/{hook['id']}/subscriptions", wanted)
    post("/consent/categories", {"id": "ads", "name": "Ads"})
    send = lambda path, body: server.call("POST", path, body, key)
    for user in ("u1", "u2"):
        send("/v1/identify", {"userId": user, "traits": {"email": f"{user}@example.org", "plan": "pro"}})
        send("/v1/track", {"userId": user, "event": "Order", "properties": {"total": 12.5, "sku": "a"}})
    send("/v1/group", {"userId": "u1", "groupId": "g1", "traits": {"name": "Inc."}})
    send("/v1/track", {"anonymousId": "a1", "event": "Order"})
    offset = server.offset
    get = lambda path: server.call("GET", base + path)
    profile = get(f"/collections/users/profiles/user_id:u1/metadata?min_offset={offset}")
    pair = {"profiles": ["user_id:u2", "anonymous_id:a1"]}
    post("/identity/merges", pair)
    merge = get("/collections/users/profiles/user_id:u2/identity")["merges"][0]["id"]
    regulation = post("/regulations", {"regulation_type": "SUPPRESS_ONLY", "subject_ids": ["nobody"]})
    source = get("/sources")["data"][0]
    token = post("/tokens", {"name": "reader", "role": "viewer"})
    deliveries = wait(lambda: get("/deliveries")["data"])
    return {
        "space": [space],
        "collection": ["users", "accounts"],
        "profile": ["user_id:u1", "user_id:u2", "group_id:g1", "profile_id:" + profile["metadata"]["profile_id"]],
        "audiences": ["buyers"],
        "computed-traits": ["spent"],
        "destinations": [hook["id"]],
        "subscription": [subscription["id"]],
        "category": ["ads"],
        "merge": [merge],
        "regulation": [regulation["id"]],
        "sources": [source["id"]],
        "prefix": [source["write_keys"][0]["prefix"]],
        "tokens": [token["id"]],
        "deliveries": [one["id"] for one in deliveries],
        "selector": ["user_id:nobody"],
        "identifier": ["user_id:u1", "email:u2@example.org"],
        "name": ["Order"],
        "write_key": [key],
    }


def wait(look):
    for _ in range(200):
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit("nothing was to be delivered")


if __name__ == "__main__":
    main()
