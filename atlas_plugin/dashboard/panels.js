"use strict";

// Each panel: what it asks the server, and how it shows that.

const ROWS = matchMedia("(max-width: 44rem)").matches ? 5 : 12;

class LivePanel {
  static SOURCES = [["slot", "Slot"], ["ram", "RAM"], ["disk", "Disk"], ["shared", "Shared"], ["plugins", "Plugins"]];
  static LAYERS = [["ram", "RAM"], ["disk", "Disk"]];

  constructor() {
    this.lines = Object.fromEntries(
      ["throughput", "active", "first", "inter"].map((name) => [name, new Sparkline(byId(`${name}-line`))]));
    this.sources = this.list("sources", [...LivePanel.SOURCES, ["computed", "Computed"]], (name, title) => {
      const value = element("b", {}, NONE);
      return [value, element("li", {}, element("i", { class: name }), element("span", {}, title), value)];
    });
    this.meters = this.list("layers", [...LivePanel.LAYERS, ["pool", "Contexts in use"]], (name, title) => {
      const value = element("span", { class: "dim" }, NONE);
      const bar = element("div", { class: "bar" });
      bar.setAttribute("aria-hidden", "true");
      return [{ value, bar }, element("li", {}, element("span", {}, title), value, bar)];
    });
  }

  list(id, names, make) {
    return Object.fromEntries(names.map(([name, title]) => {
      const [part, item] = make(name, title);
      byId(id).append(item);
      return [name, part];
    }));
  }

  /** What the server remembers of before the page was opened. */
  async seed() {
    const { data } = await ask("/metrics", { query: { history: 1 } });
    const begin = (data.history.at(-1)?.timestamp ?? 0) - Sparkline.SAMPLES;
    // One for each second, as the stream brings them, whatever the server's own interval is.
    const seconds = Array.from({ length: Sparkline.SAMPLES }, (_, second) =>
      data.history.findLast(({ timestamp }) => timestamp <= begin + second + 1));
    this.lines.throughput.values = seconds.map((sample) => sample?.throughput_tokens_per_sec ?? null);
    this.lines.active.values = seconds.map((sample) => sample?.active_requests ?? null);
  }

  show(event) {
    clock.ahead = event.timestamp - Date.now() / 1000;
    const { time_to_first_token_ms: first, inter_token_ms: inter } = event;
    setText(byId("throughput"), format.rate(event.tokens_per_second));
    setText(byId("active"), format.count(event.active_requests));
    setText(byId("total"), format.count(event.total_requests));
    for (const [id, found] of [["first", first], ["inter", inter]]) {
      for (const name of ["p50", "p90", "p99"]) setText(byId(`${id}-${name}`), format.milliseconds(found[name]));
    }
    this.lines.throughput.add(event.tokens_per_second);
    this.lines.active.add(event.active_requests);
    this.lines.first.add(first.p50);
    this.lines.inter.add(inter.p50);
    this.showSources(event);
    this.showMeters(event);
  }

  showSources({ hit_rates: rates, cache_hit_rate: hits }) {
    const parts = LivePanel.SOURCES.map(([name]) => [name, rates[name]]);
    const isNothing = parts.some(([, part]) => part === null);
    const computed = isNothing ? null : Math.max(0, 1 - parts.reduce((sum, [, part]) => sum + part, 0));
    const all = [...parts, ["computed", computed]];
    fillBar(byId("sources-bar"), all.map(([name, part]) => [name, part ?? 0]));
    for (const [name, part] of all) setText(this.sources[name], format.part(part));
    setText(byId("hit-rate"), format.part(hits));
  }

  showMeters({ layers, pool_contexts: contexts, pool_contexts_in_use: inUse }) {
    for (const [name] of LivePanel.LAYERS) {
      const { bytes, budget_bytes: budget } = layers[name];
      const isOn = budget !== 0;
      const limit = budget === null ? "no limit" : `of ${format.bytes(budget)}`;
      this.meter(name, isOn ? `${format.bytes(bytes)} ${limit}` : "off", isOn && budget ? bytes / budget : 0);
    }
    this.meter("pool", `${inUse} of ${contexts}`, contexts ? inUse / contexts : 0);
  }

  meter(name, text, part) {
    const { value, bar } = this.meters[name];
    setText(value, text);
    fillBar(bar, [[name, part]]);
  }
}

class SessionsPanel {
  static PAGE = 200;

