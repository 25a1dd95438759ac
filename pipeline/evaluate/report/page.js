// Sorts a table by the column whose heading is pressed; a second press turns the order round.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.sort;
      const isNumber = head.classList.contains("num");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!x || !y) return !x - !y; // missing values come last
        return turn * (isNumber ? x - y : x.localeCompare(y, "en", { numeric: true }));
      });
      table.tBodies[0].append(...rows);
    });
  });
}
