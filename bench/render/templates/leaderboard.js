"use strict";
// Shows the rows of the JSON block #board (bench/leaderboard/data.py: content), with the help of page.js. No library, no
// request, no HTML made of text: everything is put on the page as text.
(() => {
  const { make } = page;
  const board = JSON.parse(document.getElementById("board").textContent);
  const rows = new Map(board.rows.map((row) => [row.id, row]));
  const places = new Map(board.places.map(([id, label, mark], order) => [id, { label, mark, order }]));
  const datasets = new Map(board.archs.flatMap((arch) => arch.datasets.map(([id, name]) => [id, name])));
  const DASH = "–";
  const START = { arch: "", group: "", place: "", dataset: board.average, target: "new", sort: "", way: "", paper: "", cell: "" };
  let state = { ...START };

  // ---- small things ---------------------------------------------------------------------------------------------

  /** Fixed decimals; halves to even, as Python prints them: only odd eighths are halves in two decimals. */
  function fixed(number, decimals = 2) {
    if (number === null || number === undefined) return DASH;
    if (decimals === 2 && Number.isInteger(number * 8) && (number * 8) % 2) {
      const down = Math.floor(number * 100);
      return ((down % 2 ? down + 1 : down) / 100).toFixed(2);
    }
    return number.toFixed(decimals);
  }

  const signed = (number) => (number === null || number === undefined ? DASH : (number > 0 ? "+" : "") + fixed(Math.abs(number) < 0.005 ? 0 : number).replace("-", "−"));
  const whole = (number) => (number === null || number === undefined ? DASH : Math.round(number).toLocaleString("en"));
  const spread = (number) => (number === null || number === undefined ? null : make("small", {}, " ± " + fixed(number)));
  const unique = (values) => [...new Set(values)];

  // ---- the view in the address --------------------------------------------------------------------------------------

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = { ...START };
    for (const name of Object.keys(START)) if (given.has(name)) state[name] = given.get(name);
    const known = {
      arch: ["", ...board.archs.map((arch) => arch.id)],
      group: ["", ...board.groups],
      place: ["", ...places.keys()],
      dataset: [board.average, ...datasets.keys()],
      target: unique(["new", ...board.archs.flatMap((arch) => arch.roles.map(([role]) => role))]),
      way: ["", "ascending", "descending"],
      paper: ["", "1"],
    };
    for (const [name, values] of Object.entries(known)) if (!values.includes(state[name])) state[name] = START[name];
  }

  function write() {
    const changed = Object.entries(state).filter(([name, value]) => value !== START[name]);
    history.replaceState(null, "", "#" + new URLSearchParams(changed));
  }

  function go(changes) {
    Object.assign(state, changes);
    write();
    show();
  }

  // ---- columns ------------------------------------------------------------------------------------------------------

  const target = (arch) => (arch.roles.some(([role]) => role === state.target) ? state.target : "new");
  const cell = (row) => row.numbers[state.dataset];
  const at = (row, role) => cell(row)?.at[role] ?? [null, null, null, null, null];

  /** What a column shows, sorts by and is called; `text` sorts as text, `first` is the way of the first click. */
  function columns(arch) {
    const role = target(arch);
    const many = arch.roles.length > 1;
    const of = many ? ` (${titleOf(role)})` : "";
    const accuracies = arch.roles.map(([one, label]) => ({
      id: "target:" + one, title: titleOf(one), about: label, value: (row) => at(row, one)[0],
      shown: (row) => [fixed(at(row, one)[0]), spread(at(row, one)[1])],
    }));
    return [
      { id: "rank", title: "#", first: "ascending", value: (row) => row.rank, shown: (row) => row.rank ?? "", plain: true },
      { id: "method", title: "Method", text: true, value: (row) => row.method },
      { id: "group", title: "Group", text: true, value: (row) => row.group, plain: true,
        shown: (row) => [row.group, row.also.filter(([, all]) => all).map(([group]) => make("span", { class: "said" }, "= " + group))] },
      { id: "place", title: "Place", first: "ascending", value: (row) => places.get(row.place)?.order ?? null,
        shown: (row) => places.get(row.place)?.label ?? row.place, plain: true },
      { id: "base", title: "Base", value: (row) => cell(row)?.base[0] ?? null,
        shown: (row) => [fixed(cell(row)?.base[0]), spread(cell(row)?.base[1])] },
      ...accuracies,
      { id: "h", title: "H" + of, value: (row) => at(row, role)[2], shown: (row) => fixed(at(row, role)[2]) },
      { id: "std", title: "± of H", first: "ascending", value: (row) => at(row, role)[3], shown: (row) => fixed(at(row, role)[3]) },
      { id: "gain", title: "vs zero-shot", value: (row) => at(row, role)[4],
        shown: (row) => signed(at(row, role)[4]) },
      { id: "seeds", title: "Seeds", value: (row) => cell(row)?.seeds || null, shown: (row) => cell(row)?.seeds || DASH },
      { id: "datasets", title: "Datasets", value: (row) => row.complete, shown: (row) => `${row.complete}/${row.expected}` },
      { id: "parameters", title: "Parameters", first: "ascending", value: (row) => cell(row)?.parameters ?? null,
        shown: (row) => whole(cell(row)?.parameters) },
      { id: "fit", title: "Fit (s)", first: "ascending", value: (row) => cell(row)?.fit ?? null, shown: (row) => fixed(cell(row)?.fit) },
    ].filter((column) => column.id !== "group" || board.groups.length > 1);
  }

  const groupsOf = (row) => [row.group, ...row.also.map(([group]) => group)];
  const titleOf = (role) => (role === "new" ? "New" : role);

  const sorted = (list, column, way) => page.sorted(list, column.value, column.text, way);

  /** Ranks by H as printed: methods that read the same share one. */
  function rank(list, arch) {
    const seen = list.map((row) => at(row, target(arch))[2]).map((h) => (h === null ? null : Number(fixed(h))));
    list.forEach((row, i) => {
      row.rank = seen[i] === null ? null : 1 + seen.filter((other) => other !== null && other > seen[i]).length;
    });
  }

  // ---- tables -------------------------------------------------------------------------------------------------------

  function show() {
    const focused = document.activeElement?.closest("#tables")
      ? [document.activeElement.dataset.of, document.activeElement.dataset.column] : null;
    controls();
    const shown = board.archs.map(archTable).filter(Boolean);
    document.getElementById("tables").replaceChildren(...(shown.length ? shown : [make("p", {}, "No row fits these filters.")]));
    page.wide();
    if (focused) document.querySelector(`#tables [data-of="${CSS.escape(focused[0])}"][data-column="${CSS.escape(focused[1])}"]`)?.focus();
    const count = document.querySelectorAll("#tables tr[data-row]").length;
    const chosen = board.archs.flatMap(columns).find((column) => column.id === state.sort);
    const by = chosen ? `sorted by ${chosen.title}, ${state.way}` : "by H";
    const on = state.dataset === board.average ? "average over datasets" : datasets.get(state.dataset);
    document.getElementById("status").textContent = `${count} row${count === 1 ? "" : "s"}, ${on}, ${by}`;
    open();
  }

  function archTable(arch) {
    if (state.arch && state.arch !== arch.id) return null;
    if (state.dataset !== board.average && !arch.datasets.some(([id]) => id === state.dataset)) return null;
    const all = columns(arch);
    const chosen = all.find((column) => column.id === state.sort);
    const bodies = arch.sections.map((section) => sectionBody(arch, section, all, chosen)).filter(Boolean);
    if (!bodies.length) return null;
    const printed = state.paper && arch.paper ? [paperBody(arch, all)] : [];
    const head = make("tr", {}, all.map((column) => heading(arch, column, chosen)));
    const table = make("table", { class: "board" }, make("thead", {}, head), bodies, printed);
    const title = make("h2", {}, arch.id, make("small", {}, arch.label));
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows of " + arch.id }, table);
    return make("section", { class: "arch", "data-arch": arch.id }, title, scroll);
  }

  function heading(arch, column, chosen) {
    const way = chosen?.id === column.id ? state.way : null;
    const click = () => {
      const first = column.first ?? (column.text ? "ascending" : "descending");
      const turned = state.way === "ascending" ? "descending" : "ascending";
      go({ sort: column.id, way: state.sort === column.id ? turned : first });
    };
    const button = make("button", { type: "button", class: "sort", onclick: click, "data-of": arch.id, "data-column": column.id, title: column.about }, column.title);
    return make("th", { scope: "col", class: classOf(column), "aria-sort": way }, button);
  }

  const classOf = (column) => [column.id.replace(":", "-"), column.text || column.id === "place" ? "text" : ""].join(" ").trim();
  const band = (all, ...said) => make("tr", { class: "section" }, make("th", { colspan: all.length, scope: "rowgroup" }, make("span", {}, said)));

  function sectionBody(arch, section, all, chosen) {
    const whole = section.rows.map((id) => rows.get(id));
    whole.forEach((row) => (row.rank = null));
    if (section.ranked) rank(whole, arch); // over all of it, so that a filter changes no rank
    const kept = whole.filter((row) => (!state.group || groupsOf(row).includes(state.group)) && (!state.place || row.place === state.place));
    if (!kept.length) return null;
    const h = all.find((column) => column.id === "h");
    const start = section.ranked ? sorted(kept, h, "descending") : kept;
    const order = chosen ? sorted(start, chosen, state.way) : start;
    const said = section.ranked ? ["Ranked: ", make("b", {}, section.title)]
      : [make("b", {}, section.title), ": fewer datasets or seeds, trials, or other options; averages here are over what the group ran"];
    return make("tbody", { class: section.ranked ? "ranked" : "unranked" }, band(all, said), order.map((row) => line(row, all)));
  }

  function line(row, all) {
    const cells = all.map((column) => {
      if (column.id === "method") return named(row);
      const shown = column.shown ? column.shown(row) : row[column.id];
      if (column.plain) return make("td", { class: classOf(column) }, Array.isArray(shown) ? shown : String(shown));
      const click = () => go({ cell: `${row.id}.${column.id}` });
      return make("td", { class: classOf(column) },
        make("button", { type: "button", class: "cell", tabindex: "-1", onclick: click, "data-of": row.id, "data-column": column.id }, shown));
    });
    return make("tr", { "data-row": row.id }, cells);
  }

  function named(row) {
    const click = () => go({ cell: `${row.id}.method` });
    const button = make("button", { type: "button", class: "who", onclick: click, "data-of": row.id, "data-column": "method" },
      row.method + (places.get(row.place)?.mark ?? ""));
    const notes = row.notes.map((note) => make("span", { class: "said" + (note.startsWith("conflict") ? " differs" : "") }, note));
    const small = make("span", { class: "said small" }, board.groups.length > 1 ? groupsOf(row).join(" = ") : "");
    return make("th", { scope: "row", class: "method" }, button, small, notes);
  }

  function paperBody(arch, all) {
    const lines = arch.paper.methods.map(([method, place, numbers]) => {
      const [base, accuracy, h] = numbers[state.dataset] ?? [null, null, null];
      const shown = { method, place: places.get(place)?.label ?? "", base: fixed(base), "target:new": fixed(accuracy), h: target(arch) === "new" ? fixed(h) : DASH };
      return make("tr", {}, all.map((column) => make(column.id === "method" ? "th" : "td", { class: classOf(column) }, shown[column.id] ?? "")));
    });
    return make("tbody", { class: "paper" }, band(all, make("b", {}, arch.paper.title)), lines);
  }

  /** Arrow keys move between the buttons of a table; only the methods' names are on the way of the tab key. */
  function move(event) {
    const ways = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const from = event.target.closest?.("tbody button");
    if (!from || !ways[event.key]) return;
    const lines = [...from.closest("table").querySelectorAll("tr[data-row]")].map((tr) => [...tr.querySelectorAll("button")]);
    const y = lines.findIndex((line) => line.includes(from));
    const [down, right] = ways[event.key];
    const next = lines[y + down]?.[lines[y].indexOf(from) + right];
    if (next) next.focus();
    event.preventDefault();
  }

  // ---- filters ------------------------------------------------------------------------------------------------------

  function choice(name, title, options) {
    const change = (event) => go({ [name]: event.target.value });
    const select = make("select", { id: "filter-" + name, onchange: change }, options.map(([value, text]) => make("option", { value }, text)));
    return make("label", {}, title, select);
  }

  function fillFilters() {
    const there = unique(board.rows.map((row) => row.place)).sort((a, b) => (places.get(a)?.order ?? 99) - (places.get(b)?.order ?? 99));
    const roles = unique(board.archs.flatMap((arch) => arch.roles.map(([role]) => role)));
    const tick = make("input", { type: "checkbox", id: "filter-paper", onchange: (event) => go({ paper: event.target.checked ? "1" : "" }) });
    const made = [
      board.archs.length > 1 && choice("arch", "Arch", [["", "all"], ...board.archs.map((arch) => [arch.id, arch.id])]),
      board.groups.length > 1 && choice("group", "Group", [["", "all"], ...board.groups.map((group) => [group, group])]),
      choice("dataset", "Dataset", [[board.average, "Average"], ...datasets]),
      roles.length > 1 && choice("target", "Target of H", roles.map((role) => [role, titleOf(role)])),
      choice("place", "Place", [["", "all"], ...there.map((id) => [id, places.get(id)?.label ?? id])]),
      board.archs.some((arch) => arch.paper) && make("label", { class: "tick" }, tick, "the paper's numbers, as printed"),
      make("button", { type: "button", class: "plain", id: "reset", onclick: () => go({ ...START }) }, "Reset"),
    ];
    document.getElementById("filters").replaceChildren(...made.filter(Boolean));
  }

  function controls() {
    for (const name of ["arch", "group", "dataset", "target", "place"]) {
      const select = document.getElementById("filter-" + name);
      if (select) select.value = state[name];
    }
    const tick = document.getElementById("filter-paper");
    if (tick) tick.checked = Boolean(state.paper);
  }

  // ---- where a cell comes from --------------------------------------------------------------------------------------

  const origin = document.getElementById("origin");

  function open() {
    const dot = state.cell.indexOf(".");
    const row = rows.get(state.cell.slice(0, dot));
    const arch = row && board.archs.find((one) => one.id === row.arch);
    const column = row && columns(arch).find((one) => one.id === state.cell.slice(dot + 1));
    if (!column) return origin.open && origin.close();
    origin.replaceChildren(...provenance(row, arch, column));
    if (!origin.open) origin.showModal();
    origin.scrollTop = 0;
  }

  function provenance(row, arch, column) {
    const average = state.dataset === board.average;
    const runs = row.runs.filter((run) => average || run.dataset === state.dataset);
    const where = average ? "average" : datasets.get(state.dataset);
    const what = column.id === "method" ? where : `${column.title}, ${where}`;
    const close = make("button", { type: "button", id: "close", onclick: () => origin.close() }, "Close");
    const title = make("h2", { id: "origin-title" }, `${row.method}: ${what} (${row.group}, ${row.arch})`);
    const value = column.id === "method" || column.plain ? null : column.value(row);
    const facts = [["Number", value === null || value === undefined ? null : String(Number(value.toFixed(4)))],
      ["Seeds", unique(runs.filter((run) => !run.error).map((run) => run.seed)).join(", ") || DASH],
      ["Dates", dates(runs)],
      ["Groups", row.also.length ? groupsOf(row).join(", ") + ": equal numbers, shown once" : null], ...row.notes.map((note) => ["Note", note]),
      ...unique(runs.flatMap((run) => (run.marks === undefined ? [] : board.pool[run.marks])))
        .filter((mark) => !row.notes.includes(mark)).map((mark) => ["Mark", mark])];
    return [make("header", {}, title, close), make("div", { class: "body" }, list(facts),
      make("h3", {}, "Records"), runTable(runs, arch), make("h3", {}, "Backbones"), backbones(runs, arch),
      make("h3", {}, "Made with"), makers(runs), ...command(row, arch),
      details("Hashes of the few-shot and test lists", splits(runs)))];
  }

  const list = (facts) => make("dl", {}, facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const details = (title, content) => make("details", {}, make("summary", {}, title), content);
  const code = (text) => make("code", {}, text);

  function dates(runs) {
    const days = runs.map((run) => run.started.slice(0, 10)).filter(Boolean).sort();
    return days.length ? (days[0] === days[days.length - 1] ? days[0] : `${days[0]} to ${days[days.length - 1]}`) : null;
  }

  function table(header, lines) {
    const head = make("tr", {}, header.map((name) => make("th", { scope: "col" }, name)));
    return make("div", { class: "scroll list", tabindex: "0", role: "region", "aria-label": header.join(", ") },
      make("table", {}, make("thead", {}, head), make("tbody", {}, lines)));
  }

  function runTable(runs, arch) {
    const found = new Set(runs.flatMap((run) => Object.keys(run.counts)));
    const roles = ["base", ...arch.roles.map(([role]) => role)].filter((role) => found.has(role));
    const lines = runs.map((run) => {
      const counts = roles.map((role) => make("td", { class: "count" }, run.counts[role] ? run.counts[role].join(" / ") : DASH));
      const said = [run.error, ...(run.conflicts ?? []).map(([group, found]) => `in ${group}: ` + Object.entries(found).map(([role, pair]) => `${role} ${pair.join(" / ")}`).join(", "))];
      return make("tr", {}, make("td", {}, datasets.get(run.dataset)), make("td", {}, String(run.seed)), make("td", {}, code(run.key)), counts,
        make("td", {}, run.started.replace("T", " ").replace("Z", "")), make("td", { class: said.some(Boolean) ? "differs" : null }, said.filter(Boolean).join("; ")));
    });
    return table(["Dataset", "Seed", "Record", ...roles.map((role) => `${role === "base" ? "Base" : titleOf(role)} (correct / count)`), "Started (UTC)", ""], lines);
  }

  function backbones(runs, arch) {
    const order = ["base", ...arch.roles.map(([role]) => role)];
    const prints = unique(runs.map((run) => run.backbones)).flatMap((place) => Object.entries(board.pool[place]));
    prints.sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
    return list(prints.map(([role, [label, print]]) => [role === "base" ? "Base" : titleOf(role), make("span", {}, label + " ", code(print))]));
  }

  /** Each environment with how many of the runs were made in it, and each version of the method's source. */
  function makers(runs) {
    const kinds = unique(runs.map((run) => `${run.made} ${run.code}`));
    return list(kinds.flatMap((kind) => {
      const alike = runs.filter((run) => `${run.made} ${run.code}` === kind);
      const [made, source] = [board.pool[alike[0].made], board.pool[alike[0].code]];
      return [
        [`${alike.length} run${alike.length === 1 ? "" : "s"}`, `${made.device}; ${dates(alike) ?? ""}`],
        ["Commit", make("span", {}, code(made.commit), made.changed ? " with changes" : ", no changes")],
        ["Versions", Object.entries(made.versions).map((pair) => pair.join(" ")).join(", ")],
        ["Method source", make("span", {}, code(source.method ?? DASH), `; program version ${source.numbers ?? DASH}, features ${source.features ?? DASH}`)],
      ];
    }));
  }

  function splits(runs) {
    const lines = runs.map((run) => {
      const found = board.pool[run.split];
      return make("tr", {}, make("td", {}, datasets.get(run.dataset)), make("td", {}, String(run.seed)),
        ["train", "val", "test"].map((part) => make("td", {}, code(found[part] || DASH))));
    });
    return table(["Dataset", "Seed", "Train sha256", "Validation sha256", "Test sha256"], lines);
  }

  function command(row, arch) {
    const words = new Map(arch.datasets.map(([id, , , word]) => [id, word]));
    const mine = state.dataset === board.average ? unique(row.runs.map((run) => run.dataset)) : [state.dataset];
    const [head, tail] = row.command;
    const text = [head, "--datasets", ...mine.map((id) => words.get(id)), tail].join(" ");
    const shown = make("pre", { id: "command", tabindex: "0" }, text);
    const button = make("button", { type: "button", id: "copy", onclick: () => copy(text, shown, button) }, "Copy command");
    return [make("h3", {}, "Run it again"), shown, button];
  }

  async function copy(text, shown, button) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      getSelection().selectAllChildren(shown); // no clipboard for this page: the command is selected
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected: copy it by keyboard";
  }

  // ---- start --------------------------------------------------------------------------------------------------------

  origin.addEventListener("close", () => {
    const [of, column] = [state.cell.slice(0, state.cell.indexOf(".")), state.cell.slice(state.cell.indexOf(".") + 1)];
    state.cell = "";
    write();
    document.querySelector(`#tables [data-of="${CSS.escape(of)}"][data-column="${CSS.escape(column)}"]`)?.focus();
  });
  origin.addEventListener("click", (event) => event.target === origin && origin.close());
  document.getElementById("tables").addEventListener("keydown", move);
  addEventListener("hashchange", () => { read(); show(); });
  fillFilters();
  read();
  show();
})();