  constructor() {
    this.section = byId("sessions");
    this.pages = 1;
    const columns = [
      { title: "Session", class: "name", fill: SessionsPanel.fillName },
      { title: "Tokens", class: "number", fill: (cell, { session }) => setText(cell, session ? format.count(session.tokens) : NONE) },
      { title: "RAM", class: "number", fill: (cell, { session }) => setText(cell, session ? format.bytes(session.ram_bytes) : NONE) },
      { title: "Disk", class: "number", fill: (cell, { session }) => setText(cell, session ? format.bytes(session.disk_bytes) : NONE) },
      { title: "Saved state", class: "number", fill: (cell, { bytes }) => setText(cell, bytes === null ? NONE : format.bytes(bytes)) },
      { title: "Last used", class: "number", fill: (cell, item) => setText(cell, format.ago(SessionsPanel.lastUsed(item))) },
      { title: "", class: "actions", make: (cell, now) => this.makeActions(cell, now), fill: SessionsPanel.fillActions },
    ];
    const table = new Table(this.section.querySelector("table"), {
      label: "Sessions and saved states", columns, key: SessionsPanel.key,
      empty: "None yet. A completion names its session in atlas.session_id.",
    });
    this.shown = new Pages(table, this.section.querySelector(".more"), ROWS, () => {
      this.pages += 1;
      showIn(this.section, () => this.refresh());
    });
  }

  static key = ({ context_id: name, tenant = "" }) => `${tenant}/${name}`;

  static lastUsed = ({ session, updated }) => Math.max(session?.last_used_at ?? 0, updated ?? 0);

  async refresh() {
    const found = [];
    let cursor = null;
    for (let page = 0; page < this.pages && (page === 0 || cursor); page++) {
      const { data } = await ask("/memory/list", { body: { limit: SessionsPanel.PAGE, cursor } });
      found.push(...data.contexts);
      cursor = data.next_cursor;
    }
    this.shown.update(this.sorted(found), cursor === null);
    setText(this.section.querySelector(".count"), `${format.count(found.length)}${cursor === null ? "" : "+"}`);
  }

  /** Pinned ones first, then those used last; but nothing moves under a pointer, or while a button has the focus. */
  sorted(items) {
    const { key, lastUsed } = SessionsPanel;
    const isInUse = this.section.querySelector("table").matches(":hover, :focus-within");
    const places = new Map(isInUse ? this.shown.items.map((item, index) => [key(item), index]) : []);
    const place = (item) => places.get(key(item)) ?? places.size;
    const pinned = ({ session }) => (session?.pinned ? 1 : 0);
    return items.sort((a, b) => place(a) - place(b) || pinned(b) - pinned(a) || lastUsed(b) - lastUsed(a));
  }

  makeActions(cell, now) {
    const pin = element("button", { type: "button", class: "pin" });
    const remove = element("button", { type: "button", class: "remove" }, "Delete");
    const error = element("p", { class: "error" });
    error.setAttribute("role", "alert");
    cell.append(pin, remove, error);
    const perform = async (operation, names) => {
      pin.disabled = remove.disabled = true;
      setText(error, "");
      try {
        const { tenant } = now();
        const { data } = await ask(`/memory/${operation}`, { body: { ...names, ...(tenant && { tenant }) } });
        const name = now().context_id;
        setText(byId("done"), data.freed_bytes === undefined ? `${name}: ${operation} done` : `${name} deleted`);
        await showIn(this.section, () => this.refresh());
      } catch (problem) {
        setText(error, problem.message);
      } finally {
        pin.disabled = remove.disabled = false;
      }
    };
    pin.addEventListener("click", () => {
      const { context_id: name, session } = now();
      perform(session.pinned ? "unpin" : "pin", { session_id: name });
    });
    remove.addEventListener("click", async () => {
      const { context_id: name } = now();
      if (await confirmDelete(name)) perform("delete", { context_id: name });
    });
  }

  static fillName(cell, { context_id: name, tenant = "", session }) {
    if (!cell.children.length) cell.append(...["", "dim", "chip"].map((names) => element("span", { class: names })));
    const texts = [name, tenant, session?.pinned ? "pinned" : ""];
    texts.forEach((text, index) => setMessage(cell.children[index], text));
  }

  static fillActions(cell, { context_id: name, session }) {
    const [pin, remove] = cell.querySelectorAll("button");
    pin.hidden = session === null;
    setText(pin, session?.pinned ? "Unpin" : "Pin");
    pin.setAttribute("aria-label", `${pin.textContent} ${name}`);
    remove.setAttribute("aria-label", `Delete ${name}`);
  }
}

/** Whether the user really wants it. */
function confirmDelete(name) {
  const dialog = byId("delete-dialog");
  setText(byId("delete-name"), name);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "delete"), { once: true });
  });
}

