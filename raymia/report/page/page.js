"use strict";
// Tables that sort, details that open for print and for links to them. Works without charts.js.
const printing = matchMedia("print");

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("num");
      const current = head.getAttribute("aria-sort");
      // Numbers are first sorted from the largest, names from the first.
      const first = numbers ? "descending" : "ascending";
      const order = current === "none" ? first : current === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      body.append(...sorted([...body.rows], column, numbers, order === "ascending" ? 1 : -1));
    });
  });
}

function sorted(rows, column, numbers, sign) {
  const value = (row) => {
    const cell = row.cells[column];
    if (!numbers) return cell.dataset.value ?? cell.textContent.trim();
    return cell.dataset.value ? Number(cell.dataset.value) : NaN;
  };
  const compare = (a, b) => {
    if (!numbers) return sign * a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  };
  return rows.map((row) => [value(row), row]).sort(([a], [b]) => compare(a, b)).map(([, row]) => row);
}

function openTarget() {
  const place = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!place) return;
  for (let inside = place.closest("details"); inside; inside = inside.parentElement.closest("details")) {
    inside.open = true;
  }
  place.scrollIntoView();
}

let openedForPrint = [];
function openForPrint() {
  const closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((details) => { details.open = true; });
  openedForPrint.push(...closed);
}
function closeAfterPrint() {
  openedForPrint.forEach((details) => { details.open = false; });
  openedForPrint = [];
}

document.querySelectorAll("table.sortable").forEach(sortable);
addEventListener("hashchange", openTarget);
document.addEventListener("click", (event) => {
  if (event.target.closest("a[href^='#']")) setTimeout(openTarget);
});
openTarget();
if (printing.matches) openForPrint();
printing.addEventListener("change", () => (printing.matches ? openForPrint() : closeAfterPrint()));
