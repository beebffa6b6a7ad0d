// Used memory over time as a staircase, and what can honestly be said of when it is full.

import { bytes, clock, count, drawn, duration } from "/page/words.js";

const HEIGHT = 110;
const LEFT = 4;
const BOTTOM = 16;
const TOP = 14;

/** ``history``: [{at_s, used_bytes}]; times are Unix seconds of the worker's clock. */
export function drawChart(box, { history, forecast, usableBytes, nowS }) {
  const width = Math.max(box.clientWidth, 200);
  const from = history.length ? Math.min(history[0].at_s, nowS - 1) : nowS - 1;
  const seen = nowS - from;
  const to = forecast.kind === "full" ? Math.min(forecast.full_s, nowS + seen) : nowS;
  const x = (atS) => LEFT + ((atS - from) / (to - from)) * (width - 2 * LEFT);
  const y = (used) => HEIGHT - BOTTOM - (used / usableBytes) * (HEIGHT - BOTTOM - TOP);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, "aria-hidden": "true" });
  const path = staircase(history, x, y, nowS);
  svg.append(
    drawn("line", { class: "now", x1: LEFT, x2: width - LEFT, y1: y(0), y2: y(0) }),
    drawn("line", { class: "limit", x1: LEFT, x2: width - LEFT, y1: y(usableBytes), y2: y(usableBytes) }),
    drawn("text", { x: LEFT, y: TOP - 4 }, `full at ${bytes(usableBytes)}`),
  );
  if (path) {
    svg.append(
      drawn("path", { class: "area", d: `${path} V ${y(0)} H ${x(from)} Z` }),
      drawn("path", { class: "step", d: path }),
    );
  }
  if (to > nowS) svg.append(ahead(history, forecast, { x, y, nowS, to, usableBytes }));
  svg.append(
    drawn("text", { x: LEFT, y: HEIGHT - 3 }, `${clock(from * 1000)} UTC`),
    drawn("text", { x: Math.min(x(nowS), width - LEFT), y: HEIGHT - 3, "text-anchor": x(nowS) > 120 ? "end" : "start" }, "now"),
  );
  box.replaceChildren(svg);
  const used = history.length ? history[history.length - 1].used_bytes : 0;
  box.setAttribute("aria-label", `Used memory over ${duration(seen)}: now ${bytes(used)} of ${bytes(usableBytes)}.`);
}

function staircase(history, x, y, nowS) {
  if (!history.length) return "";
  const steps = [`M ${x(history[0].at_s)} ${y(history[0].used_bytes)}`];
  for (const point of history.slice(1)) steps.push(`H ${x(point.at_s)} V ${y(point.used_bytes)}`);
  return `${steps.join(" ")} H ${x(nowS)}`;
}

function ahead(history, forecast, { x, y, nowS, to, usableBytes }) {
  const used = history[history.length - 1].used_bytes;
  const share = (to - nowS) / (forecast.full_s - nowS);
  const reached = used + (usableBytes - used) * share;
  return drawn("line", { class: "ahead", x1: x(nowS), y1: y(used), x2: x(to), y2: y(reached) });
}

/** The forecast in a sentence; what it rests on is part of it. */
export function forecastSentence(forecast, nowS) {
  const seen = `${count(forecast.changes, "change")} in ${duration(forecast.observed_s)}`;
  const inTime = (atS) => duration(atS - nowS);
  switch (forecast.kind) {
    case "is_full": return "The device is full: the next shard will be refused.";
    case "too_few": return `No forecast yet: ${seen} ${forecast.changes === 1 ? "is" : "are"} too little to tell.`;
    case "falling": return `Use is falling (${seen}).`;
    case "steady": return `No end in sight: use is steady (${seen}).`;
    default: {
      const late = forecast.latest_s === null ? "perhaps never" : `at the latest in ${inTime(forecast.latest_s)}`;
      return `Full in about ${inTime(forecast.full_s)} if it goes on like this `
        + `(at the earliest in ${inTime(forecast.earliest_s)}, ${late}; from ${seen}).`;
    }
  }
}
