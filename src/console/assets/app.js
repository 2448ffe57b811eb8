// What all pages share: those that say so fetch themselves again and replace what has changed. What somebody is in the middle
// of (a field with the cursor, something folded open, a selection) is left alone until the next time.
"use strict";
(() => {
  // On a phone the menu is a row that scrolls: where one is stands in view.
  const current = document.querySelector(".parts [aria-current]");
  if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 40;
  const seconds = Number(document.body.dataset.every || 0);
  if (!seconds) return;
  let tag = null;

  const isBusy = (part) =>
    part.contains(document.activeElement) && document.activeElement !== document.body ||
    part.querySelector("details[open]") ||
    (getSelection() && !getSelection().isCollapsed && part.contains(getSelection().anchorNode));

  async function again() {
    if (document.hidden) return;
    const headers = { "x-console-poll": "1" };
    if (tag) headers["if-none-match"] = tag;
    const answer = await fetch(location.href, { headers, redirect: "manual" });
    // The session is over: the page says so when it is asked for the next time.
    if (answer.type === "opaqueredirect") { location.reload(); return; }
    if (answer.status !== 200) return;
    tag = answer.headers.get("etag");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = document.querySelector("main"), fresh = page.querySelector("main");
    const names = (within) => [...within.children].map((part) => part.id).join();
    if (names(main) !== names(fresh)) {
      if (isBusy(main)) return;
      for (const part of fresh.querySelectorAll(":scope > [data-kept]")) {
        const here = document.getElementById(part.id);
        if (!here) { location.reload(); return; }
        part.replaceWith(document.importNode(here, true));
      }
      main.replaceChildren(...document.importNode(fresh, true).childNodes);
      return;
    }
    for (const part of main.querySelectorAll(":scope > [id]:not([data-stays])")) {
      const fresh = page.getElementById(part.id);
      if (fresh && !("kept" in fresh.dataset) && fresh.innerHTML !== part.innerHTML && !isBusy(part)) part.replaceWith(document.importNode(fresh, true));
    }
  }
  setInterval(() => again().catch(() => {}), seconds * 1000);
})();
