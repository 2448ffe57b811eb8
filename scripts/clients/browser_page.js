// What a page of a shop does that has the SDK from npm, configured as docs/sending.md says.
import { AnalyticsBrowser } from "@segment/analytics-next";

const { writeKey, host } = document.currentScript.dataset;
const analytics = AnalyticsBrowser.load(
  { writeKey, cdnURL: `http://${host}` },
  { integrations: { "Segment.io": { apiHost: `${host}/v1`, protocol: "http" } } },
);
analytics.page("Shop");
analytics.track("Cart Viewed");
analytics.identify("browser", { email: "browser@example.org", plan: "pro" });
analytics.track("Order Completed", { revenue: 9.5 });
