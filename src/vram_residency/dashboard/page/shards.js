// The table of shards: one stop for Tab, arrow keys inside; the grave and the long unread come first.

import { ago, bytes, element, setText, visible } from "/page/words.js";
import { drawMap } from "/page/map.js";

const STALE_S = 24 * 3600;
const WORDS = { sound: "verified", stale: "verified", damaged: "DAMAGED" };
const byId = (id) => document.getElementById(id);

let shards = [];
let chosen = null;
let onChoose = () => {};
const rows = new Map();

export function startShards(choose) {
  onChoose = choose;
  byId("find").addEventListener("input", draw);
  byId("rows").addEventListener("keydown", move);
  new ResizeObserver(drawMapNow).observe(byId("map").parentElement);
}

export function chosenShard() {
  return shards.find((shard) => shard.id === chosen) || null;
}

/** Take the overview's shards. */
export function showShards(views, nowMs) {
  shards = views.map((view) => described(view, nowMs)).sort(byUrgency);
  if (chosen !== null && !chosenShard()) choose(null);
  draw();
}

function described({ handle, damage }, nowMs) {
  const ageS = (nowMs - Date.parse(handle.last_full_verification)) / 1000;
  const kind = handle.state !== "sealed" ? "damaged" : ageS > STALE_S ? "stale" : "sound";
  return { id: handle.handle_id, bytes: handle.vram_bytes, handle, damage, kind, ageS, word: WORDS[kind] };
}

const URGENCY = { damaged: 0, stale: 1, sound: 2 };

function byUrgency(a, b) {
  return URGENCY[a.kind] - URGENCY[b.kind] || (a.kind === "sound" ? 0 : b.ageS - a.ageS) || compare(a.id, b.id);
}

function compare(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

function draw() {
  const text = byId("find").value.trim().toLowerCase();
  const shown = shards.filter((shard) => !text
    || `${shard.id} ${shard.handle.model_ref || ""} ${shard.handle.digest}`.toLowerCase().includes(text));
  const body = byId("rows");
  const focused = document.activeElement?.closest("#rows tr");
  const made = shown.map((shard) => rowOf(shard));
  if (made.length !== body.childElementCount || made.some((row, index) => row !== body.children[index])) {
    body.replaceChildren(...made);
    if (focused?.isConnected) focused.focus();
  }
  const held = new Set(shards.map((shard) => shard.id));
  for (const id of rows.keys()) if (!held.has(id)) rows.delete(id);
  settleTabStop();
  setText(byId("no-rows"), shards.length ? "No shard matches." : "No shard is held.");
  byId("no-rows").hidden = shown.length > 0;
  byId("legend").hidden = !shards.length;
  drawMapNow();
}

function drawMapNow() {
  drawMap(byId("map"), [...shards].sort((a, b) => compare(a.id, b.id)), { chosen, choose });
}

function rowOf(shard) {
  let row = rows.get(shard.id);
  if (!row) {
    row = element("tr", { tabIndex: -1 });
    for (const name of ["", "state", "number", "when", "wide"]) row.append(element("td", { className: name }));
    row.addEventListener("click", () => { choose(shard.id); row.focus({ preventScroll: true }); });
    row.addEventListener("focus", () => choose(shard.id));
    row.shardId = shard.id;
    rows.set(shard.id, row);
  }
  const [id, state, size, when, model] = row.children;
  setText(id, visible(shard.id));
  setText(state, shard.word);
  state.className = `state ${shard.kind}-word`;
  setText(size, bytes(shard.bytes));
  setText(when, ago(shard.ageS));
  setText(model, visible(shard.handle.model_ref || ""));
  row.setAttribute("aria-selected", String(shard.id === chosen));
  return row;
}

function choose(id) {
  if (id === chosen) return;
  chosen = id;
  for (const [each, row] of rows) row.setAttribute("aria-selected", String(each === id));
  settleTabStop();
  drawMapNow();
  onChoose(chosenShard());
}

function settleTabStop() {
  const all = [...byId("rows").children];
  const stop = all.find((row) => row.shardId === chosen) || all[0];
  for (const row of all) row.tabIndex = row === stop ? 0 : -1;
}

function move(event) {
  const all = [...byId("rows").children];
  const at = all.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: all.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const row = all[Math.max(0, Math.min(all.length - 1, to))];
  row.focus();
  row.scrollIntoView({ block: "nearest" });
}
