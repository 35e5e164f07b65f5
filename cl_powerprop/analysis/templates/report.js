"use strict";
// Draws the figures with Plotly, and connects them to the checkboxes, the lists and the colour scheme of the page.
(() => {
  const specifications = JSON.parse(document.getElementById("specifications").textContent);
  const boxes = [...document.querySelectorAll("input[data-group]")];
  const lists = Object.fromEntries([...document.querySelectorAll("select[data-chart]")].map((list) => [list.dataset.chart, list]));
  const wide = window.matchMedia("(min-width: 40rem)"); // on a phone the checkboxes are the legend
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const chart = (name) => document.getElementById(`chart-${name}`);
  const isOn = (group) => group === null || boxes.find((box) => box.dataset.group === group).checked;

  function visible(name) {
    const choice = lists[name] ? lists[name].value : null;
    return specifications[name].data.map(
      ({ meta }) => isOn(meta.group) && (meta.choice === null || choice === null || meta.choice === choice));
  }

  function colours(forPrint = false) {
    const night = dark.matches && !forPrint;
    const grid = night ? "#3a3a3a" : "#e3e3e3";
    return {
      "font.color": night ? "#e8e8e8" : "#1c1c1c",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, "xaxis.zerolinecolor": grid, "yaxis.zerolinecolor": grid,
      "hoverlabel.bgcolor": night ? "#232323" : "#ffffff",
    };
  }

  const draw = Object.entries(specifications).map(([name, { data, layout }]) => {
    const shown = visible(name);
    const traces = data.map((trace, index) => ({ ...trace, visible: shown[index] }));
    const base = {
      margin: { t: 36, r: 20, b: 50, l: 60 }, autosize: true, showlegend: wide.matches,
      legend: { orientation: "h", y: -0.18, yanchor: "top" }, font: { family: "system-ui, sans-serif", size: 13 },
      modebar: { bgcolor: "rgba(0,0,0,0)" },
    };
    const config = {
      responsive: true, displaylogo: false, displayModeBar: wide.matches ? "hover" : false,
      toImageButtonOptions: { format: "svg", filename: name },
    };
    return Plotly.newPlot(chart(name), traces, { ...base, ...layout }, config).then((drawn) => {
      // A click on a legend switches the group everywhere, as its checkbox does.
      drawn.on("plotly_legendclick", (event) => {
        const box = boxes.find((one) => one.dataset.group === event.data[event.curveNumber].meta.group);
        if (box) { box.checked = !box.checked; refresh(); }
        return false;
      });
      return Plotly.relayout(drawn, colours());
    });
  });

  function refresh() {
    for (const name of Object.keys(specifications)) Plotly.restyle(chart(name), { visible: visible(name) });
    for (const row of document.querySelectorAll("tr[data-row]")) row.classList.toggle("off", !isOn(row.dataset.row));
  }

  function recolour(forPrint) {
    for (const name of Object.keys(specifications)) Plotly.relayout(chart(name), colours(forPrint));
  }

  for (const box of boxes) box.addEventListener("change", refresh);
  for (const list of Object.values(lists)) list.addEventListener("change", refresh);
  dark.addEventListener("change", () => recolour(false));
  window.addEventListener("beforeprint", () => recolour(true));
  window.addEventListener("afterprint", () => recolour(false));

  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || Number.isNaN(number) ? text : number;
  };

  function order(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // cells without a number come last
    return a.localeCompare(b, undefined, { numeric: true });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * order(value(a, column), value(b, column)));
      table.tBodies[0].append(...rows);
    }));
  }

  Promise.all(draw).then(() => { document.body.dataset.drawn = draw.length; });
})();
