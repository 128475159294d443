(() => {
  "use strict";
  const charts = [...document.querySelectorAll(".chart")];
  for (const chart of charts) {
    const figure = JSON.parse(chart.querySelector("script").textContent);
    Plotly.newPlot(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }

  // Paper has another width than the window. A chart is drawn for it before printing and for the window again afterwards.
  const resize = (width) => charts.forEach((chart) => {
    const share = chart.parentElement.classList.contains("charts") ? 0.49 : 1;
    Plotly.relayout(chart, width ? { width: Math.floor(width * share), autosize: false } : { width: null, autosize: true });
  });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.dataset.was = details.open; details.open = true; });
    resize(700); // A4 without its margins: 186 mm
  });
  addEventListener("afterprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = details.dataset.was === "true"; });
    resize(null);
  });

  const key = (row, column) => {
    const text = row.cells[column].dataset.key ?? row.cells[column].textContent;
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => // empty cells come last in either order
        a === null || b === null ? (a === null) - (b === null) : (order === "ascending" ? 1 : -1) * compare(a, b));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }
})();
