// Sorting and searching the layer table, and switching the theme. The page is complete without any of it.
"use strict";
(() => {
  const table = document.getElementById("layers");
  const body = table.tBodies[0];
  const original = [...body.rows];

  const value = (row, column, kind) => {
    const text = row.cells[column].dataset.value;
    if (kind === "number") return text === "" ? NaN : Number(text);
    return text;
  };

  const compare = (column, kind, direction) => (a, b) => {
    const x = value(a, column, kind), y = value(b, column, kind);
    if (kind === "number") {
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // unknown values always last
      return direction * (x - y);
    }
    return direction * x.localeCompare(y, "en", { numeric: true });
  };

  // First click: largest numbers or first names first; second click: the other way; third click: execution order.
  const next = (kind, now) => {
    const first = kind === "number" ? "descending" : "ascending";
    const second = kind === "number" ? "ascending" : "descending";
    return now === "none" ? first : now === first ? second : "none";
  };

  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const kind = head.dataset.kind;
      const order = next(kind, head.getAttribute("aria-sort"));
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const rows = order === "none" ? original : [...original].sort(compare(column, kind, order === "ascending" ? 1 : -1));
      body.append(...rows);
    });
  });

  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    original.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
  });

  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
