// Pictures of every page, light and, of some, dark and on a phone, into the folder that is named.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { open, pages, signIn, start } from "./browser.mjs";

const [folder] = process.argv.slice(2);
const SPACE = process.env.CONSOLE_SPACE ?? "default";
const ALSO = ["overview", "audience", "builder"];
const SCREEN = { width: 1160, height: 720 };

await mkdir(folder, { recursive: true });
const browser = await start();
await signIn(await open(browser), SPACE);
for (const [suffix, kind] of [["", SCREEN], ["-dark", { ...SCREEN, dark: true }], ["-phone", { width: 390, height: 780 }]]) {
  const page = await open(browser, kind);
  for (const [name, address] of await pages(SPACE)) {
    if (suffix && !ALSO.includes(name)) continue;
    await page.goto(address);
    // What a script adds comes a moment later.
    if (name === "live") await page.waitForSelector("[data-list] tr");
    if (name === "edit") await page.waitForSelector("[data-result] .big");
    if (name === "builder") {
      await page.focus("textarea");
      await page.keyboard.type("event('Order Completed').within(30 days).sum(property('total')) >= 100\nAND event('Product Viewed').count() >= 3");
      await page.keyboard.press("Escape");
      await page.waitForSelector("[data-result] .big");
    }
    await page.screenshot({ path: join(folder, `${name}${suffix}.png`), optimizeForSpeed: false });
    if (name === "profile") await (await page.$("#identity")).screenshot({ path: join(folder, `identity-of-a-profile${suffix}.png`) });
    console.log(`${name}${suffix}`);
  }
  await page.close();
}
await browser.close();
