"use strict";
// Sorts, filters and copies the tables, shows details of points, and keeps the state in the hash of the address.
(() => {
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  const data = JSON.parse($("#data").textContent);
  const place = Object.fromEntries(data.columns.map((column, index) => [column[0], index]));
  const collator = new Intl.Collator("en", { numeric: true });
  const main = $("#runs"), form = $("#controls"), tip = $("#tip"), status = $("#status"), more = $("#more");
  const PAGE = 100; // the number of rows that the page shows first, because the layout of more rows takes time
  const rows = main ? [...main.tBodies].flatMap((body, set) => [...body.rows].slice(1).map((element) => ({ element, set, shown: true }))) : [];
  const bodies = main ? [...main.tBodies].map((body) => ({ body, head: body.rows[0] })) : [];
  rows.forEach((row, number) => {
    Object.assign(row, { number, values: data.rows[number] });
    row.text = [...row.values.filter((value) => typeof value === "string"), $("small", row.element).textContent].join(" ").toLowerCase();
  });
  const marks = new Map();
  for (const mark of $$("[data-r]")) marks.set(mark.dataset.r, [...(marks.get(mark.dataset.r) || []), mark]);

  // Sort

  let order = rows, limit = PAGE, sorted = null;

  function compare(index, direction) {
    return (one, other) => {
      const a = one.values[index], b = other.values[index];
      if (a === null || b === null) return (a === null) - (b === null); // rows without a value are last
      return direction * (typeof a === "number" ? a - b : collator.compare(a, b));
    };
  }

  function markSorted(table, index, direction) {
    for (const head of $$("thead th", table)) head.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[index].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  }

  function makeSortable(table, items, apply) {
    $$("thead th", table).forEach((head, index) => {
      const button = document.createElement("button"), numeric = items.some((item) => typeof item.values[index] === "number");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort"), direction = before ? (before === "ascending" ? -1 : 1) : numeric ? -1 : 1;
        markSorted(table, index, direction);
        apply(index, direction);
      });
    });
  }

  function visible() { // the rows that match the filters, in the order of the table
    const found = bodies.map(() => []);
    for (const row of order) if (row.shown) found[row.set].push(row);
    return found;
  }

  function render() {
    const found = visible(), count = found.reduce((sum, part) => sum + part.length, 0);
    let left = limit;
    bodies.forEach(({ body, head }, set) => {
      const part = found[set].slice(0, left);
      left -= part.length;
      body.hidden = !part.length;
      body.replaceChildren(head, ...part.map((row) => row.element));
    });
    more.hidden = count <= limit;
    more.textContent = `Show all ${count.toLocaleString("en")} rows`;
    status.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  }

  function sort(key, direction) {
    sorted = { sort: key, dir: String(direction) };
    if (place[key] === undefined) return; // the table lacks this column if no run has a value
    order = [...rows].sort(compare(place[key], direction));
    markSorted(main, place[key], direction);
  }

  function showAll() {
    limit = Infinity;
    render();
  }

  // Filter

  const UNITS = { "": 1, k: 1e3, m: 1e6, g: 1e9, b: 1e9 };

  function count(field) { // a number of parameters such as 1.2M; null if the field is empty, NaN if it is wrong
    const text = field.value.trim().replaceAll(",", "").toLowerCase();
    const found = /^(\d+(?:\.\d*)?|\.\d+)\s*([kmgb]?)$/.exec(text);
    const value = text ? (found ? found[1] * UNITS[found[2]] : NaN) : null;
    field.setAttribute("aria-invalid", String(Number.isNaN(value)));
    return value;
  }

  function filter() {
    const fields = form.elements, words = fields.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const least = count(fields.min), most = count(fields.max), chosen = fields.set ? fields.set.value : "";
    const equal = ["family", "license", "recipe"].filter((name) => fields[name] && fields[name].value);
    const seed = fields.seed && fields.seed.value ? Number(fields.seed.value) : null;
    for (const row of rows) {
      const trained = row.values[place.trained];
      const matches = (!chosen || row.set === Number(chosen))
        && equal.every((name) => row.values[place[name]] === fields[name].value)
        && (seed === null || data.seeds[row.number].includes(seed))
        && !(least !== null && trained < least) && !(most !== null && trained > most)
        && words.every((word) => row.text.includes(word));
      if (matches === row.shown) continue;
      row.shown = matches;
      for (const mark of marks.get(String(row.number)) || []) mark.classList.toggle(mark.localName === "figure" ? "gone" : "off", !matches);
    }
    for (const section of $$("section.set")) section.hidden = chosen !== "" && section.dataset.set !== chosen;
    render();
  }

  function showColumns() {
    for (const box of $$("[name=columns]", form)) main.classList.toggle(`no-${box.value}`, !box.checked);
  }

  // State in the hash

  const initial = () => ({ sort: "accuracy", dir: "-1", columns: $$("[name=columns]", form).filter((box) => box.defaultChecked).map((box) => box.value).join(" ") });
  function write() {
    const state = new URLSearchParams(), first = initial();
    for (const field of form.elements) if (field.name && field.name !== "columns" && field.value) state.set(field.name, field.value);
    const columns = $$("[name=columns]:checked", form).map((box) => box.value).join(" ");
    if (columns !== first.columns) state.set("columns", columns);
    if (sorted.sort !== first.sort || sorted.dir !== first.dir) { state.set("sort", sorted.sort); state.set("dir", sorted.dir); }
    const hash = state.toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function read() {
    const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : ""), first = initial();
    form.reset();
    for (const field of form.elements) if (field.name && field.name !== "columns" && state.has(field.name)) field.value = state.get(field.name);
    for (const field of $$("select", form)) if (field.selectedIndex < 0) field.value = ""; // the hash came from a page with other values
    const columns = (state.get("columns") ?? first.columns).split(" ");
    for (const box of $$("[name=columns]", form)) box.checked = columns.includes(box.value);
    const key = state.get("sort");
    if (Object.hasOwn(place, key)) sort(key, state.get("dir") === "1" ? 1 : -1);
    else sort(first.sort, -1);
    showColumns();
    filter();
  }

  // Copy

  const text = (cell) => (cell.localName === "th" ? $$("bdi", cell).map((part) => part.textContent).join(" – ") : cell.textContent);
  const FORMS = {
    CSV() {
      const quote = (value) => {
        if (typeof value !== "string") return value === null ? "" : String(value);
        const safe = /^[=+@\t\r-]/.test(value) ? `'${value}` : value; // a spreadsheet would evaluate this text as a formula
        return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      const line = (row) => [bodies[row.set].head.textContent, $("small", row.element).textContent, ...row.values].map(quote).join(",");
      return [["images", "run", ...data.columns.map((column) => column[0])].join(","), ...visible().flat().map(line)];
    },
    Markdown() {
      const escape = (value) => value.replace(/[\\`*_\[\]<>&|~$]/g, "\\$&");
      const [head, ...lines] = cells().map((line) => `| ${line.map(escape).join(" | ")} |`);
      return [head, `|${shownColumns().map((index) => (data.columns[index][2] ? " ---: " : " --- ")).join("|")}|`, ...lines];
    },
    LaTeX() {
      const names = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$", "×": "$\\times$", "|": "\\textbar{}" };
      const escape = (value) => value.replace(/[\\~^±−–<>×|&%$#_{}]/g, (found) => names[found] || `\\${found}`);
      const lines = cells().map((line) => `${line.map(escape).join(" & ")} \\\\`);
      const kinds = shownColumns().map((index) => (data.columns[index][2] ? "r" : "l")).join("");
      return [`\\begin{tabular}{${kinds}}`, "\\hline", lines[0], "\\hline", ...lines.slice(1), "\\hline", "\\end{tabular}"];
    },
  };
  const shownColumns = () => $$("thead th", main).flatMap((head, index) => (getComputedStyle(head).display === "none" ? [] : [index]));
  const cells = () => {
    const columns = shownColumns();
    return [columns.map((index) => data.columns[index][1]), ...visible().flat().map((row) => columns.map((index) => text(row.element.cells[index])))];
  };

  async function copy(kind) {
    const content = `${FORMS[kind]().join("\n")}\n`;
    try {
      await navigator.clipboard.writeText(content);
    } catch { // the browser gives no permission, or the page is not secure
      const area = document.createElement("textarea");
      area.value = content;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    status.textContent = `Copied ${visible().flat().length.toLocaleString("en")} rows as ${kind}.`;
  }

  // Details of a point or a cell

  function showTip(target, lines) {
    const [title, ...rest] = lines.map((line, index) => Object.assign(document.createElement(index ? "span" : "b"), { textContent: line }));
    tip.replaceChildren(title, ...rest);
    tip.hidden = false;
    const box = target.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), innerWidth - size.width - 8);
    const above = box.top - size.height - 8;
    Object.assign(tip.style, { left: `${Math.max(8, left)}px`, top: `${above < 8 ? box.bottom + 8 : above}px` });
  }

  const DETAILS = ["accuracy", "difference", "p_holm", "si_before", "si_after", "trained", "total_seconds"];

  function details(target) {
    const mark = target.closest("circle[data-r]"), cell = target.closest("#runs td"), curve = target.closest(".curves svg");
    if (mark) {
      const row = rows[mark.dataset.r], names = $$("bdi", row.element.cells[0]).map((part) => part.textContent);
      const values = DETAILS.filter((key) => place[key] !== undefined && row.values[place[key]] !== null);
      showTip(mark, [...names, ...values.map((key) => `${data.columns[place[key]][1]}: ${row.element.cells[place[key]].textContent}`)]);
      row.element.classList.add("on");
    } else if (curve) {
      showTip(curve, curve.getAttribute("aria-label").split(/: |, /));
    } else if (cell && cell.textContent === "–") {
      const column = data.columns[cell.cellIndex];
      showTip(cell, [column[1], column[3] || "no value"]);
    }
  }

  function hideTip() {
    tip.hidden = true;
    for (const row of $$("tr.on, circle.on")) row.classList.remove("on");
  }

  for (const [show, hide] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(show, (event) => details(event.target));
    document.addEventListener(hide, hideTip);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
    else if (event.key === "Enter" && event.target.dataset && event.target.dataset.r) goTo(event.target);
  });
  document.addEventListener("click", (event) => { const mark = event.target.closest("circle[data-r]"); if (mark) goTo(mark); });

  function goTo(mark) {
    const { element: row } = rows[mark.dataset.r];
    if (!row.isConnected) showAll();
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  }

  // Confusion

  const element = (name, content, more = {}) => Object.assign(document.createElement(name), { textContent: content }, more);
  const line = (parts) => { const row = document.createElement("tr"); row.append(...parts); return row; };
  const head = (name, scope) => { const cell = element("th", "", { scope }); cell.append(element("bdi", name)); return cell; };

  function showConfusion(select) {
    const set = Number(select.dataset.confusion), found = data.confusions.find((each) => String(each.r) === select.value);
    const [first] = $$("tbody", $(`#confusion${set}`)), names = data.classes[set];
    if (found.m) {
      first.replaceChildren(...names.map((name, label) => {
        const counts = found.m.slice(label * names.length, (label + 1) * names.length), all = counts.reduce((a, b) => a + b, 0) || 1;
        return line([head(name, "row"), ...counts.map((each, index) => {
          const cell = element("td", each || "", { className: index === label ? "d" : "" });
          cell.style.setProperty("--v", (each / all).toFixed(2));
          return cell;
        })]);
      }));
    } else {
      first.replaceChildren(...found.p.map(([label, other, images, of]) => {
        const cell = document.createElement("td");
        cell.append(element("bdi", other));
        return line([head(label, "row"), cell, element("td", images, { className: "n" }), element("td", of, { className: "n" })]);
      }));
    }
  }

  // Start

  if (main) {
    form.hidden = false;
    makeSortable(main, rows, (index, direction) => { sort(data.columns[index][0], direction); render(); write(); });
    more.addEventListener("click", showAll);
    addEventListener("beforeprint", showAll);
    form.addEventListener("input", () => { showColumns(); filter(); write(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("click", (event) => {
      if (event.target.dataset.copy) copy(event.target.dataset.copy);
      if (event.target.id === "clear") { history.replaceState(null, "", location.pathname + location.search); read(); }
    });
    addEventListener("hashchange", () => { if (location.hash.includes("=") || !location.hash) read(); });
    read();
  }
  for (const table of $$("table[data-table]")) {
    const items = $$("tbody tr", table).map((element, index) => ({ element, values: data.rankings[table.dataset.table][index] }));
    makeSortable(table, items, (index, direction) => table.tBodies[0].append(...[...items].sort(compare(index, direction)).map((item) => item.element)));
  }
  for (const select of $$("[data-confusion]")) select.addEventListener("change", () => showConfusion(select));
})();
