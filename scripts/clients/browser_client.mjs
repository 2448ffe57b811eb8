// Sends with Segment's browser SDK from pages in a real browser that come from another host than the service: one page has it from
// npm, the other loads it from the service by Segment's snippet. Then reads what came of it.
import { buildSync } from "esbuild";
import assert from "node:assert";
import { createServer } from "node:http";
import puppeteer from "puppeteer-core";

const { URL: url, TOKEN: token, WRITE_KEY: writeKey, CHROMIUM: executablePath } = process.env;
const host = url.replace("http://", "");
const bundle = buildSync({
  entryPoints: ["browser_page.js"], bundle: true, write: false, format: "iife", define: { "process.env.NODE_ENV": '"production"' }, logLevel: "error",
}).outputFiles[0].text;

// Segment's snippet as it is published, but for the host, which the library takes from the page's address for it where that is https, and
// needs to be told here: calls wait in a list until the library takes them over.
const snippet = `!function(){var i="analytics",analytics=window[i]=window[i]||[];if(!analytics.initialize){
  analytics.invoked=!0;analytics.methods=["track","identify","page","group","alias","ready","reset"];
  analytics.factory=function(e){return function(){var n=Array.prototype.slice.call(arguments);n.unshift(e);analytics.push(n);return analytics}};
  for(var n=0;n<analytics.methods.length;n++){var key=analytics.methods[n];analytics[key]=analytics.factory(key)}
  analytics.load=function(key,n){var t=document.createElement("script");t.type="text/javascript";t.async=!0;t.setAttribute("data-global-segment-analytics-key",i);
    t.src="${url}/analytics.js/v1/"+key+"/analytics.min.js";document.head.appendChild(t);analytics._loadOptions=n};
  analytics._writeKey="${writeKey}";analytics._cdn="${url}";analytics.load("${writeKey}");analytics.page();
  analytics.identify("snippet",{plan:"free"});analytics.track("Order Completed",{revenue:3});
}}();`;
const pages = {
  "/npm": ["text/html", `<!doctype html><title>Shop</title><script src="/bundle.js" data-write-key="${writeKey}" data-host="${host}"></script>`],
  "/snippet": ["text/html", `<!doctype html><title>Shop</title><script>${snippet}</script>`],
  "/bundle.js": ["text/javascript", bundle],
};
const shop = createServer((request, response) => {
  const [type, body] = pages[new URL(request.url, "http://shop").pathname] ?? [];
  response.writeHead(type ? 200 : 404, { "content-type": `${type ?? "text/plain"}; charset=utf-8` }).end(body);
});
await new Promise((done) => shop.listen(0, "127.0.0.1", done));

const profiles = `${url}/v1/spaces/default/collections/users/profiles`;
const read = async (path) => (await fetch(`${profiles}${path}`, { headers: { authorization: `Bearer ${token}` } })).json();
/** A profile's events, once there are as many as wanted. */
async function events(who, wanted) {
  let seen = [];
  for (let tries = 0; seen.length < wanted && tries < 200; tries++) {
    seen = (await read(`/user_id:${who}/events`)).data ?? [];
    if (seen.length < wanted) await new Promise((done) => setTimeout(done, 50));
  }
  return seen;
}

const args = ["--disable-dev-shm-usage", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])];
const browser = await puppeteer.launch({ executablePath, args, pipe: true, headless: true });
try {
  const complaints = [];
  const asked = new Set();
  for (const name of ["npm", "snippet"]) {
    // Nothing of the one page is known to the other.
    const page = await (await browser.createBrowserContext()).newPage();
    page.on("pageerror", (error) => complaints.push(`${name}: ${error}`));
    page.on("console", (message) => { if (message.type() === "error") complaints.push(`${name}: ${message.text()} ${message.location().url}`); });
    page.on("request", (request) => asked.add(new URL(request.url()).host));
    await page.goto(`http://127.0.0.1:${shop.address().port}/${name}`);
    // What was done before one is known is theirs, too.
    const wanted = ["identify", "page", ...(name === "npm" ? ["track Cart Viewed"] : []), "track Order Completed"];
    const seen = await events(name === "npm" ? "browser" : "snippet", wanted.length);
    const told = seen.map((event) => (event.type === "track" ? `track ${event.event}` : event.type)).sort();
    assert.deepEqual(told, wanted, `${JSON.stringify(seen)} ${complaints}`);
  }
  const { traits } = await read("/user_id:browser/traits");
  assert.equal(traits.plan, "pro");
  assert.equal(traits.email, "browser@example.org");
  assert.deepEqual(complaints.filter((complaint) => !complaint.includes("favicon")), []);
  assert.deepEqual([...asked].sort(), [host, `127.0.0.1:${shop.address().port}`].sort(), "somebody else was asked");
} finally {
  await browser.close();
  shop.close();
}
console.log("all as described");
