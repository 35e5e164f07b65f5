"use strict";
// Draws the figures with Plotly, and connects them to the checkboxes, the lists and the colour scheme of the page.
(() => {
  const specifications = JSON.parse(document.getElementById("specifications").textContent);
  const boxes = [...document.querySelectorAll("input[data-group]")];
  const lists = Object.fromEntries([...document.querySelectorAll("select[data-chart]")].map((list) => [list.dataset.chart, list]));
  const wide = window.matchMedia("(min-width: 40rem)");
  const toggles = [...document.querySelectorAll("button[data-toggle]")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const chart = (name) => document.getElementById(`chart-${name}`);
  const boxOf = new Map(boxes.map((box) => [box.dataset.group, box]));
  const isOn = (group) => boxOf.get(group)?.checked ?? true; // a group that no figure shows has no box

  function visible(name) {
    const choice = lists[name] ? lists[name].value : null;
    return specifications[name].data.map(
      ({ meta }) => isOn(meta.group) && (meta.choice === null || choice === null || meta.choice === choice));
  }

  const rows = [...document.querySelectorAll("tr[data-row]")];
  const isShown = ({ row, chart, choice }) => isOn(row) && (choice === undefined || choice === lists[chart].value);

  function showRows() {
    for (const row of rows) row.classList.toggle("off", !isShown(row.dataset));
    for (const text of document.querySelectorAll("[data-chosen]")) {
      text.textContent = lists[text.dataset.chosen].selectedOptions[0].text;
    }
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
      margin: { t: 30, r: 20, b: 20, l: 20 }, autosize: true, showlegend: false,
      font: { family: "system-ui, sans-serif", size: 13 }, modebar: { bgcolor: "rgba(0,0,0,0)" },
    };
    const config = {
      responsive: true, displaylogo: false, displayModeBar: wide.matches ? "hover" : false,
      modeBarButtonsToRemove: ["toImage"],
      modeBarButtonsToAdd: [{ name: "Download as SVG", icon: Plotly.Icons.camera, click: (drawn) => download(drawn, name) }],
    };
    return Plotly.newPlot(chart(name), traces, { ...base, ...layout }, config)
      .then((drawn) => Plotly.relayout(drawn, colours()));
  });

  // A figure by itself has a legend of its own and is for a white page.
  async function download(drawn, name) {
    await Plotly.relayout(drawn, { ...colours(true), paper_bgcolor: "#ffffff", showlegend: true });
    await Plotly.downloadImage(drawn, { format: "svg", filename: name });
    await Plotly.relayout(drawn, { ...colours(), showlegend: specifications[name].layout.showlegend ?? false });
  }

  function refresh() {
    for (const name of Object.keys(specifications)) Plotly.restyle(chart(name), { visible: visible(name) });
    for (const entry of toggles) entry.setAttribute("aria-pressed", isOn(entry.dataset.toggle));
    showRows();
  }

  function recolour(forPrint) {
    for (const name of Object.keys(specifications)) Plotly.relayout(chart(name), colours(forPrint));
  }

  // An entry of a legend switches its group everywhere, as the group's checkbox does.
  for (const entry of toggles) {
    entry.addEventListener("click", () => boxes.find((box) => box.dataset.group === entry.dataset.toggle).click());
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

  showRows();
  Promise.all(draw).then(() => { document.body.dataset.drawn = draw.length; });
})();
