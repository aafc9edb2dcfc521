"use strict";
// Draws the figures in the colours of the page, sorts tables, marks the section in view. No request leaves the page.
(() => {
  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // named one by one: plotly's own set can send data away
    plotlyServerURL: "",
    toImageButtonOptions: { format: "svg", scale: 2 },
  };
  let kind = ""; // config_type shown in the parity plots; "" = all

  // "@blue/40" -> the page's --blue, 40 % opaque. Only entries named ...color are colours: a structure may be called "@blue".
  function color(token) {
    const [name, percent] = token.slice(1).split("/");
    const value = getComputedStyle(root).getPropertyValue("--" + name).trim();
    if (percent === undefined) return value;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(value.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${percent / 100})`;
  }
  function resolve(value, key) {
    if (value === undefined) return value;
    if (typeof value === "string") return /color$/.test(key) && value[0] === "@" ? color(value) : value;
    if (key === "colorscale") return value.map(([at, token]) => [at, color(token)]);
    if (Array.isArray(value)) return typeof value[0] === "object" ? value.map((item) => resolve(item, key)) : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, k)]));
  }

  function house(layout) {
    const page = color("@page");
    return {
      autosize: true,
      dragmode: touch ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("@muted") },
      hoverlabel: { bgcolor: page, bordercolor: color("@line"), font: { color: color("@ink"), size: 12 }, align: "left", namelength: -1 },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { color: color("@ink") } },
      modebar: { bgcolor: page, color: color("@faint"), activecolor: color("@muted") },
      ...resolve(layout, ""),
    };
  }
  function highlighted(name, traces) {
    if (!name.startsWith("parity-") || kind === "") return traces;
    const faded = traces.map((trace) => {
      if (trace.type === "bar") return trace;
      if (trace.name === kind) return { ...trace, marker: { ...trace.marker, color: "@orange", colorscale: undefined, opacity: 0.85 } };
      return { ...trace, hoverinfo: "skip", hovertemplate: null, marker: { ...trace.marker, opacity: 0.06 } };
    });
    return [...faded.filter((t) => t.name !== kind), ...faded.filter((t) => t.name === kind)];
  }
  const draw = (name) =>
    Plotly.react("plot-" + name, resolve(highlighted(name, specs[name].data), ""), house(specs[name].layout), config);

  // one figure per turn of the event loop: the page can be read and scrolled meanwhile
  const waiting = Object.keys(specs);
  async function drawAll() {
    while (waiting.length) {
      await draw(waiting.shift());
      await new Promise((next) => setTimeout(next));
    }
    root.dataset.drawn = String(Object.keys(specs).length);
  }
  function redraw() {
    waiting.length = 0;
    Object.keys(specs).forEach(draw);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { root.dataset.print = ""; redraw(); });
  addEventListener("afterprint", () => { delete root.dataset.print; redraw(); });
  document.querySelectorAll("select[data-highlight]").forEach((select) =>
    select.addEventListener("change", () => {
      kind = select.value;
      Object.keys(specs).filter((name) => name.startsWith("parity-")).forEach(draw);
    }));

  // tables: numbers largest first, then smallest first; texts the other way round; missing values stay last
  function sort(button) {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const numeric = button.dataset.sort === "number";
    const before = head.getAttribute("aria-sort");
    const order = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => (numeric ? row.children[column].dataset.value : row.children[column].textContent.trim());
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (numeric && (a === "" || b === "")) return (a === "") - (b === "");
      return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }
  document.querySelectorAll("button[data-sort]").forEach((button) => button.addEventListener("click", () => sort(button)));

  const links = new Map([...document.querySelectorAll(".contents a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const inView = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("section.part").forEach((part) => inView.observe(part));

  drawAll();
})();
