// The shards as areas: rows that are read like lines of text. The table beside it says the same in words.

import { bytes, count, drawn, visible } from "/page/words.js";

const GAP = 3;
const SHARDS_PER_ROW = 42;
const ROWS_MAX = 12;

/** Draw ``shards`` ([{id, bytes, kind}]) into ``box``; ``choose`` is called with the id that was clicked. */
export function drawMap(box, shards, { chosen, choose }) {
  const width = Math.max(box.clientWidth, 200);
  const rows = Math.max(1, Math.min(ROWS_MAX, Math.ceil(shards.length / SHARDS_PER_ROW)));
  const rowHeight = rows > 6 ? 20 : 30;
  const height = shards.length ? rows * (rowHeight + GAP) - GAP : 0;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height });
  for (const piece of pieces(shards, rows, width)) svg.append(...drawnPiece(piece, rowHeight, { chosen, choose }));
  box.replaceChildren(svg);
  box.setAttribute("aria-label", summary(shards));
  box.hidden = !shards.length;
}

/** Where each shard lies: one wider than the rest of its row goes on in the next. Small ones are enlarged. */
function* pieces(shards, rows, width) {
  const all = shards.reduce((sum, shard) => sum + shard.bytes, 0);
  const least = all / (shards.length * 2);
  const weights = shards.map((shard) => Math.max(shard.bytes, least));
  const scale = (rows * width) / weights.reduce((sum, weight) => sum + weight, 0);
  let at = 0;
  for (const [number, shard] of shards.entries()) {
    let left = weights[number] * scale;
    let isFirst = true;
    while (left > 0.01) {
      const row = Math.min(rows - 1, Math.floor(at / width + 1e-9));
      const x = at - row * width;
      const part = Math.min(left, width - x);
      if (part <= 0.01) { at = (row + 1) * width; if (row === rows - 1) break; continue; }
      yield { shard, x, row, width: part, isFirst };
      at += part;
      left -= part;
      isFirst = false;
    }
  }
}

function drawnPiece({ shard, x, row, width, isFirst }, height, { chosen, choose }) {
  const y = row * (height + GAP);
  const names = [shard.kind, ...(shard.id === chosen ? ["is-chosen"] : [])];
  const inset = names.length > 1 ? 1.5 : shard.kind === "damaged" ? 1 : 0;
  const rect = drawn("rect", {
    class: names.join(" "), x: x + inset, y: y + inset, rx: Math.min(3, width / 4),
    width: Math.max(width - 2 * inset, 1), height: height - 2 * inset,
  });
  rect.append(drawn("title", {}, `${visible(shard.id)}, ${bytes(shard.bytes)}, ${shard.word}`));
  rect.addEventListener("click", () => choose(shard.id));
  const label = isFirst ? labelFor(shard, width) : "";
  return label ? [rect, drawn("text", { x: x + 7, y: y + height / 2 + 4 }, label)] : [rect];
}

/** As much of the name as fits; damage is marked even where no name does. */
function labelFor(shard, width) {
  const room = Math.floor((width - 14) / 7);
  const mark = shard.kind === "damaged" ? "✕ " : "";
  const text = [...(mark + visible(shard.id))];
  if (text.length <= room) return text.join("");
  if (room >= 6) return `${text.slice(0, room - 1).join("")}…`;
  return mark && width >= 16 ? "✕" : "";
}

function summary(shards) {
  const damaged = shards.filter((shard) => shard.kind === "damaged").length;
  const stale = shards.filter((shard) => shard.kind === "stale").length;
  return `Map of ${count(shards.length, "shard")}: ${damaged} damaged, ${stale} verified over a day ago.`;
}
