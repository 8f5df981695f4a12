"use strict";
// Sorting: a head's button sorts by its column, ascending first. Rows without a value stay last
// either way; equal ones keep the order they had.
const texts = new Intl.Collator("en", { numeric: true }); // C2 before C10

function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function order(a, b, numeric) {
  if (!numeric) return texts.compare(a, b);
  // Infinity has no difference from itself.
  return Number(a) === Number(b) ? 0 : Number(a) - Number(b);
}

function missing(value, numeric) {
  return value === "" || (numeric && Number.isNaN(Number(value)));
}

function sortBy(table, head) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  const numeric = head.dataset.kind === "number";
  const column = head.cellIndex;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((a, b) => {
    const lacks = missing(a.value, numeric) - missing(b.value, numeric);
    if (lacks !== 0 || missing(a.value, numeric)) return lacks;
    return ascending ? order(a.value, b.value, numeric) : order(b.value, a.value, numeric);
  });
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortBy(table, button.closest("th"));
  });
}

// Paper has no clicks: the ledger's folds are printed open.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(".ledger details:not([open])")];
  for (const fold of opened) fold.open = true;
});
window.addEventListener("afterprint", () => {
  for (const fold of opened) fold.open = false;
});
