// What the walk and the screenshots share: a browser without a window, a way in, and what is looked at on every page.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

export const PLACE = process.env.CONSOLE_URL;
export const TOKEN = process.env.CONSOLE_TOKEN;

/** Starts the browser; `CHROMIUM` is its path. As root it has no sandbox, and needs none: it sees only our own pages. */
export async function start() {
  const args = ["--disable-dev-shm-usage", "--force-color-profile=srgb", "--font-render-hinting=none"];
  if (process.getuid?.() === 0) args.push("--no-sandbox");
  return puppeteer.launch({ executablePath: process.env.CHROMIUM, args, pipe: true, headless: true });
}

/** A page whose complaints are kept: refused by its policy, not found, failed scripts. */
export async function open(browser, { width = 1280, height = 800, dark = false } = {}) {
  const page = await browser.newPage();
  page.complaints = [];
  page.on("console", (message) => { if (message.type() === "error") page.complaints.push(`${message.text()} ${message.location().url}`); });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("dialog", (dialog) => { page.complaints.push(`somebody's script ran: ${dialog.message()}`); dialog.dismiss(); });
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  return page;
}

/** Signs in as people without a mouse do. */
export async function signIn(page, space) {
  await page.goto(`${PLACE}/console/sign-in?to=/console/s/${space}`);
  await page.type("#token", TOKEN);
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  if (!new URL(page.url()).pathname.startsWith("/console/s/")) throw new Error(`not signed in: ${page.url()}`);
}

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What is seriously wrong with a page for those who see or hear it otherwise. */
export async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} (${node.failureSummary.split("\n")[1]?.trim()})`).join("; ")}`);
}

/** How long until something was seen, in milliseconds; how much was loaded, in bytes; whether the page is wider than the window. */
export async function measure(page) {
  await page.bringToFront();
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  return page.evaluate(measured);
}

function measured() {
  const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((entry) => entry.initiatorType !== "fetch");
  return {
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
    bytes: loaded.reduce((sum, entry) => sum + entry.decodedBodySize, 0),
    tooWide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
}

/** The first profile of a space, and the pages worth looking at. */
export async function pages(space) {
  const ask = async (path) => {
    const answer = await fetch(`${PLACE}/v1/spaces/${space}${path}`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return (await answer.json()).data ?? [];
  };
  const [audiences, traits, destinations] = await Promise.all(["/audiences", "/computed-traits", "/destinations"].map(ask));
  const fixed = { overview: "", live: "/live", profiles: "/profiles", audiences: "/audiences", traits: "/traits", destinations: "/destinations",
    identity: "/identity", privacy: "/privacy", audit: "/audit", settings: "/settings", usage: "/usage", builder: "/audiences/new-one" };
  if (audiences.length) {
    const { key } = audiences[audiences.length - 1];
    fixed.audience = `/audiences/${key}`;
    fixed.edit = `/audiences/${key}/edit`;
    const [member] = await ask(`/audiences/${key}/members?limit=1`);
    if (member) {
      fixed.profile = `/profiles/users/profile_id:${member.profile_id}`;
      fixed.why = `${fixed.profile}/explain/${key}`;
    }
  }
  if (traits.length) fixed.trait = `/traits/${traits[0].key}`;
  if (destinations.length) fixed.destination = `/destinations/${destinations[0].id}`;
  return Object.entries(fixed).map(([name, path]) => [name, `${PLACE}/console/s/${space}${path}`]);
}
