// A newcomer's walk through the console in a real browser, from signing in to an audience that fills; then every page is looked
// at: nothing its policy refuses, nothing seriously wrong for those who use it otherwise, light enough, seen soon, on a phone
// not wider than the phone. Ends with 1 and says why if anything of it is not so. Run by tests/it/browser.rs.
import { PLACE, findings, measure, open, pages, signIn, start } from "./browser.mjs";

const SPACE = process.env.CONSOLE_SPACE ?? "default";
const BYTES_MAX = 200 * 1024;
const PAINT_MAX_MS = Number(process.env.CONSOLE_PAINT_MAX_MS ?? 2000);
const HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>";
const wrong = [];
const check = (is, what) => { if (!is) wrong.push(what); };

const browser = await start();
const page = await open(browser);
page.setDefaultTimeout(20_000);
const text = (selector) => page.$eval(selector, (element) => element.textContent.trim());
const seen = (wanted, selector = "main") => page.waitForFunction(
  (selector, wanted) => document.querySelector(selector)?.textContent.includes(wanted), {}, selector, wanted);
const follow = async (selector) => { await Promise.all([page.waitForNavigation(), page.click(selector)]); };
const track = (key, call) => fetch(`${PLACE}/v1/track`, {
  method: "POST", headers: { authorization: `Basic ${btoa(`${key}:`)}` }, body: JSON.stringify(call),
});

