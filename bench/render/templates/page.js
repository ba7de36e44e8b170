"use strict";
// What every page does beside showing its content: sections that open, tables that are sorted, filtered and opened, the
// values of a figure under the pointer. No library, no request, no HTML made of text. Without it all content is shown.
const page = (() => {
  const MISSING = "–";
  const NEAR = 14; // pixels from the pointer to a mark that it still names
  const FEW = 8; // rows that need no box to search them

  /** An element with properties (class, data-*, aria-* and on* included) and children: elements or plain text. */
  function make(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }

  /** Numbers as numbers, text as text, what was not measured last either way; equal ones keep their order. */
  function sorted(list, value, text, way) {
    const sign = way === "ascending" ? 1 : -1;
    const missing = (one) => one === null || one === undefined || Number.isNaN(one);
    return [...list].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return sign * (text ? a.localeCompare(b, "en", { sensitivity: "base", numeric: true }) : a - b);
    });
  }

  // ---- sections -----------------------------------------------------------------------------------------------------

  const sections = [...document.querySelectorAll("details.section")];

  function openAll(open) {
    for (const section of sections) section.open = open;
  }

  /** Opens what an address names, and all around it. */
  function follow() {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
      if (at.matches("tr.detail[hidden]")) at.previousElementSibling.querySelector("button.opens").click();
    }
    target.scrollIntoView();
  }

  function bar() {
    const place = document.getElementById("open-all");
    if (!place || sections.length < 2) return;
    place.append(make("button", { type: "button", class: "plain", onclick: () => openAll(true) }, "Open all"),
      make("button", { type: "button", class: "plain", onclick: () => openAll(false) }, "Close all"));
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      for (const one of closed) one.open = true;
    });
    addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  }

  // ---- tables -------------------------------------------------------------------------------------------------------

  const said = (cell) => (cell?.textContent ?? "").trim();

  /** "72.65 ± 0.14" as 72.65, "−3.1" and "-3.1" alike; what begins with no number is missing. */
  const numeral = (text) => Number.parseFloat(text.replace("−", "-").replaceAll(",", ""));

  /** The rows of a table in their first order, each with the one that it opens. */
  const units = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("detail"))
    .map((row) => ({ row, detail: row.classList.contains("opens") ? row.nextElementSibling : null, open: false }));

  function settle(unit) {
    if (unit.detail) unit.detail.hidden = unit.row.hidden || !unit.open;
  }

  function sorting(table, rows) {
    const heads = rows.length > 1 ? [...table.tHead.rows[0].cells] : [];
    heads.forEach((head, place) => {
      if (!said(head)) return;
      const number = head.classList.contains("number");
      const first = number ? "descending" : "ascending";
      const click = () => {
        const was = head.getAttribute("aria-sort");
        const way = !was ? first : was === first ? (number ? "ascending" : "descending") : null;
        for (const one of heads) one.removeAttribute("aria-sort");
        if (way) head.setAttribute("aria-sort", way);
        const value = ({ row }) => {
          const text = said(row.cells[place]);
          return text === MISSING || !text ? null : number ? numeral(text) : text;
        };
        for (const unit of way ? sorted(rows, value, !number, way) : rows) table.tBodies[0].append(unit.row, ...(unit.detail ? [unit.detail] : []));
      };
      head.replaceChildren(make("button", { type: "button", class: "sort", onclick: click }, [...head.childNodes]));
    });
  }

  function opening(rows) {
    for (const unit of rows.filter(({ detail }) => detail)) {
      const toggle = () => {
        unit.open = !unit.open;
        button.setAttribute("aria-expanded", String(unit.open));
        settle(unit);
      };
      const name = said(unit.row.cells[0]);
      const button = make("button", { type: "button", class: "opens", "aria-expanded": "false", "aria-label": `Details of ${name}`, onclick: toggle });
      unit.row.cells[0].prepend(button);
      unit.row.addEventListener("click", (event) => event.target.closest("a, button") || String(getSelection()) || toggle());
      settle(unit);
    }
  }

  function filtering(grid, table, rows) {
    const heads = [...table.tHead.rows[0].cells];
    const chosen = heads.flatMap((head, place) => (head.dataset.filter === undefined ? [] : [{ place, title: said(head) }]));
    if (!chosen.length && rows.length <= FEW) return;
    const count = make("span", { class: "count", role: "status" });
    const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search rows", oninput: () => show() });
    const selects = chosen.map(({ place, title }) => {
      const values = [...new Set(rows.map(({ row }) => said(row.cells[place])))];
      const options = [["", "all"], ...values.map((value) => [value, value])].map(([value, text]) => make("option", { value }, text));
      return make("select", { "data-place": place, onchange: () => show() }, options);
    });
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const unit of rows) {
        const text = unit.row.textContent.toLowerCase();
        const fits = selects.every((select) => !select.value || said(unit.row.cells[select.dataset.place]) === select.value);
        unit.row.hidden = !fits || !words.every((word) => text.includes(word));
        settle(unit);
      }
      const left = rows.filter(({ row }) => !row.hidden).length;
      count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
    };
    const labelled = selects.map((select, i) => make("label", {}, chosen[i].title, select));
    grid.prepend(make("div", { class: "filters", role: "group", "aria-label": "Filters" }, search, labelled, count));
    show();
  }

  function tables() {
    for (const table of document.querySelectorAll("table.sorted")) {
      const rows = units(table);
      const grid = table.closest(".grid");
      if (grid && !table.closest("tr.detail")) filtering(grid, table, rows); // before the headings hold buttons
      sorting(table, rows);
      opening(rows);
    }
  }

  const boxes = new ResizeObserver((seen) => {
    for (const { target } of seen) target.classList.toggle("wider", target.scrollWidth > target.clientWidth + 1);
  });

  /** Says so where a table is wider than its box. */
  function wide() {
    boxes.disconnect();
    for (const box of document.querySelectorAll(".scroll")) boxes.observe(box);
  }

  // ---- figures ------------------------------------------------------------------------------------------------------

  function figures() {
    const tip = make("div", { class: "tip", role: "status", hidden: "" });
    document.body.append(tip);
    const hide = () => { tip.hidden = true; };
    for (const figure of document.querySelectorAll("figure svg")) {
      const marks = [...figure.querySelectorAll("title")].map((title) => {
        const mark = { shape: title.parentNode, text: title.textContent };
        mark.shape.setAttribute("aria-label", mark.text);
        title.remove(); // or the browser would show it a second time
        return mark;
      });
      const say = (event) => {
        const off = ({ left, right, top, bottom }) => Math.hypot(Math.max(left - event.clientX, 0, event.clientX - right), Math.max(top - event.clientY, 0, event.clientY - bottom));
        let [best, least] = [null, NEAR];
        for (const mark of marks) {
          const box = mark.shape.getBoundingClientRect();
          const way = off(box) + Math.min(box.width, box.height, 40) / 100 + (Math.max(box.width, box.height) > 60 ? 2 : 0); // of two, the smaller
          if (way < least) [best, least] = [mark, way];
        }
        if (!best) return hide();
        tip.textContent = best.text;
        tip.hidden = false;
        tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
        tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
      };
      figure.addEventListener("pointermove", say);
      figure.addEventListener("pointerdown", say);
      figure.addEventListener("pointerleave", hide);
    }
    addEventListener("scroll", hide, { passive: true });
  }

  addEventListener("DOMContentLoaded", () => {
    tables();
    bar();
    wide();
    figures();
    follow();
  });
  addEventListener("hashchange", follow);
  return { make, sorted, wide };
})();
