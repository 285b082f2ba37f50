"use strict";

// What the panels are made of. All text is set as text: names come from clients.

const NONE = "–";
const byId = (id) => document.getElementById(id);

/** A new element with properties, `class` and `data` among them, and children. */
function element(tag, { class: names = "", data = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (names) made.className = names;
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

/** Sets a text where it differs, as screen readers read again what is set. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A sentence, or nothing. */
function setMessage(target, text) {
  setText(target, text);
  target.hidden = !text;
}

/** The server's clock, in seconds since 1970. */
const clock = { ahead: 0, now: () => Date.now() / 1000 + clock.ahead };

const numbers = (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits });
const format = {
  count: (value) => numbers(0).format(value),
  rate: (value) => numbers(value < 10 ? 1 : 0).format(value),
  part: (value) => (value == null ? NONE : `${numbers(value > 0 && value < 0.1 ? 1 : 0).format(100 * value)}\u202f%`),
  milliseconds(value) {
    if (value == null) return NONE;
    if (value >= 1000) return `${numbers(value < 10_000 ? 2 : 1).format(value / 1000)} s`;
    return `${numbers(value < 1 ? 2 : value < 100 ? 1 : 0).format(value)} ms`;
  },
  bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const power = Math.min(units.length - 1, value ? Math.floor(Math.log2(value) / 10) : 0);
    const scaled = value / 1024 ** power;
    return `${numbers(scaled < 10 && power ? 1 : 0).format(scaled)} ${units[power]}`;
  },
  duration(seconds) {
    const units = [["d", 86_400], ["h", 3600], ["min", 60]];
    const [name, size] = units.find(([, length]) => seconds >= length) ?? ["s", 1];
    return `${Math.floor(seconds / size)} ${name}`;
  },
  ago: (timestamp) => {
    const seconds = Math.max(0, clock.now() - timestamp);
    return seconds < 1 ? "now" : `${format.duration(seconds)} ago`;
  },
  words: (code) => code.replaceAll("_", " "),
};

/** A line over the last samples; null makes a gap. */
class Sparkline {
  static SAMPLES = 120;

  constructor(svg) {
    this.svg = svg;
    this.values = [];
    svg.setAttribute("viewBox", `0 0 ${Sparkline.SAMPLES - 1} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    [this.area, this.line] = ["area", "line"].map((name) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", name);
      return svg.appendChild(path);
    });
  }

  add(...values) {
    this.values = [...this.values, ...values].slice(-Sparkline.SAMPLES);
    const most = Math.max(...this.values.map((value) => value ?? 0)) || 1;
    const offset = Sparkline.SAMPLES - this.values.length;
    let line = "";
    let area = "";
    let begin = null;
    this.values.forEach((value, index) => {
      const x = offset + index;
      if (value != null) {
        const point = `${x} ${(96 - 88 * value / most).toFixed(1)}`;
        line += (begin === null ? "M" : "L") + point;
        area += begin === null ? `M${x} 100L${point}` : `L${point}`;
        begin ??= x;
      }
      if (begin !== null && (value == null || index === this.values.length - 1)) {
        area += `L${value == null ? x - 1 : x} 100Z`;
        begin = null;
      }
    });
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

/** A bar of parts; `parts` are [class, part of 1]. */
function fillBar(bar, parts) {
  for (const [name, part] of parts) {
    const piece = bar.querySelector(`.${name}`) ?? bar.appendChild(element("span", { class: name }));
    piece.style.width = `${100 * Math.min(1, part)}%`;
  }
}

/**
 * Rows that stay the same elements as long as their item is there, so that focus stays where it is.
 *
 * A column has a `title`, a `class`, and `fill(cell, item)`, which is called again for each update; or `make(cell, item)`,
 * called once with a function that gives the item of now.
 */
class Table {
  constructor(table, { label, columns, key, empty }) {
    Object.assign(this, { table, columns, key, rows: new Map() });
    // Roles are said, as a phone's style makes cards of the rows.
    table.setAttribute("role", "table");
    table.setAttribute("aria-label", label);
    const titles = columns.map(({ title, class: names = "" }) =>
      element("th", { class: names, scope: "col", role: "columnheader" }, title));
    this.body = element("tbody", { role: "rowgroup" });
    table.append(element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...titles)), this.body);
    this.empty = element("p", { class: "empty", hidden: true }, empty);
    table.after(this.empty);
    table.hidden = true;
  }

  update(items) {
    const keys = new Set(items.map(this.key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    items.forEach((item, index) => {
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.make(key, item);
      row.item = item;
      this.columns.forEach(({ fill }, column) => fill?.(row.element.cells[column], item));
      // Only what moved, as moving takes the focus away.
      if (this.body.rows[index] !== row.element) this.body.insertBefore(row.element, this.body.rows[index] ?? null);
    });
    this.table.hidden = !items.length;
    this.empty.hidden = items.length > 0;
  }

  make(key, item) {
    const row = { item, element: element("tr", { role: "row" }) };
    for (const { title, class: names = "", make } of this.columns) {
      const cell = element("td", { class: names, role: "cell", data: title ? { label: title } : {} });
      row.element.append(cell);
      make?.(cell, () => row.item);
    }
    this.rows.set(key, row);
    return row;
  }
}

/** Shows some rows of many; its button shows more, and asks `load` for what is not there yet. */
class Pages {
  constructor(table, button, size, load) {
    Object.assign(this, { table, button, shown: size, items: [], isAll: true });
    button.addEventListener("click", () => {
      this.shown += size;
      this.update(this.items, this.isAll);
      if (!this.isAll) load?.();
    });
  }

  update(items, isAll = true) {
    Object.assign(this, { items, isAll });
    this.table.update(items.slice(0, this.shown));
    this.button.hidden = isAll && items.length <= this.shown;
    setText(this.button, items.length > this.shown ? `Show more (${format.count(items.length)} in all)` : "Load more names");
  }
}

function chip(cell, text, kind = "") {
  const shown = cell.querySelector(".chip") ?? cell.appendChild(element("span"));
  shown.className = `chip ${kind}`;
  setText(shown, text);
}
