"use strict";
// The charts. The plotting library is unpacked after the page can be read, and a chart is drawn when
// it comes near the screen, so that a report on many checkpoints opens at once.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const palette = {
    light: ["#0b63b0", "#c4420a", "#137a4d", "#8b3a9e", "#a06a00", "#00808a", "#b8265f", "#4a5560"],
    dark: ["#6db3f2", "#ff9a63", "#5ccb93", "#d59ae6", "#e8c14f", "#55d3dd", "#ff8fb8", "#b4bec9"],
  };
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const percent = (rate) => `${Number((100 * rate).toPrecision(3))} %`;
  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
  const tell = (rate, hits, all, who) => `${percent(rate)} (${number(hits)} of ${number(all)} ${who})`;
  const faint = (color, alpha) => color + Math.round(255 * alpha).toString(16).padStart(2, "0");
  const short = (name) => (name.length > 34 ? `${name.slice(0, 33)}…` : name);

  function look(element) {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: token("ink"), line: token("line"), soft: token("soft"),
      colors: dark.matches && !printing.matches ? palette.dark : palette.light,
      narrow: element.clientWidth < 640,
    };
  }

  function frame(at, height, more) {
    return {
      height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { color: at.ink, size: 12 }, showlegend: true, margin: { l: 62, r: 20, t: 30, b: 50 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: at.soft, activecolor: at.ink },
      hoverlabel: { align: "left" },
      legend: at.narrow ? { orientation: "h", x: 0, y: -0.22, yanchor: "top" } : { x: 1.02, y: 1 },
      ...more,
    };
  }
  const axis = (at, title, more) => ({
    title: { text: title, standoff: 8 }, gridcolor: at.line, linecolor: at.line, zeroline: false,
    automargin: true, ...more,
  });
  const logAxis = (at, title, least) =>
    axis(at, title, { type: "log", range: [Math.log10(least), 0.02], dtick: 1, tickformat: "~%" });

  function roc(chart, at) {
    // A logarithm has no place for 0: what lies below one record is drawn at the edge.
    const left = 0.5 / chart.nonMembers, bottom = 0.5 / chart.members;
    const traces = chart.curves.map((curve, index) => {
      const fpr = curve.fp.map((hits) => hits / curve.nonMembers);
      const tpr = curve.tp.map((hits) => hits / curve.members);
      const limits = curve.low ? curve.low.map((low, i) => `<br>band ${percent(low)} to ${percent(curve.high[i])}`) : null;
      return {
        type: "scatter", mode: "lines", name: plain(short(curve.name)), legendgroup: curve.name,
        x: fpr.map((rate) => Math.max(rate, left)), y: tpr.map((rate) => Math.max(rate, bottom)),
        text: curve.fp.map((hits, i) =>
          `${plain(curve.name)}<br>FPR ${tell(fpr[i], hits, curve.nonMembers, "non-members")}` +
          `<br>TPR ${tell(tpr[i], curve.tp[i], curve.members, "members")}${limits ? limits[i] : ""}`),
        hoverinfo: "text", visible: curve.shown ? true : "legendonly",
        line: {
          shape: "hv", width: 2, color: at.colors[index % at.colors.length],
          dash: dashes[Math.floor(index / at.colors.length) % dashes.length],
        },
      };
    });
    const bands = chart.curves.flatMap((curve, index) => {
      if (!curve.low) return [];
      const color = at.colors[index % at.colors.length];
      const edge = {
        type: "scatter", mode: "lines", x: traces[index].x, hoverinfo: "skip", showlegend: false,
        legendgroup: curve.name, line: { shape: "hv", width: 0, color },
      };
      return [
        { ...edge, y: curve.low.map((rate) => Math.max(rate, bottom)) },
        { ...edge, y: curve.high.map((rate) => Math.max(rate, bottom)), fill: "tonexty", fillcolor: faint(color, 0.18) },
      ];
    });
    const rule = { type: "line", layer: "between" };
    const resolution = 1 / chart.nonMembers, start = Math.max(left, bottom);
    const rows = chart.curves.length;
    const height = at.narrow ? 370 + 20 * rows : chart.first ? 380 : Math.max(460, 80 + 21 * rows);
    return [[...bands, ...traces], frame(at, height, {
      ...(chart.first && rows < 4 ? { legend: { x: 0.98, y: 0.02, xanchor: "right", yanchor: "bottom" } } : {}),
      xaxis: logAxis(at, "False positive rate", left), yaxis: logAxis(at, "True positive rate", bottom),
      shapes: [
        { ...rule, x0: start, y0: start, x1: 1, y1: 1, line: { color: at.ink, width: 1, dash: "dot" } },
        { ...rule, x0: resolution, x1: resolution, yref: "paper", y0: 0, y1: 1, line: { color: at.ink, width: 1, dash: "dash" } },
      ],
      annotations: [{
        x: Math.log10(resolution), y: 1, yref: "paper", yanchor: "bottom", xanchor: "left",
        showarrow: false, text: `1 of ${number(chart.nonMembers)} non-members`, font: { size: 11 },
      }],
    })];
  }

  function histogram(chart, at) {
    const side = (counts, name, color) => {
      const all = counts.reduce((a, b) => a + b, 0);
      const share = counts.map((count) => count / all);
      return {
        type: "scatter", mode: "lines", name, x: chart.edges, y: [...share, 0],
        line: { shape: "hv", width: 1.5, color }, fill: "tozeroy", fillcolor: faint(color, 0.22), hoverinfo: "text",
        text: [...counts.map((count, i) =>
          `${name}: ${tell(share[i], count, all, name)}<br>score ${number(chart.edges[i])} to ${number(chart.edges[i + 1])}`), ""],
      };
    };
    const first = chart.edges[0], last = chart.edges[chart.edges.length - 1];
    const cut = chart.threshold === undefined ? {} : {
      shapes: [{
        type: "line", yref: "paper", y0: 0, y1: 1, x0: chart.threshold, x1: chart.threshold,
        line: { color: at.ink, width: 1, dash: "dash" },
      }],
      annotations: [{
        x: chart.threshold, y: 1, yref: "paper", yanchor: "top", showarrow: false,
        xanchor: 2 * chart.threshold > first + last ? "right" : "left",
        text: plain(chart.budget), font: { size: 11 },
      }],
    };
    return [
      [side(chart.nonMembers, "non-members", at.colors[0]), side(chart.members, "members", at.colors[1])],
      frame(at, chart.threshold === undefined ? 300 : 380, {
        ...cut,
        title: { ...heading(chart.name), y: 0.98, yref: "container", yanchor: "top" }, margin: { l: 62, r: 20, t: 56, b: 50 },
        xaxis: axis(at, "Score, higher for members", { range: [first, last] }),
        yaxis: axis(at, "Share of the class", { tickformat: ".0%", rangemode: "tozero" }),
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      }),
    ];
  }

  const heading = (name) => ({ text: plain(short(name)), font: { size: 13 }, x: 0, xref: "paper" });
  const chance = (at) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, y0: 0.5, y1: 0.5, line: { color: at.ink, width: 1, dash: "dot" },
  });
  const told = (name, chart, i, more) =>
    `${plain(name)}<br>AUC ${number(chart.y[i])} [${number(chart.low[i])}, ${number(chart.high[i])}]${more}`;
  const whiskers = (chart, index, color) => ({
    type: "data", symmetric: false, color: faint(color, 0.5), thickness: 1, width: 2,
    array: index.map((i) => chart.high[i] - chart.y[i]), arrayminus: index.map((i) => chart.y[i] - chart.low[i]),
  });

  // A line with the band of its interval, by step.
  function banded(line, color, more) {
    const shared = { type: "scatter", x: line.x, legendgroup: line.name, ...more };
    const hover = line.x.map((x, i) =>
      `${plain(line.at[i])}<br>${plain(line.name)} ${number(line.y[i])}` +
      (line.low ? ` [${number(line.low[i])}, ${number(line.high[i])}]` : ""));
    const traces = [{
      ...shared, y: line.y, mode: "lines+markers", name: plain(short(line.name)), text: hover, hoverinfo: "text",
      line: { color, width: 2 }, marker: { color, size: 7 },
    }];
    if (line.low) {
      const edge = { ...shared, mode: "lines", hoverinfo: "skip", showlegend: false, line: { width: 0, color } };
      traces.unshift({ ...edge, y: line.low }, { ...edge, y: line.high, fill: "tonexty", fillcolor: faint(color, 0.18) });
    }
    return traces;
  }

  function series(chart, at) {
    const upper = chart.lines.flatMap((line, i) => banded(line, at.colors[i % at.colors.length], {}));
    const lower = chart.losses.flatMap((line, i) => banded(line, at.colors[(i + 6) % at.colors.length], { yaxis: "y2" }));
    const two = lower.length > 0;
    const rows = chart.lines.length + chart.losses.length;
    return [[...upper, ...lower], frame(at, (two ? 520 : 340) + (at.narrow ? 20 * rows : 0), {
      xaxis: axis(at, chart.steps, { anchor: two ? "y2" : "y" }),
      yaxis: axis(at, "AUC", { domain: two ? [0.42, 1] : [0, 1] }),
      ...(two ? { yaxis2: axis(at, "Loss", { domain: [0, 0.34] }) } : {}),
      shapes: [chance(at)],
    })];
  }

  function tradeoff(chart, at) {
    const color = at.colors[0];
    return [[{
      type: "scatter", mode: "lines+markers", x: chart.x, y: chart.y, hoverinfo: "text",
      text: chart.labels.map((label, i) => told(label, chart, i, `<br>loss ${number(chart.x[i])}`)),
      error_y: whiskers(chart, chart.labels.map((_, i) => i), color),
      line: { color: faint(color, 0.5), width: 1 }, marker: { color, size: 8 },
    }], frame(at, 400, {
      title: heading(chart.name),
      showlegend: false, xaxis: axis(at, "Loss on non-members"), yaxis: axis(at, "AUC"),
      annotations: [0, chart.x.length - 1].map((i) => ({
        x: chart.x[i], y: chart.y[i], text: plain(short(chart.labels[i])), arrowcolor: at.soft,
        arrowwidth: 1, arrowhead: 0, ax: 0, ay: -34, font: { size: 11 },
      })),
    })];
  }

  // As many of the values as can stand beside each other on a logarithmic axis.
  const spread = (values) => values.filter((value, i) => i === 0 || value / values[i - 1] > 1.15 || values.length < 8);

  function cost(chart, at) {
    // Of attacks at one place the first is named, with how many others there are.
    const place = (i) => `${chart.queries[i]} ${chart.y[i]}`;
    const labels = new Map(), together = new Map();
    chart.names.forEach((_, i) => {
      if (!labels.has(place(i))) labels.set(place(i), i);
      together.set(place(i), (together.get(place(i)) ?? 0) + 1);
    });
    const named = (i) => plain(short(chart.names[i])) + (together.get(place(i)) > 1 ? ` +${together.get(place(i)) - 1}` : "");
    const middle = Math.sqrt(Math.min(...chart.queries) * Math.max(...chart.queries));
    const points = (index, name, color, labelled) => ({
      type: "scatter", mode: labelled ? "markers+text" : "markers", name,
      x: index.map((i) => chart.queries[i]), y: index.map((i) => chart.y[i]), hoverinfo: "text",
      text: index.map((i) => labels.get(place(i)) === i ? named(i) : ""), textfont: { size: 11 },
      textposition: index.map((i) => (chart.queries[i] > middle ? "top left" : "top right")),
      hovertext: index.map((i) => told(chart.names[i], chart, i, `<br>${number(chart.queries[i])} queries per record`)),
      error_y: whiskers(chart, index, color),
      marker: { color, size: 8 },
    });
    const all = chart.names.map((_, i) => i);
    const best = all.filter((i) => chart.best[i]), others = all.filter((i) => !chart.best[i]);
    const ticks = spread([...new Set(chart.queries)].sort((a, b) => a - b));
    const edge = [...best].sort((a, b) => chart.queries[a] - chart.queries[b]);
    return [[
      {
        type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
        x: edge.map((i) => chart.queries[i]), y: edge.map((i) => chart.y[i]),
        line: { shape: "hv", width: 1, dash: "dot", color: at.colors[1] },
      },
      points(others, "others", at.colors[7], false),
      points(best, "none is as strong for less", at.colors[1], true),
    ], frame(at, 400, {
      xaxis: axis(at, "Queries per record, to all models", { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(number) }),
      yaxis: axis(at, "AUC", { range: [Math.min(0.48, ...chart.low), Math.max(...chart.high) + 0.05] }),
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      shapes: [chance(at)],
    })];
  }

  // Settings as lines over parallel axes, the first of them the best: the darker a line, the better
  // it is where settings were compared. One trace for each shade, since one for each line is slow.
  function parallel(chart, at) {
    const shades = 8, color = at.colors[0], chosen = chart.axes.length - 2;
    const tell = (line) => `${plain(line.text)}<br>chosen on ${line.chosen}, judged on ${line.judged}`;
    const trace = (lines, width, alpha) => ({
      type: "scatter", mode: "lines", hoverinfo: "text", connectgaps: false,
      x: lines.flatMap((line) => [...line.at.map((_, i) => i), null]),
      y: lines.flatMap((line) => [...line.at, null]),
      text: lines.flatMap((line) => [...line.at.map(() => tell(line)), ""]),
      line: { width, color: faint(color, alpha) },
    });
    const shadeOf = (line) => Math.min(shades - 1, Math.floor(line.at[chosen] * shades));
    const traces = Array.from({ length: shades }, (_, shade) => {
      const lines = chart.lines.filter((line) => shadeOf(line) === shade);
      return trace(lines, 1, 0.08 + 0.72 * (shade / (shades - 1)) ** 2);
    });
    const paper = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
    return [[...traces, trace(chart.lines.slice(0, 1), 4, 1)], frame(at, 420, {
      showlegend: false, margin: { l: 20, r: 70, t: 20, b: 20 },
      annotations: chart.axes.flatMap((axis, i) => [
        { x: i, y: 1.1, text: `<b>${plain(axis.name)}</b>`, showarrow: false },
        ...axis.ticks.map(([place, text]) => ({
          x: i, y: place, text: plain(text), showarrow: false, xanchor: "left", xshift: 4,
          font: { size: 11 }, bgcolor: paper, opacity: 0.85,
        })),
      ]),
      xaxis: { visible: false, range: [-0.1, chart.axes.length - 0.8], fixedrange: true },
      yaxis: { visible: false, range: [-0.08, 1.16], fixedrange: true },
      shapes: chart.axes.map((_, i) => ({
        type: "line", x0: i, x1: i, y0: 0, y1: 1, line: { color: at.soft, width: 1 },
      })),
    })];
  }

  const kinds = { roc, histogram, series, tradeoff, cost, parallel };
  const drawn = new Set();

  function draw(element) {
    const chart = charts[element.dataset.chart], at = look(element);
    const [traces, layout] = kinds[chart.kind](chart, at);
    // A chart that is drawn keeps its width.
    if (drawn.has(element)) Plotly.purge(element);
    drawn.add(element);
    return Plotly.newPlot(element, traces, layout, {
      responsive: true, displaylogo: false, displayModeBar: at.narrow ? false : "hover",
      showSendToCloud: false, plotlyServerURL: "",  // plotly offers to upload the scores otherwise
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }

  async function unpack() {
    const packed = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const source = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(source).text();
    document.head.append(script);
  }

  function start() {
    const all = document.querySelectorAll(".plot");
    const watch = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        draw(target);
      }
    }, { rootMargin: "300px" });
    all.forEach((element) => watch.observe(element));
    const again = () => drawn.forEach((element) => draw(element));
    dark.addEventListener("change", again);
    const forPrint = () => (printing.matches ? all.forEach((element) => draw(element)) : again());
    printing.addEventListener("change", forPrint);
    if (printing.matches) forPrint();
  }

  const say = (error) => document.querySelectorAll(".plot").forEach((element) => {
    element.textContent = `The chart could not be drawn: ${error.message}`;
  });
  // Two frames later the text stands.
  requestAnimationFrame(() => setTimeout(() => unpack().then(start).catch(say)));
})();
