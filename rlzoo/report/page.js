"use strict";
// Sorts a table by the column whose heading is clicked: numbers from the largest, text from A, then the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const keys = (column) => rows.map((row) => [row, row.cells[column].dataset.key]);
  const sort = (head, column) => {
    const numbers = head.classList.contains("num");
    const before = head.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const sorted = keys(column).sort(([, a], [, b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    table.tBodies[0].append(...sorted.map(([row]) => row));
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head, column));
  });
}
