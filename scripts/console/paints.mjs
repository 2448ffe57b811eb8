// How soon each page of a running console is seen and how much it loads, warm, the middle of five times; ends with 1 when a page takes
// more than half a second or weighs more than 200 KiB. CONSOLE_URL, CONSOLE_TOKEN, CONSOLE_SPACE and CHROMIUM say where.
import { measure, open, pages, signIn, start } from "./browser.mjs";

const SPACE = process.env.CONSOLE_SPACE ?? "default";
const TIMES = 5;

const browser = await start();
const page = await open(browser);
await signIn(page, SPACE);
let tooMuch = 0;
for (const [name, address] of await pages(SPACE)) {
  const seen = [];
  for (let n = 0; n < TIMES; n++) {
    await page.goto(address);
    seen.push(await measure(page));
  }
  seen.sort((a, b) => a.paint - b.paint);
  const { paint, bytes } = seen[Math.floor(TIMES / 2)];
  console.log(`${name.padEnd(14)} ${paint.toFixed(0).padStart(5)} ms (at most ${seen[TIMES - 1].paint.toFixed(0)})  ${(bytes / 1024).toFixed(0).padStart(4)} KiB`);
  if (paint > 500 || bytes > 200 * 1024) tooMuch = 1;
}
await browser.close();
process.exit(tooMuch);
