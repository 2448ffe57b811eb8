// Sends with Segment's SDK, then defines and reads with a client that knows the interface by its description alone.
import { Analytics } from "@segment/analytics-node";
import createClient from "openapi-fetch";
import assert from "node:assert";
import type { paths } from "./schema.d.ts";

const { URL: url, TOKEN: token, WRITE_KEY: writeKey } = process.env as Record<string, string>;

const analytics = new Analytics({ writeKey, host: url });
analytics.identify({ userId: "node", traits: { email: "node@example.org", plan: "pro" } });
analytics.track({ userId: "node", event: "Order Completed", properties: { revenue: 12.5 } });
await analytics.closeAndFlush();

const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const space = "default";
const made = await api.POST("/v1/spaces/{space}/audiences", {
  params: { path: { space } },
  body: { key: "node_buyers", definition: { query: "event('Order Completed').count() >= 1" } },
});
assert.equal(made.response.status, 201, JSON.stringify(made.error));

let size = 0;
for (let tries = 0; size === 0 && tries < 100; tries++) {
  const sizes = await api.GET("/v1/spaces/{space}/audiences/sizes", { params: { path: { space } } });
  size = sizes.data?.data.find((one) => one.key === "node_buyers")?.size ?? 0;
  await new Promise((done) => setTimeout(done, 50));
}
assert.ok(size >= 1);
const traits = await api.GET("/v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits", {
  params: { path: { space, collection: "users", profile: "user_id:node" } },
});
assert.equal((traits.data?.traits as Record<string, unknown>).plan, "pro");
const refused = await api.POST("/v1/spaces/{space}/audiences", {
  params: { path: { space } },
  body: { key: "wrong", definition: { query: "event('x').count( >=" } },
});
assert.equal(refused.response.status, 422);
console.log("all as described");