class RequestsPanel {
  static KEPT = 500;
  static LAYERS = ["", "RAM", "disk", "other servers"];
  static OUTCOMES = { ok: "good", error: "bad", refused: "warn", cancelled: "" };
  static MEMORY = { restored: "good", slot_has_it: "good", no_room: "warn", too_many_at_once: "warn", restore_failed: "bad" };

  constructor() {
    this.section = byId("requests");
    this.forget();
    const milliseconds = (name) => (cell, { ms }) => setText(cell, format.milliseconds(ms[name]));
    const columns = [
      { title: "Ended", class: "age", fill: (cell, { ended }) => setText(cell, format.ago(ended)) },
      { title: "Outcome", fill: (cell, { outcome }) => chip(cell, outcome, RequestsPanel.OUTCOMES[outcome]) },
      { title: "Route", class: "wide", fill: (cell, { route, streamed }) => setText(cell, streamed ? `${route}, streamed` : route) },
      { title: "Session", class: "wide", fill: (cell, { session, tenant }) => setText(cell, [session, tenant && `(${tenant})`].filter(Boolean).join(" ")) },
      { title: "Memory", class: "wide", fill: RequestsPanel.fillMemory },
      { title: "Prompt", class: "number", fill: (cell, { tokens }) => setText(cell, format.count(tokens.prompt)) },
      { title: "Reused", class: "number", fill: (cell, { tokens }) => setText(cell, format.count(tokens.reused)) },
      { title: "Answer", class: "number", fill: (cell, { tokens }) => setText(cell, format.count(tokens.answer)) },
      { title: "First token", class: "number", fill: milliseconds("first_token") },
      { title: "Total", class: "number", fill: milliseconds("total") },
    ];
    const table = new Table(this.section.querySelector("table"), {
      label: "Completion requests that ended last", columns, key: ({ number }) => number, empty: "None yet.",
    });
    this.shown = new Pages(table, this.section.querySelector(".more"), ROWS);
    byId("only-restored").addEventListener("change", () => this.show());
  }

  /** For a server that may be another now, and count from the beginning again. */
  forget() {
    this.last = 0;
    this.records = [];
  }

  async refresh() {
    const { data } = await ask("/requests", { query: { since: this.last } });
    if (data.last < this.last) {
      this.forget();
      return;
    }
    this.last = data.last;
    this.records = [...data.requests.reverse(), ...this.records].slice(0, RequestsPanel.KEPT);
    this.show();
  }

  show() {
    const isWanted = byId("only-restored").checked ? ({ memory }) => memory.result === "restored" : () => true;
    this.shown.update(this.records.filter(isWanted));
  }

  static fillMemory(cell, { memory, ms, degraded }) {
    const layer = RequestsPanel.LAYERS[memory.layer] ?? `layer ${memory.layer}`;
    const text = [format.words(memory.result || "not asked"), layer && `from ${layer}`].filter(Boolean).join(" ");
    chip(cell, text, RequestsPanel.MEMORY[memory.result]);
    const took = ms.restore === null || memory.result !== "restored" ? "" : format.milliseconds(ms.restore);
    const more = [took, memory.moved && `${format.words(memory.moved)} moved`, degraded];
    const note = cell.querySelector(".dim") ?? cell.appendChild(element("span", { class: "dim" }));
    setMessage(note, more.filter(Boolean).join(" · "));
  }
}

class PluginsPanel {
  static STATES = { active: "good", failed: "bad", disabled: "" };

  constructor() {
    this.section = byId("plugins");
    const failures = ({ error, hook_failures: counts }) => {
      const hooks = Object.entries(counts).filter(([, count]) => count);
      return [error, ...hooks.map(([hook, count]) => `${hook} failed ${format.count(count)} times`)].filter(Boolean).join("; ");
    };
    const columns = [
      { title: "Plugin", class: "name", fill: (cell, { name }) => setText(cell, name) },
      { title: "State", fill: (cell, { state }) => chip(cell, state, PluginsPanel.STATES[state]) },
      { title: "Failures", class: "wide", fill: (cell, plugin) => setText(cell, failures(plugin)) },
      { title: "Version", fill: (cell, { version }) => setText(cell, version ?? NONE) },
      { title: "Source", fill: (cell, { source }) => setText(cell, source) },
      { title: "Routes", class: "number", fill: (cell, { routes }) => setText(cell, format.count(routes.length)) },
    ];
    this.table = new Table(this.section.querySelector("table"), {
      label: "Plugins", columns, key: ({ name, location: place }) => `${name} ${place}`, empty: "There are none.",
    });
  }

