// Charts: accuracy against a cost, and curves of a run. Colours are the page's own.
(function () {
  "use strict";
  const axes = {
    ops: { label: "OPs (binary ones / 64)", value: (p) => p.ops, form: (v) => v.toExponential(2) },
    bytes: { label: "MB, packed", value: (p) => p.bytes && p.bytes / 1e6, form: (v) => `${v.toPrecision(3)} MB` },
    ms: { label: "ms an image, one CPU thread", value: (p) => p.ms, form: (v) => `${v.toPrecision(3)} ms` },
  };
  const colour = (bits) => (bits.startsWith("32/32") ? "full" : bits === "1/1" ? "one" : "few");
  const MOST = 6;
  let last = null;

  // The points that none of less or equal cost beats.
  function front(points) {
    const kept = [];
    for (const p of [...points].sort((a, b) => a.cost - b.cost || b.score - a.score)) {
      if (!kept.length || p.score > kept[kept.length - 1].score) kept.push(p);
    }
    return kept;
  }

  function panel(points, axis, width) {
    const best = front(points), costs = points.map((p) => p.cost);
    const spare = Math.max(...costs) < 2 * Math.min(...costs) ? 1.6 : 1.1;
    // Once a method, at the best of its points: names of neighbours would cover one another.
    const named = best.filter((p, at) => !best.slice(at + 1).some((later) => later.method === p.method));
    const words = (p) => [`${p.method}, ${p.bits} bits: ${p.score} %`, axis.form(p.cost), p.group, p.structure]
      .filter(Boolean).join(" · ");
    const svg = Plot.plot({
      width, height: Math.min(320, Math.max(230, width * 0.62)), marginLeft: 44, marginRight: 18, marginBottom: 40,
      style: { background: "transparent", overflow: "visible", fontSize: "12px" },
      inset: 14,
      x: { type: "log", label: axis.label, grid: true, ticks: 5, domain: [Math.min(...costs) / spare, Math.max(...costs) * spare], tickFormat: (v) => (v >= 1e4 ? Number(v.toPrecision(3)).toExponential().replace("+", "") : `${Number(v.toPrecision(3))}`) },
      y: { label: `↑ ${points[0].metric} %`, grid: true, nice: true },
      marks: [
        Plot.line(best, { x: "cost", y: "score", curve: "step-after", stroke: "var(--muted)", strokeWidth: 1.2, strokeDasharray: "4 3" }),
        Plot.dot(points, { x: "cost", y: "score", r: 4.5, href: "href", ariaLabel: words,
          fill: (p) => `var(--${colour(p.bits)})`, fillOpacity: 0.85, stroke: "var(--paper)", strokeWidth: 1 }),
        Plot.text(named, { x: "cost", y: "score", text: "method", dy: -11, fill: "var(--ink)", fontSize: 11, pointerEvents: "none" }),
      ],
    });
    svg.querySelectorAll("circle[aria-label], a circle").forEach((dot) => {
      const holder = dot.closest("a") || dot;
      holder.dataset.tip = dot.getAttribute("aria-label");
      holder.setAttribute("aria-label", dot.getAttribute("aria-label"));
    });
    return svg;
  }

  window.drawPareto = function (name, rows) {
    const figure = document.querySelector(`figure.chart[data-for="${name}"]`);
    if (!figure) return;
    last = [name, rows];
    const key = figure.querySelector("input[name=cost]:checked").value;
    const axis = axes[key];
    const sets = new Map();
    for (const row of rows) {
      const cost = axis.value(row);
      if (!cost || !Number.isFinite(row.score)) continue;
      const set = `${row.set} · ${row.metric}`;
      if (!sets.has(set)) sets.set(set, []);
      sets.get(set).push({ ...row, cost });
    }
    const drawn = [...sets].filter(([, points]) => points.length > 1).sort((a, b) => b[1].length - a[1].length);
    const holder = figure.querySelector(".panels");
    holder.replaceChildren();
    figure.hidden = false;
    const room = figure.clientWidth;
    const columns = drawn.length > 1 && room > 720 ? 2 : 1;
    for (const [set, points] of drawn.slice(0, MOST)) {
      const box = document.createElement("div");
      box.append(Object.assign(document.createElement("h3"), { textContent: set.split(" · ")[0] }));
      box.append(panel(points, axis, columns > 1 ? Math.floor(room / 2) - 24 : Math.min(room, 760)));
      holder.append(box);
    }
    if (drawn.length > MOST || !drawn.length) {
      holder.append(Object.assign(document.createElement("p"), {
        className: "muted",
        textContent: drawn.length ? `${drawn.length - MOST} more sets: filter to see them.`
          : "No two of these rows share data and budget and have this cost.",
      }));
    }
  };

  document.querySelectorAll("figure.chart").forEach((figure) => {
    figure.addEventListener("change", () => { if (last) window.drawPareto(...last); });
  });

  function curves() {
    const holder = document.getElementById("history");
    if (!holder) return;
    const charts = JSON.parse(holder.textContent);
    document.querySelectorAll(".curve").forEach((box) => {
      const chart = charts[Number(box.dataset.chart)];
      const points = chart.lines.flatMap((line) => line.points.map(([epoch, value]) => ({ epoch, value, line: line.name })));
      const ends = chart.lines.map((line) => line.points[line.points.length - 1]);
      const labels = chart.lines.map((line, at) => ({ line: line.name, epoch: ends[at][0], value: ends[at][1] }))
        .sort((a, b) => b.value - a.value);
      const style = (name) => `var(--${name === "train" ? "few" : "one"})`;
      box.replaceChildren(Plot.plot({
        width: Math.max(260, box.clientWidth), height: 240, marginLeft: 48, marginRight: 40, marginBottom: 36,
        style: { background: "transparent", overflow: "visible", fontSize: "12px" },
        x: { label: "epoch", ticks: Math.min(8, chart.lines[0].points.length), tickFormat: (v) => (Number.isInteger(v) ? `${v}` : "") },
        y: { label: null, grid: true, nice: true },
        marks: [
          Plot.line(points, { x: "epoch", y: "value", z: "line", stroke: (p) => style(p.line), strokeWidth: 2 }),
          Plot.dot(points.length < 3 ? points : [], { x: "epoch", y: "value", fill: (p) => style(p.line), r: 3 }),
          ...labels.map((label, at) => Plot.text([label], { x: "epoch", y: "value", text: "line", dx: 6,
            dy: labels.length > 1 ? (at ? 7 : -7) : 0, textAnchor: "start", fill: style(label.line) })),
          Plot.tip(points, Plot.pointer({ x: "epoch", y: "value", fill: "var(--paper)", stroke: "var(--line)",
            title: (p) => `${p.line}, epoch ${p.epoch}: ${p.value.toPrecision(4)}` })),
        ],
      }));
    });
  }
  curves();

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { curves(); if (last) window.drawPareto(...last); }, 150);
  });
})();
