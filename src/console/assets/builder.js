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
  const post = async (address, body) => {
    const answer = await fetch(address, {
      method: "POST", headers: { "content-type": "application/json", "x-form-key": key }, body: JSON.stringify(body),
    });
    return { answer, json: await answer.json().catch(() => ({})) };
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
    const { answer, json } = await post(root.dataset.preview, body);
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
  function changed(isText = true) {
    if (isText) reads++;
    fit();
    paint();
    clearTimeout(timer);
    timer = setTimeout(() => {
      preview().catch(() => {});
      if (isText) read().catch(() => {});
    }, 400);
  }
  area.addEventListener("input", () => { changed(); suggest(false); });
  root.addEventListener("change", (event) => { if (event.target !== area && !event.target.closest("[data-simple]")) changed(false); });

  // The form: the API says what a form shows of a text, with the parser that reads all queries, and which text a form makes.
  const simple = root.querySelector("[data-simple]"), rows = simple.querySelector("[data-rows]"), says = simple.querySelector("[data-says]");
  const join = simple.querySelector("[data-join]"), adds = simple.querySelector("[data-add]"), writes = simple.querySelector("[data-write]");
  const rereads = simple.querySelector("[data-reread]");
  const isOfTrait = root.dataset.builder === "traits";
  const EMPTY = "Conditions of the common kinds. They write the query, which can be edited on.";
  // They are no part of the page's own form, which may be sent with them empty.
  const input = (label, attributes = {}) => make("input", { "aria-label": label, placeholder: label, form: "none", ...attributes });
  const needed = (label, attributes = {}) => input(label, { required: "", ...attributes });
  const choice = (label, list) => make("select", { "aria-label": label }, ...list.map(([value, text]) => make("option", { value }, text)));
  // What looks like a number, true or false is one; a text that looks so stands in quotes. A number that would lose digits is none.
  const digits = (text) => text.replace(/e.*|\D/gi, "").replace(/^0+|0+$/g, "").length;
  const typed = (text) => /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) ? (digits(text) > 15 ? NaN : Number(text))
    : /^(true|false)$/.test(text) ? text === "true" : /^'.*'$/.test(text) ? text.slice(1, -1) : text;
  const shown = (value) => (typeof value !== "string" ? String(value) : typed(value) === value ? value : `'${value}'`);
  const whole = (field) => (field.value === "" ? undefined : Number(field.value));
  const COUNTS = [[">=", "at least"], ["<=", "at most"], ["=", "exactly"], [">", "more than"], ["<", "fewer than"], ["!=", "not exactly"]];
  const TESTS = [["=", "is"], ["!=", "is not"], [">=", "at least"], ["<=", "at most"], [">", "more than"], ["<", "less than"],
    ["contains", "contains"], ["exists", "is there"], ["absent", "is not there"]];
  const REDUCERS = [["count", "how many"], ["sum", "the sum of"], ["avg", "the average of"], ["min", "the smallest"], ["max", "the largest"],
    ["first", "the first"], ["last", "the last"], ["unique", "all different"], ["mode", "the most frequent"]];
  // Each kind: what it is called, and its fields, how they are read and how they are filled.
  const KINDS = isOfTrait ? {
    value: ["a value of events", () => {
      const [how, property, event] = [choice("what of them", REDUCERS), needed("property", { list: "known-properties" }), needed("event", { list: "known-events" })];
      const days = input("days", { type: "number", min: 1 });
      const set = () => { property.hidden = how.value === "count"; };
      how.addEventListener("change", set);
      const propose = async () => {
        lists.properties.replaceChildren(...(await propertiesOf(event.value)).map((value) => make("option", { value })));
      };
      event.addEventListener("change", propose);
      set();
      return { fields: [how, property, " of ", event, " within ", days, " days"],
        read: () => ({ shape: "value", event: event.value, reducer: how.value, property: how.value === "count" ? undefined : property.value, days: whole(days) }),
        fill: (form) => { how.value = form.reducer; property.value = form.property ?? ""; event.value = form.event; days.value = form.days ?? ""; set(); propose(); } };
    }],
  } : {
    event: ["did an event", () => {
      const [event, how, times, days] = [needed("event", { list: "known-events" }), choice("how often", COUNTS), needed("times", { type: "number", min: 0, value: 1 }),
        input("days", { type: "number", min: 1 })];
      return { fields: [event, how, times, " times within ", days, " days"],
        read: () => ({ kind: "event", event: event.value, comparison: how.value, times: whole(times), days: whole(days) }),
        fill: (one) => { event.value = one.event; how.value = one.comparison; times.value = one.times; days.value = one.days ?? ""; } };
    }],
    trait: ["has a trait", () => {
      const [name, how, value] = [needed("trait", { list: "known-traits" }), choice("comparison", TESTS), input("value")];
      const set = () => {
        value.hidden = /^(exists|absent)$/.test(how.value);
        const isLong = how.value !== "contains" && Number.isNaN(typed(value.value));
        value.setCustomValidity(isLong ? "A number keeps 15 digits. If it is a text, put it in quotes: '0123'." : "");
      };
      how.addEventListener("change", set);
      value.addEventListener("input", set);
      return { fields: [name, how, value],
        read: () => ({ kind: "trait", trait: name.value, comparison: how.value,
          value: value.hidden ? undefined : how.value === "contains" ? value.value : typed(value.value) }),
        fill: (one) => {
          [name.value, how.value] = [one.trait, one.comparison];
          value.value = one.value === undefined ? "" : how.value === "contains" ? one.value : shown(one.value);
          set();
        } };
    }],
    audience: ["is in an audience", () => {
      const [is, name] = [choice("in or not", [["in", "is in"], ["out", "is not in"]]), needed("audience", { list: "known-audiences" })];
      return { fields: [is, name], read: () => ({ kind: "audience", audience: name.value, is_in: is.value === "in" }),
        fill: (one) => { is.value = one.is_in ? "in" : "out"; name.value = one.audience; } };
    }],
  };
  const lists = {};
  for (const name of [...Object.keys(names), "properties"]) lists[name] = make("datalist", { id: `known-${name}` });
  simple.append(...Object.values(lists));
  function add(condition) {
    const row = make("div", { class: "row", role: "group", "aria-label": isOfTrait ? "Value" : `Condition ${rows.children.length + 1}` });
    const kind = choice("kind of condition", Object.entries(KINDS).map(([word, [called]]) => [word, called]));
    const place = make("span", { class: "row" });
    const remove = make("button", { type: "button", class: "quiet" }, "Remove");
    const set = () => { row.of = KINDS[kind.value][1](); place.replaceChildren(...row.of.fields); };
    kind.addEventListener("change", set);
    remove.addEventListener("click", () => { row.remove(); edited(); });
    row.append(...(isOfTrait ? [place] : [kind, place, remove]));
    rows.append(row);
    if (condition) kind.value = condition.kind ?? condition.shape;
    set();
    if (condition) row.of.fill(condition);
  }
  function tell(text, hasRows) {
    says.textContent = text;
    rows.hidden = writes.hidden = !hasRows;
    adds.hidden = isOfTrait && hasRows;
    adds.textContent = hasRows ? "Add a condition" : "Begin another query here";
    join.closest("[data-joined]").hidden = isOfTrait || !hasRows;
  }
  // An older answer never replaces a newer one, nor what is edited here and not written yet.
  let reads = 0, isEdited = false, said = "";
  function edited() {
    isEdited = true;
    reads++;
  }
  rows.addEventListener("input", edited);
  rows.addEventListener("change", edited);
  join.addEventListener("change", edited);
  adds.addEventListener("click", () => {
    if (rows.hidden) tell("Writing it takes the place of the query.", true);
    add();
    edited();
  });
  async function read() {
    const number = ++reads, text = area.value;
    if (isEdited) {
      rereads.hidden = text === said;
      if (text !== said) says.textContent = "What is put together here is not written, and the query says something else.";
      return;
    }
    if (!text.trim()) {
      if (!rows.children.length) add();
      return tell(EMPTY, true);
    }
    const { answer, json } = await post(root.dataset.format, { query: text });
    if (number !== reads) return;
    // Half a word says nothing yet.
    if (!answer.ok) { says.textContent = "The form follows when the query is right."; return; }
    said = text;
    const isShown = json.form?.shape === (isOfTrait ? "value" : "conditions");
    rows.replaceChildren();
    if (isShown) {
      if (!isOfTrait) join.value = json.form.join;
      for (const one of isOfTrait ? [json.form] : json.form.conditions) add(one);
    }
    const other = isOfTrait ? "The query is a condition, as audiences are made of; this form shows values."
      : "The query is a value, as computed traits are made of; this form shows conditions.";
    tell(isShown ? "This is what the query says." : json.form ? other : "The query says more than this form can show. It stays as it is.", isShown);
  }
  rereads.addEventListener("click", () => {
    isEdited = false;
    rereads.hidden = true;
    read().catch(() => {});
  });
  // The first field that is not right, if one is.
  const amiss = () => [...rows.querySelectorAll("input")].find((field) => !field.hidden && !field.validity.valid);
  async function write() {
    const field = amiss();
    if (field) {
      says.textContent = `${field.getAttribute("aria-label")}: ${field.validationMessage}`;
      return field.focus();
    }
    const written = [...rows.children].map((row) => row.of.read()), before = area.value;
    const form = isOfTrait ? written[0] : { shape: "conditions", join: join.value, conditions: written };
    if (!written.length) { says.textContent = "There is no condition to write."; return; }
    const number = ++reads;
    const { answer, json } = await post(root.dataset.format, { form });
    if (!answer.ok) { says.textContent = json.errors?.[0]?.message || json.detail || "That cannot be written."; return; }
    if (number !== reads || area.value !== before) { says.textContent = "It was edited meanwhile. Write it again."; return; }
    [isEdited, rereads.hidden] = [false, true];
    area.value = json.query;
    changed();
    area.focus();
  }
  writes.addEventListener("click", () => write().catch(() => { says.textContent = "The server did not answer. Nothing was written."; }));
  simple.hidden = false;
  for (const [name, load] of Object.entries(names)) {
    load().then((known) => lists[name].append(...known.slice(0, 500).map((value) => make("option", { value }))));
  }
  add();
  tell(EMPTY, true);

  fit();
  paint();
  if (area.value.trim()) {
    preview().catch(() => {});
    read().catch(() => {});
  }
})();
