"use strict";

// Tables: a click on a heading sorts by its column, numbers from the largest, text from A; another click turns it round.
function sort(head, order) {
  const table = head.closest("table");
  const numbers = head.classList.contains("num");
  const sign = order === "ascending" ? 1 : -1;
  const keys = [...table.tBodies[0].rows].map((row) => [row, row.cells[head.cellIndex].dataset.key ?? ""]);
  keys.sort(([, a], [, b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  table.tBodies[0].append(...keys.map(([row]) => row));
}

function sortBy(head) {
  const before = head.getAttribute("aria-sort");
  const first = head.classList.contains("num") ? "descending" : "ascending";
  sort(head, before === null ? first : before === "ascending" ? "descending" : "ascending");
}

// Charts: values under the pointer, read off the lines. A chart says where its frame is and which numbers its edges have.
const written = {
  percent: (value) => `${(100 * value).toFixed(1)}%`,
  count: (value) => (value < 1000 ? String(Math.round(value)) : value < 1e6 ? `${(value / 1e3).toPrecision(3)}k` : `${(value / 1e6).toPrecision(3)}M`),
  seconds: (value) => `${Math.floor(value / 60)}:${String(Math.round(value % 60)).padStart(2, "0")}`,
  number: (value) => String(Number(value.toPrecision(3))),
};

function readings(svg) {
  const numbers = (name) => svg.dataset[name].split(" ").map(Number);
  const [left, top, width, height] = numbers("box");
  const [xLow, xHigh] = numbers("x");
  const [yLow, yHigh] = numbers("y");
  const [xForm, yForm] = svg.dataset.forms.split(" ");
  const x = (at) => {
    const share = (at - left) / width;
    return svg.dataset.scale === "log" ? xLow * (xHigh / xLow) ** share : xLow + share * (xHigh - xLow);
  };
  const lines = [...svg.querySelectorAll(".s.line")].filter((line) => getComputedStyle(line).display !== "none");
  const series = lines.map((line) => {
    const number = /\ba(\d+)\b/.exec(line.getAttribute("class"))[1];
    const path = line.querySelector("path").getAttribute("d").match(/-?[\d.]+/g).map(Number);
    const points = [];
    for (let i = 0; i < path.length; i += 2) points.push([path[i], path[i + 1]]);
    return { number, label: line.dataset.label, points };
  });
  return {
    series, top, bottom: top + height,
    x: (at) => written[xForm](x(at)),
    y: (at) => written[yForm](yLow + ((top + height - at) / height) * (yHigh - yLow)),
  };
}

function between(points, at) {
  const next = points.findIndex(([x]) => x >= at - 0.005);
  if (next < 0 || (next === 0 && points[0][0] > at + 0.005)) return null;
  const [x1, y1] = points[next];
  const [x0, y0] = points[Math.max(next - 1, 0)];
  return x1 - x0 < 0.01 ? y1 : y0 + ((at - x0) / (x1 - x0)) * (y1 - y0);
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
let shown = null; // the chart that the values stand beside, and where on it

function show(svg, wanted, step) {
  const chart = readings(svg);
  const stops = [...new Set(chart.series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  if (!stops.length) return;
  const nearest = stops.reduce((best, x, i) => (Math.abs(x - wanted) < Math.abs(stops[best] - wanted) ? i : best), 0);
  const at = stops[Math.min(Math.max(nearest + step, 0), stops.length - 1)];
  const rows = chart.series
    .map(({ points, ...one }) => ({ ...one, y: between(points, at) }))
    .filter(({ y }) => y !== null)
    .sort((a, b) => a.y - b.y);
  hide();
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cross.setAttribute("class", "cross");
  cross.setAttribute("d", `M ${at} ${chart.top} V ${chart.bottom}`);
  svg.append(cross);
  shown = { svg, at, cross };
  const line = (text) => Object.assign(document.createElement("div"), { textContent: text });
  tip.replaceChildren(line(`${svg.dataset.over}: ${chart.x(at)}`));
  for (const { number, label, y } of rows) {
    const row = line(`${label} ${chart.y(y)}`);
    const sample = document.querySelector(`.key use[href="#key${number}"]`);
    if (sample) row.prepend(sample.parentElement.cloneNode(true));
    tip.append(row);
  }
  tip.hidden = false;
  const place = cross.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(place.x + 14, room))}px`;
  tip.style.top = `${Math.max(8, place.y)}px`;
}

function hide() {
  shown?.cross.remove();
  shown = null;
  tip.hidden = true;
}

function along(svg, event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
}

// While runs train: the page is made again now and then. A frame opens the new version, which sends its parts to this
// one. Those that changed take the place of the old; what a reader opened, chose, sorted or scrolled to stays.
const EVERY = 5000;
const parts = () => [...document.querySelectorAll("main > section")];
const source = new Map(parts().map((part) => [part.id, part.outerHTML]));

function remember(part) {
  const open = new Map([...part.querySelectorAll("details")].map((one) => [one.querySelector("summary").textContent, one.open]));
  const chosen = new Map([...part.querySelectorAll("input")].map((one) => [one.id, one.checked]));
  const sorted = [...part.querySelectorAll("table.sortable [aria-sort]")].map((head) => [
    head.closest("table").caption.textContent, head.cellIndex, head.getAttribute("aria-sort"),
  ]);
  return (fresh) => {
    for (const one of fresh.querySelectorAll("details")) one.open = open.get(one.querySelector("summary").textContent) ?? one.open;
    for (const one of fresh.querySelectorAll("input")) one.checked = chosen.get(one.id) ?? one.checked;
    for (const table of fresh.querySelectorAll("table.sortable")) {
      const [, column, order] = sorted.find(([caption]) => caption === table.caption.textContent) ?? [];
      if (order && table.tHead.rows[0].cells[column]) sort(table.tHead.rows[0].cells[column], order);
    }
  };
}

function renew(message) {
  const fresh = new DOMParser().parseFromString(message.main, "text/html");
  const seen = parts().find((part) => part.getBoundingClientRect().bottom > 0)?.id;
  const before = seen && document.getElementById(seen).getBoundingClientRect().top;
  const focus = document.activeElement?.id;
  hide();
  const style = document.querySelector("style");
  if (style.textContent !== message.style) style.textContent = message.style;
  const main = document.querySelector("main");
  const ids = new Set();
  let last = null;
  for (const part of fresh.querySelectorAll("section")) {
    ids.add(part.id);
    let now = document.getElementById(part.id);
    if (!now || source.get(part.id) !== part.outerHTML) {
      source.set(part.id, part.outerHTML);
      const restore = now && remember(now);
      const made = document.importNode(part, true);
      if (now) now.replaceWith(made);
      else if (last) last.after(made);
      else main.prepend(made);
      restore?.(made);
      now = made;
    }
    last = now;
  }
  for (const part of parts()) if (!ids.has(part.id)) part.remove();
  document.title = message.title;
  document.body.dataset.made = message.made;
  if (message.live) document.body.dataset.live = "";
  else delete document.body.dataset.live;
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  const after = seen && document.getElementById(seen);
  if (after) scrollBy({ top: after.getBoundingClientRect().top - before, behavior: "instant" });
}

function watch() {
  const frame = document.createElement("iframe");
  frame.hidden = true;
  addEventListener("message", (event) => {
    if (event.source === frame.contentWindow && event.data.made !== document.body.dataset.made) renew(event.data);
  });
  setInterval(() => {
    if (!("live" in document.body.dataset)) return frame.remove();
    if (document.hidden) return;
    const url = new URL(location.href);
    url.search = `?${Date.now()}`;
    url.hash = "live";
    frame.src = url.href;
    if (!frame.isConnected) document.body.append(frame);
  }, EVERY);
}

if (parent !== window && location.hash === "#live") {
  const main = document.querySelector("main").innerHTML;
  const style = document.querySelector("style").textContent;
  const { made, live } = document.body.dataset;
  // A file has no origin that could be named; a page from a server answers to its own server's pages alone.
  const to = location.protocol === "file:" ? "*" : location.origin;
  parent.postMessage({ main, style, made, live: live !== undefined, title: document.title }, to);
} else {
  document.body.append(tip);
  addEventListener("click", (event) => {
    const head = event.target.closest("table.sortable thead th");
    if (head) sortBy(head);
  });
  addEventListener("keydown", (event) => {
    const head = event.target.closest?.("table.sortable thead th");
    const svg = event.target.closest?.("svg.chart");
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (head && event.key === "Enter") sortBy(head);
    if (event.key === "Escape") hide();
    if (svg && step) {
      event.preventDefault();
      show(svg, shown?.svg === svg ? shown.at : 0, shown?.svg === svg ? step : 0);
    }
  });
  addEventListener("pointermove", (event) => {
    const svg = event.target.closest?.("svg.chart");
    if (svg) show(svg, along(svg, event), 0);
    else if (shown) hide();
  });
  addEventListener("pointerdown", (event) => {
    const svg = event.target.closest?.("svg.chart");
    if (svg) show(svg, along(svg, event), 0);
  });
  if ("live" in document.body.dataset) watch();
}