  async refresh() {
    const { plugins } = (await ask("/plugins")).data;
    const order = ["failed", "active", "disabled"];
    this.table.update(plugins.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state)));
    const active = plugins.filter(({ state }) => state === "active").length;
    setText(this.section.querySelector(".count"), `${active} of ${plugins.length} active`);
  }
}

/** Every layer that the memory has, alike. */
class TiersPanel {
  constructor() {
    this.section = byId("tiers");
    const known = (value, how) => (value === null ? NONE : how(value));
    const moved = (name) => (cell, tier) => setText(cell, `${format.count(tier[name].entries)}, ${format.bytes(tier[name].bytes)}`);
    const columns = [
      { title: "Layer", class: "name", fill: (cell, { layer, name }) => setText(cell, `${layer} ${name}`) },
      { title: "Kind", fill: (cell, { kind }) => setText(cell, kind) },
      { title: "State", class: "wide", fill: TiersPanel.fillState },
      { title: "Entries", class: "number", fill: (cell, { entries }) => setText(cell, known(entries, format.count)) },
      { title: "Bytes", class: "number", fill: (cell, { bytes }) => setText(cell, known(bytes, format.bytes)) },
      { title: "Read", class: "number", fill: moved("read") },
      { title: "Written", class: "number", fill: moved("written") },
      { title: "Found", class: "number", fill: (cell, { found, asked }) => setText(cell, `${format.count(found)} of ${format.count(asked)}`) },
      { title: "Round trip", class: "number", fill: (cell, { round_trip_ms: time }) => setText(cell, known(time, format.milliseconds)) },
      { title: "A second", class: "number", fill: (cell, { bytes_per_s: rate }) => setText(cell, known(rate, format.bytes)) },
    ];
    this.table = new Table(this.section.querySelector("table"), {
      label: "Layers of the memory", columns, key: ({ layer }) => layer, empty: "There are none.",
    });
  }

  /** Tenants are told of none. */
  show(memory) {
    const tiers = memory?.tiers ?? [];
    this.section.hidden = !tiers.length;
    this.table.update(tiers);
    setText(this.section.querySelector(".count"), format.count(tiers.length));
  }

  static fillState(cell, { breaker, problem }) {
    chip(cell, breaker === "closed" ? "works" : "does not work", breaker === "closed" ? "good" : "bad");
    const note = cell.querySelector(".dim") ?? cell.appendChild(element("span", { class: "dim" }));
    setMessage(note, problem ?? "");
  }
}

/** What the server says of itself, at the top of the page. */
class StatusPanel {
  constructor() {
    this.tiers = new TiersPanel();
  }

  async refresh() {
    const { status, data, problems } = await ask("/status");
    const model = data.model?.split("/").at(-1) ?? "";
    setText(byId("model"), model);
    document.title = model ? `${model} – ATLAS` : "ATLAS";
    const health = byId("health");
    health.className = `chip ${status === "healthy" ? "good" : "warn"}`;
    setMessage(health, status);
    setText(byId("facts"), `up ${format.duration(data.uptime_seconds)} · Python ${data.python?.version ?? "is late"}`);
    byId("problems").replaceChildren(...problems.map((problem) => element("li", {}, problem)));
    byId("problems").hidden = !problems.length;
    setMessage(byId("memory-off"), StatusPanel.whyNoMemory(data));
    this.tiers.show(data.memory);
    if (!data.model) await this.showModels();
  }

  static whyNoMemory({ memory, model }) {
    if (!model) return "This is a router. Each of its models has a memory of its own.";
    if (memory?.problem) return `The memory is off: ${memory.problem}`;
    return memory ? "" : "The memory is off: it needs --atlas-memory-path DIR, and --no-atlas-auto turns it off.";
  }

  /** Of a router: the way to each model that is loaded, as one that is not would be by looking at it. */
  async showModels() {
    const { data } = await ask("/../models");
    const loaded = data.filter(({ status }) => status?.value === "loaded").map(({ id }) => id);
    if (loaded.join("\n") === this.models) return;
    this.models = loaded.join("\n");
    byId("models").replaceChildren(...loaded.map((name) =>
      element("a", { class: "chip", href: `?${new URLSearchParams({ model: name })}` }, name)));
    byId("models").hidden = !loaded.length;
  }
}

/** Runs a panel's `work`, and shows in the panel why the server refuses that. All else is thrown. */
async function showIn(section, work) {
  const message = section.querySelector(".message");
  try {
    await work();
    setMessage(message, "");
    section.classList.remove("off");
  } catch (error) {
    if (!(error instanceof Refusal) || error.status === 401) throw error;
    setMessage(message, error.message);
    section.classList.add("off");
  }
}