try {
  await page.goto(`${PLACE}/console`);
  await page.type("#token", "tok_of_nobody");
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  await seen("There is no such token");
  page.complaints.length = 0;
  await signIn(page, SPACE);
  await seen("Nothing has come in yet");

  // Whoever uses the keyboard gets past the menu.
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement.textContent)) === "Skip to the content", "the first stop is no way past the menu");
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.activeElement.id)) === "main", "it does not lead past the menu");

  // A source, and its key, which is shown once.
  await follow('nav.parts a[href$="/settings"]');
  await page.click("#new-source summary");
  await page.type("#new-source input[name='s:name']", "Shop");
  await follow("#new-source form button");
  const key = /write_key\s*(wk_\w+)/.exec(await text("main"))?.[1];
  check(key, "the page does not show the write key");

  // The events are watched as they come in.
  await follow('nav.parts a[href$="/live"]');
  await seen("Listening.", "[data-state]");
  await track(key, { userId: "ada", event: "Order Completed", properties: { total: 40 } });
  await seen("Order Completed", "[data-list]");
  await track(key, { event: "Nobody's" });
  // Whatever things are called is text, in a page and where scripts write.
  await track(key, { userId: "ada", event: HOSTILE, properties: { [HOSTILE]: HOSTILE } });
  await seen(HOSTILE, "[data-list]");
  await track(key, { event: "", userId: "ada", properties: { [HOSTILE]: HOSTILE } });
  await seen("no_user_anon_id", "[data-list]");
  await page.click("[data-pause]");
  await track(key, { userId: "bob", event: "Cart Viewed" });
  await seen("Paused; 1 wait.", "[data-state]");
  check(!(await text("[data-list]")).includes("Cart Viewed"), "what came in while paused is shown");
  await page.click("[data-pause]");
  await seen("Cart Viewed", "[data-list]");

  // An audience, written with the keyboard, with completion, a mistake and a preview.
  await follow('nav.parts a[href$="/audiences"]');
  await follow('a[href$="/audiences/new-one"]');
  await page.type("input[name='s:key']", "buyers");
  await page.type("input[name='s:name']", "Who has bought");
  await page.focus("textarea");
  await page.waitForFunction(async (address) => (await (await fetch(address)).json()).data.length > 0, { polling: 200 },
    await page.$eval("[data-builder]", (element) => element.dataset.events));
  await page.keyboard.type("event('Ord");
  await page.waitForSelector(".choices:not([hidden]) li");
  await page.keyboard.press("Enter");
  check((await page.$eval("textarea", (area) => area.value)) === "event('Order Completed')", "the name was not completed");
  await page.keyboard.type(".count( >= 1");
  await page.keyboard.press("Escape");
  await seen("Line 1, column", "[data-result]");
  check(await page.$(".hl-wrong"), "the mistake is not underlined");
  await page.$eval("textarea", (area) => { area.value = "event('Order Completed').count() >= 1"; area.dispatchEvent(new Event("input")); });
  await seen("1 now", "[data-result]");
  check(!(await page.$(".hl-wrong")), "what is right is underlined");

  // The form says what the text says, follows it, leaves alone what it cannot show, and writes a text of its own.
  const write = (query) => page.$eval("textarea", (area, query) => { area.value = query; area.dispatchEvent(new Event("input")); }, query);
  const fields = () => page.$$eval("[data-rows] > .row", (rows) => rows.map((row) =>
    [...row.querySelectorAll("input, select")].filter((field) => !field.hidden).map((field) => field.value).join("|")).join("; "));
  await seen("This is what the query says.", "[data-says]");
  check((await fields()) === "event|Order Completed|>=|1|", `the form shows ${await fields()}`);
  await write("trait('zip') = '0123' or TRAIT('n') = 5 or not audience('it\\'s')");
  await page.waitForFunction(() => document.querySelectorAll("[data-rows] > .row").length === 3);
  check((await fields()) === "trait|zip|=|'0123'; trait|n|=|5; audience|out|it's", `the form shows ${await fields()}`);
  check((await page.$eval("[data-join]", (join) => join.value)) === "or", "the form does not say that any is enough");
  const numbers = "trait('n') = 10000000000000000 OR trait('m') = 0.123456789012345";
  await write(numbers);
  await page.waitForFunction(() => document.querySelectorAll("[data-rows] > .row").length === 2);
  check((await fields()) === "trait|n|=|10000000000000000; trait|m|=|0.123456789012345", `the form shows ${await fields()}`);
  await page.click("[data-write]");
  await seen("This is what the query says.", "[data-says]");
  check((await page.$eval("textarea", (area) => area.value)).replace(/\s+/g, " ") === numbers, "the form cannot write what it has read");
  // What is put together and not written is not thrown away; what is not right is not written.
  await page.type("[data-rows] .row:last-child input[aria-label='value']", "78901");
  await write("audience('vip')");
  await page.waitForSelector("[data-reread]:not([hidden])");
  check((await fields()) === "trait|n|=|10000000000000000; trait|m|=|0.12345678901234578901", `the form shows ${await fields()}`);
  await page.click("[data-write]");
  await seen("15 digits", "[data-says]");
  check((await page.$eval("textarea", (area) => area.value)) === "audience('vip')", "a number that loses digits was written");
  await page.click("[data-reread]");
  await seen("This is what the query says.", "[data-says]");
  check((await fields()) === "audience|in|vip", `the form shows ${await fields()}`);
  const more = "event('Order Completed').where(property('total') > 1).count() >= 1";
  await write(more);
  await seen("more than this form can show", "[data-says]");
  check((await fields()) === "" && !(await page.$eval("[data-write]", (button) => button.checkVisibility())), "the form shows what it does not know");
  check((await page.$eval("textarea", (area) => area.value)) === more, "the form has changed the text");
  await page.click("[data-add]");
  await page.type("[data-rows] input[aria-label='event']", "Order Completed");
  await page.click("[data-write]");
  await page.waitForFunction(() => document.querySelector("textarea").value === "event('Order Completed').count() >= 1");
  await seen("This is what the query says.", "[data-says]");
  await seen("1 now", "[data-result]");
  page.complaints = page.complaints.filter((complaint) => !complaint.includes("422"));
  await follow("#definition button");
  await seen("What would happen");
  await follow("#confirm button");
  await seen("Who has bought", "h1");
  await seen("live", ".lead");
  await seen("1 users", "#about");

  // It fills while one looks.
  await track(key, { userId: "cleo", event: "Order Completed", properties: { total: 60 } });
  await seen("2 users", "#about");
  // Lists of people are read when somebody asks for them.
  await page.reload();
  await follow("#members tbody a");
  await seen("buyers", "#audiences");
  await page.goto(`${PLACE}/console/s/${SPACE}/profiles/users/user_id:ada`);
  await seen(HOSTILE, "#events");
  await follow('#audiences a[href*="/explain/"]');
  await seen("is a member");
  await page.goto(`${PLACE}/console/s/${SPACE}/traits/new-one`);
  await page.type("textarea", "event('<img");
  await page.waitForSelector(".choices:not([hidden]) li");
  await page.keyboard.press("Enter");
  await page.keyboard.type(".last(property('x'))");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector("[data-rows] select")?.value === "last");
  check((await fields()) === `last|x|${HOSTILE}|`, `the form shows ${await fields()}`);
  await seen("0 now", "[data-result]");
  await write("trait('n') = 1");
  await seen("this form shows values", "[data-says]");
  await write("");
  await page.waitForFunction(() => document.querySelectorAll("[data-rows] > .row").length === 1);
  page.complaints = page.complaints.filter((complaint) => !complaint.includes("422"));

  for (const kind of [{}, { dark: true }, { width: 390, height: 800 }]) {
    const other = await open(browser, kind);
    for (const [name, address] of await pages(SPACE)) {
      await other.goto(address);
      const { paint, bytes, tooWide } = await measure(other);
      const where = `${name} ${JSON.stringify(kind)}`;
      check(bytes <= BYTES_MAX, `${where}: ${bytes} bytes`);
      check(paint !== null && paint <= PAINT_MAX_MS, `${where}: seen after ${paint} ms`);
      check(tooWide <= 0, `${where}: ${tooWide} pixels wider than the window`);
      for (const finding of await findings(other)) check(false, `${where}: ${finding}`);
      console.log(`${where}: seen after ${Math.round(paint)} ms, ${Math.round(bytes / 1024)} KiB`);
    }
    for (const complaint of other.complaints) check(false, complaint);
    await other.close();
  }
  for (const complaint of page.complaints) check(false, complaint);

  await Promise.all([page.waitForNavigation(), page.click("header form button")]);
  await seen("Access token");
} catch (error) {
  wrong.push(`${error.stack}\nat ${page.url()}: ${(await text("main").catch(() => "")).slice(0, 1500)}`);
}
await browser.close();
if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
