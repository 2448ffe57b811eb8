"""Sends with Segment's SDK and two that were made after it, then defines and reads with a client that was generated from the description."""

import importlib
import os
import pkgutil
import time

import customerio.analytics
import rudderstack.analytics
import segment.analytics as analytics

URL, TOKEN, WRITE_KEY = (os.environ[name] for name in ("URL", "TOKEN", "WRITE_KEY"))

analytics.write_key = WRITE_KEY
analytics.host = URL
analytics.identify("python", {"email": "python@example.org", "plan": "free"})
analytics.track("python", "Order Completed", {"revenue": 7})
analytics.flush()

customerio.analytics.write_key = rudderstack.analytics.write_key = WRITE_KEY
customerio.analytics.host = rudderstack.analytics.dataPlaneUrl = URL
for name, sdk in (("customerio", customerio.analytics), ("rudderstack", rudderstack.analytics)):
    sdk.identify(name, {"email": f"{name}@example.org"})
    sdk.track(name, "Order Completed", {"revenue": 7})
    sdk.flush()

import generated.api  # noqa: E402
from generated import AuthenticatedClient  # noqa: E402

client = AuthenticatedClient(base_url=URL, token=TOKEN)


def operation(name):
    """A generated function, in whichever group of the description it is."""
    for group in pkgutil.iter_modules(generated.api.__path__):
        try:
            return importlib.import_module(f"generated.api.{group.name}.{name}")
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"there is no operation {name}")


from generated.models import NewDefinition  # noqa: E402

body = NewDefinition.from_dict({"key": "python_buyers", "definition": {"query": "event('Order Completed').count() >= 1"}})
made = operation("create_audience").sync_detailed(space="default", client=client, body=body)
assert made.status_code == 201, made.content
for _ in range(100):
    sizes = operation("list_sizes").sync(space="default", client=client)
    size = next((one.size for one in sizes.data if one.key == "python_buyers"), 0)
    if size >= 3:
        break
    time.sleep(0.05)
assert size == 3, sizes
for name in ("python", "customerio", "rudderstack"):
    traits = operation("get_traits").sync_detailed(space="default", collection="users", profile=f"user_id:{name}", client=client)
    assert f"{name}@example.org".encode() in traits.content, traits.content
print("all as described")
