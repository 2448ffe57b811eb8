// The builder's help: colours, completion from what has been seen, errors under their place, a preview while one writes, and
// conditions put together by hand. The form works without it.
"use strict";
(() => {
  const root = document.querySelector("[data-builder]");
  if (!root) return;
  const area = root.querySelector('textarea[name="s:definition.query"]');
  const result = root.querySelector("[data-result]");
  const key = document.body.dataset.formKey;
  if (!area) return;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const ask = async (address) => {
    const answer = await fetch(address);
    return answer.ok ? (await answer.json()).data || [] : [];
  };
  const once = (load) => { let known; return () => (known ??= load().catch(() => [])); };
  const names = {
    events: once(async () => (await ask(root.dataset.events)).map((event) => event.name)),
    traits: once(async () => {
      const [seen, computed] = await Promise.all([ask(root.dataset.traits), ask(root.dataset.computed)]);
      return [...seen.map((trait) => trait.name), ...computed.map((trait) => trait.key)];
    }),
    audiences: once(async () => (await ask(root.dataset.audiences)).map((audience) => audience.key)),
  };
  const properties = new Map();
  const propertiesOf = (event) => {
    if (!properties.has(event)) {
      const address = root.dataset.properties.replace(":name", encodeURIComponent(event));
      properties.set(event, ask(address).then((list) => list.map((property) => property.name), () => []));
    }
    return properties.get(event);
  };

  // Colours: a copy of the text lies over the field, whose own text is then not shown.
  const WORDS = /^(and|or|not|any|all|as|true|false|null)$/i;
  const TOKENS = /(--[^\n]*)|('(?:\\.|[^'\\])*'?|"(?:\\.|[^"\\])*"?)|(\d[\d.:TZ-]*)|([A-Za-z_]\w*)|([\s\S])/g;
  const editor = make("div", { class: "editor is-on" });
  area.before(editor);
  const copy = make("pre", { "aria-hidden": "true" });
  editor.append(copy, area);
  let wrong = [];

  function paint() {
    const text = area.value;
    copy.replaceChildren();
    for (const found of text.matchAll(TOKENS)) {
      const [token, note, string, number, word] = found;
      const next = text.slice(found.index + token.length).trimStart()[0];
      const kind = note ? "hl-note" : string ? "hl-string" : number ? "hl-number"
        : word && (WORDS.test(word) || next === "(") ? "hl-word" : "";
      const isWrong = wrong.some(([from, to]) => found.index < to && found.index + token.length > from);
      const classes = [kind, isWrong ? "hl-wrong" : ""].filter(Boolean).join(" ");
      copy.append(classes ? make("span", { class: classes }, token) : token);
    }
    copy.append("\n");
    copy.scrollTop = area.scrollTop;
  }
  area.addEventListener("scroll", () => { copy.scrollTop = area.scrollTop; });
  const fit = () => { area.rows = Math.max(6, area.value.split("\n").length + Math.floor(area.value.length / 70)); };

  // Completion: what fits depends on the text before the cursor.
  const METHODS = ["count()", "within(7 days)", "where()", "sum(property(''))", "avg(property(''))", "min(property(''))", "max(property(''))",
    "first(property(''))", "last(property(''))", "unique(property(''))", "mode(property(''))", "equals('')", "differs('')", "contains('')",
    "starts_with('')", "ends_with('')", "one_of('')", "exists()", "absent()", "within_last(7 days)", "before_date('')", "after_date('')",
    "held_for(3 days)", "matches('')", "omits('')", "none_of('')", "within_next(7 days)", "before_last(7 days)"];
  const STARTS = ["event('')", "trait('')", "audience('')", "property('')", "context('')", "AND ", "OR ", "NOT ", "ANY ", "ALL ",
    "any_item('')", "random_bucket('')", "message_type()", "source('')", "everyone()"];

  async function fitting(before) {
    const inside = /([a-z_]+)\(\s*'((?:\\.|[^'\\])*)$/i.exec(before);
    if (inside) {
      const [, of, typed] = inside;
      const opened = before.length - typed.length;
      const last = [...before.slice(0, opened).matchAll(/event\(\s*'((?:\\.|[^'\\])*)'/gi)].pop();
      const list = of === "event" ? await names.events() : of === "trait" ? await names.traits()
        : of === "audience" ? await names.audiences() : of === "property" && last ? await propertiesOf(last[1].replace(/\\(.)/g, "$1")) : [];
      return { typed, list, isName: true };
    }
    const method = /\)\s*\.\s*(\w*)$/.exec(before);
    if (method) return { typed: method[1], list: METHODS, isName: false };
    const word = /(?:^|[\s(,!&|])([A-Za-z_]*)$/.exec(before);
    return word ? { typed: word[1], list: STARTS, isName: false } : { typed: "", list: [], isName: false };
  }

  const box = make("ul", { class: "choices", role: "listbox", id: "choices", "aria-label": "What fits here", hidden: "" });
  editor.append(box);
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", "choices"], ["aria-expanded", "false"],
    ["aria-haspopup", "listbox"]]) area.setAttribute(name, value);
  let open = null;

  function close() {
    open = null;
    box.hidden = true;
    area.setAttribute("aria-expanded", "false");
    area.removeAttribute("aria-activedescendant");
  }
  function mark(at) {
    open.at = (at + open.shown.length) % open.shown.length;
    [...box.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === open.at)));
    box.children[open.at].scrollIntoView({ block: "nearest" });
    area.setAttribute("aria-activedescendant", `choice-${open.at}`);
  }
  function take(at) {
    const { typed, isName } = open;
    const chosen = isName ? open.shown[at].replace(/[\\']/g, "\\$&") : open.shown[at];
    const start = area.selectionStart - typed.length;
    const rest = area.value.slice(area.selectionStart);
    const tail = isName ? (rest.startsWith("')") ? "" : "')") : "";
    area.value = area.value.slice(0, start) + chosen + tail + rest;
    const inside = isName ? -1 : chosen.search(/\(('?)/);
    const isEmptyCall = inside >= 0 && /\('?'?\)+$/.test(chosen) && !chosen.endsWith("t()") && !chosen.endsWith("s()") && !chosen.endsWith("e()");
    const cursor = isEmptyCall ? start + chosen.lastIndexOf(chosen.includes("'") ? "''" : "(") + 1
      : start + chosen.length + (isName ? 2 : 0);
    area.setSelectionRange(cursor, cursor);
    close();
    changed();
    area.focus();
  }
  async function suggest(isAsked) {
    const before = area.value.slice(0, area.selectionStart);
    const { typed, list, isName } = await fitting(before);
    if (before !== area.value.slice(0, area.selectionStart)) return;
    const small = typed.toLowerCase();
    const shown = [...new Set(list)].filter((name) => name.toLowerCase().includes(small) && name !== typed)
      .sort((a, b) => Number(b.toLowerCase().startsWith(small)) - Number(a.toLowerCase().startsWith(small))).slice(0, 30);
    if (!shown.length || (!isAsked && !isName && !typed)) return close();
    open = { typed, isName, shown, at: 0 };
    box.replaceChildren(...shown.map((name, index) => make("li", { role: "option", id: `choice-${index}` }, name)));
    box.hidden = false;
    area.setAttribute("aria-expanded", "true");
    mark(0);
  }
  box.addEventListener("mousedown", (event) => {
    event.preventDefault();
    const at = [...box.children].indexOf(event.target.closest("li"));
    if (at >= 0 && open) take(at);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) { event.preventDefault(); suggest(true); return; }
    if (!open) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); mark(open.at + (event.key === "ArrowDown" ? 1 : -1)); }
    else if (event.key === "Enter" || event.key === "Tab") { event.preventDefault(); take(open.at); }
    else if (event.key === "Escape") { event.preventDefault(); close(); }
  });
  area.addEventListener("blur", close);

  // The preview: asked when nothing was typed for a moment; an older answer never replaces a newer one.
  let timer, asked = 0;
  const at = (bytes) => new TextDecoder().decode(new TextEncoder().encode(area.value).slice(0, bytes)).length;
  const field = (name) => root.querySelector(`[name="${name}"]:not([type="hidden"])`);

  async function preview() {
    const query = area.value.trim(), number = ++asked;
    if (!query) {
      wrong = [];
      paint();
      result.replaceChildren(make("p", { class: "empty" }, "Write a query: what it would give shows here, from all history."));
      return;
    }
    const body = { definition: { query: area.value, type: field("s:definition.type")?.value || "users" }, options: {} };
    for (const option of ["include_anonymous", "include_historical_data"]) body.options[option] = field(`b:options.${option}`)?.checked ?? false;
    result.setAttribute("aria-busy", "true");
    const answer = await fetch(root.dataset.preview, {
      method: "POST", headers: { "content-type": "application/json", "x-form-key": key }, body: JSON.stringify(body),
    });
    const json = await answer.json().catch(() => ({}));
    if (number !== asked) return;
    result.removeAttribute("aria-busy");
    wrong = (json.errors || []).map((error) => [at(error.offset), Math.max(at(error.offset + error.length), at(error.offset) + 1)]);
    paint();
    result.replaceChildren(...(answer.ok ? show(json) : refuse(json)));
  }
  function refuse(json) {
    const errors = json.errors || [];
    if (!errors.length) return [make("div", { class: "notice bad" }, make("p", {}, json.detail || "The preview did not work."))];
    return [make("ul", { class: "notice bad" }, ...errors.map((error) => {
      const expected = (error.expected || []).length ? ` Expected ${error.expected.join(", ")}.` : "";
      return make("li", {}, `Line ${error.line}, column ${error.column}: ${error.message}${expected}`);
    }))];
  }
  function show(json) {
    const parts = [make("p", {}, make("span", { class: "big" }, json.size.toLocaleString("en")), ` now, in ${Math.round(json.took_ms)} ms`)];
    const warnings = json.warnings || [];
    if (warnings.length) {
      parts.push(make("ul", { class: "notice plain" }, ...warnings.map((warning) =>
        make("li", {}, warning.message + (warning.suggestion ? ` Was “${warning.suggestion}” meant?` : "")))));
    }
    if ((json.conditions || []).length > 1) {
      const most = Math.max(1, ...json.conditions.map((condition) => condition.size));
      parts.push(make("h3", {}, "Each condition alone"), make("ul", { class: "conditions" }, ...json.conditions.map((condition) =>
        make("li", {}, make("code", {}, condition.text), " ", make("meter", { min: 0, max: most, value: condition.size, "aria-label": `size of ${condition.text}` }),
          " ", make("strong", {}, condition.size.toLocaleString("en"))))));
    }
    if ((json.sample || []).length) {
      parts.push(make("h3", {}, "Some of them"), make("ul", {}, ...json.sample.map((one) => {
        const link = make("a", { href: root.dataset.profile.replace(":id", encodeURIComponent(one.profile_id)) }, one.profile_id);
        return make("li", {}, link, one.value === undefined || one.value === null ? "" : ` ${JSON.stringify(one.value)}`);
      })));
    }
    return parts;
  }
  function changed() {
    fit();
    paint();
    clearTimeout(timer);
    timer = setTimeout(() => preview().catch(() => {}), 400);
  }
  area.addEventListener("input", () => { changed(); suggest(false); });
  root.addEventListener("change", (event) => { if (event.target !== area && !event.target.closest("[data-simple]")) changed(); });

  // Conditions put together: each row makes a piece of the text.
  const simple = root.querySelector("[data-simple]"), rows = simple.querySelector("[data-rows]");
  const quoted = (text) => `'${text.replace(/[\\']/g, "\\$&")}'`;
  const literal = (text) => (/^-?\d+(\.\d+)?$/.test(text) || /^(true|false)$/.test(text) ? text : quoted(text));
  const input = (label, attributes = {}) => make("input", { "aria-label": label, placeholder: label, ...attributes });
  const choice = (label, list) => make("select", { "aria-label": label }, ...list.map(([value, text]) => make("option", { value }, text)));
  const KINDS = {
    did: ["did an event", () => {
      const [name, how, count, days] = [input("event", { list: "known-events" }), choice("how often", [[">=", "at least"], ["<=", "at most"], ["=", "exactly"]]),
        input("times", { type: "number", min: 0, value: 1 }), input("days", { type: "number", min: 0 })];
      return [[name, how, count, " times within ", days, " days"], () => name.value &&
        `event(${quoted(name.value)})${days.value ? `.within(${days.value} days)` : ""}.count() ${how.value} ${count.value || 1}`];
    }],
    trait: ["has a trait", () => {
      const [name, how, value] = [input("trait", { list: "known-traits" }),
        choice("comparison", [["=", "is"], ["!=", "is not"], [">=", "at least"], ["<=", "at most"], ["contains", "contains"], ["exists", "is there"]]), input("value")];
      return [[name, how, value], () => name.value && (how.value === "exists" ? `trait(${quoted(name.value)}).exists()`
        : how.value === "contains" ? `trait(${quoted(name.value)}).contains(${quoted(value.value)})` : `trait(${quoted(name.value)}) ${how.value} ${literal(value.value)}`)];
    }],
    member: ["is in an audience", () => {
      const [is, name] = [choice("in or not", [["", "is in"], ["NOT ", "is not in"]]), input("audience", { list: "known-audiences" })];
      return [[is, name], () => name.value && `${is.value}audience(${quoted(name.value)})`];
    }],
  };
  const lists = { events: make("datalist", { id: "known-events" }), traits: make("datalist", { id: "known-traits" }), audiences: make("datalist", { id: "known-audiences" }) };
  simple.append(...Object.values(lists));
  function add() {
    const row = make("div", { class: "row", role: "group", "aria-label": `Condition ${rows.children.length + 1}` });
    const kind = choice("kind of condition", Object.entries(KINDS).map(([word, [says]]) => [word, says]));
    const place = make("span", { class: "row" });
    const remove = make("button", { type: "button", class: "quiet" }, "Remove");
    const set = () => { const [elements, text] = KINDS[kind.value][1](); place.replaceChildren(...elements); row.text = text; };
    kind.addEventListener("change", set);
    remove.addEventListener("click", () => row.remove());
    row.append(kind, place, remove);
    rows.append(row);
    set();
  }
  simple.querySelector("[data-add]").addEventListener("click", add);
  simple.querySelector("[data-write]").addEventListener("click", () => {
    const texts = [...rows.children].map((row) => row.text()).filter(Boolean);
    if (!texts.length) return;
    area.value = texts.join(`\n${simple.querySelector("[data-join]").value} `);
    changed();
    area.focus();
  });
  simple.hidden = !root.querySelector('[data-preview*="/audiences/"]') && !root.dataset.preview.includes("/audiences/");
  if (!simple.hidden) {
    for (const [name, load] of Object.entries(names)) {
      load().then((known) => lists[name].append(...known.slice(0, 500).map((value) => make("option", { value }))));
    }
    add();
  }

  fit();
  paint();
  if (area.value.trim()) preview().catch(() => {});
})();
