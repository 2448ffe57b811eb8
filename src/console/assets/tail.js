// Events as they come in, from the API's stream; refused ones from the list of refused events, asked for every two seconds. At most
// 500 rows are kept; while it is paused, what comes in is kept back and counted.
"use strict";
(() => {
  const root = document.querySelector("[data-tail]");
  if (!root) return;
  const list = root.querySelector("[data-list]"), state = root.querySelector("[data-state]"), form = root.querySelector("[data-filters]");
  const pause = root.querySelector("[data-pause]");
  const ROWS = 500;
  let stream, waiting = [], isPaused = false, seen = 0, passed = 0, newest = null, tag = null, counted = null;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const say = (text) => { state.textContent = text; };
  const asked = () => Object.fromEntries(new FormData(form));

  function tell(word) {
    const more = passed ? `, ${passed} passed over` : "";
    const back = isPaused ? `Paused; ${waiting.length} wait.` : word;
    say(`${back} ${seen} shown${more}.`);
  }
  const shown = (at) => at.replace("T", " ").slice(0, 19);
  const pretty = (json) => make("pre", { tabindex: "0" }, JSON.stringify(json, null, 2));
  const more = (summary, ...content) => make("details", {}, make("summary", {}, summary), ...content);

  function facts(value) {
    if (value === null || typeof value !== "object") return document.createTextNode(String(value));
    return make("dl", {}, ...Object.entries(value).map(([name, inner]) => make("div", {}, make("dt", {}, name), make("dd", {}, facts(inner)))));
  }
  function taken(event) {
    const what = event.properties || event.traits || {};
    const who = (event.external_ids || []).map((id) => `${id.type}:${id.id}`).slice(0, 3).join(" ");
    return make("tr", {},
      make("td", {}, make("time", { datetime: event.received_at }, shown(event.received_at))),
      make("td", {}, make("span", { class: "badge" }, event.type)),
      make("td", {}, event.event || "–"),
      make("td", {}, make("code", {}, who)),
      make("td", {}, more(`${Object.keys(what).length} fields`, make("div", { class: "tree" }, facts(what))), more("raw", pretty(event))));
  }
  function refused(event) {
    return make("tr", {},
      make("td", {}, make("time", { datetime: event.received_at }, shown(event.received_at))),
      make("td", {}, make("span", { class: `badge ${event.warning ? "busy" : "bad"}` }, event.warning ? "in part" : "refused")),
      make("td", {}, make("code", {}, event.code)),
      make("td", {}, event.message_id || "–"),
      make("td", {}, event.message, " ", more("raw", make("pre", { tabindex: "0" }, event.event))));
  }
  function add(row) {
    if (isPaused) { waiting.push(row); if (waiting.length > ROWS) { waiting.shift(); passed += 1; } return tell("Listening."); }
    list.prepend(row);
    seen += 1;
    while (list.children.length > ROWS) list.lastElementChild.remove();
    tell("Listening.");
  }

  function listen() {
    if (stream) stream.close();
    const { source, type, name, id, outcome } = asked();
    list.replaceChildren();
    [waiting, seen, passed, newest, tag, counted] = [[], 0, 0, null, null, null];
    if (outcome === "refused") { say("Listening for what is refused."); return; }
    const query = new URLSearchParams({ last: "50" });
    for (const [key, value] of Object.entries({ source, type, name, id })) if (value) query.set(key, value);
    stream = new EventSource(`${root.dataset.address}?${query}`);
    stream.addEventListener("open", () => tell("Listening."));
    stream.addEventListener("event", (message) => add(taken(JSON.parse(message.data))));
    stream.addEventListener("passed_over", (message) => { passed += JSON.parse(message.data).events; tell("Listening."); });
    stream.addEventListener("error", () => say(stream.readyState === EventSource.CLOSED
      ? "The stream has ended: open the page once more." : "The stream was cut; it is asked for again."));
  }
  async function look() {
    const { outcome, source } = asked();
    if (outcome === "taken" || document.hidden) return;
    // The list is read when there is something new in it: whoever reads it stands in the audit log.
    const pipeline = await fetch(root.dataset.pipeline, { headers: { "x-console-poll": "1" } });
    const { rejected_last_hour: refusals } = pipeline.ok ? await pipeline.json() : {};
    if (refusals === counted && refusals < 1000) return;
    counted = refusals;
    const answer = await fetch(root.dataset.refused, { headers: tag ? { "if-none-match": tag } : {} });
    if (answer.status !== 200) return;
    tag = answer.headers.get("etag");
    const all = (await answer.json()).data, known = newest;
    if (all.length) newest = all[0].id;
    const place = all.findIndex((event) => event.id === known);
    const fresh = known === null ? (outcome === "refused" ? all : []) : place < 0 ? all : all.slice(0, place);
    fresh.reverse().filter((event) => !source || event.source === source).forEach((event) => add(refused(event)));
    if (known === null && !all.length) newest = "";
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); listen(); look(); });
  root.querySelector("[data-clear]").addEventListener("click", () => { list.replaceChildren(); seen = 0; tell("Listening."); });
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (!isPaused) { const rows = waiting; waiting = []; rows.forEach(add); }
    tell("Listening.");
  });
  listen();
  look();
  setInterval(() => look().catch(() => {}), 2000);
})();
