// Story and evidence as they happen, newest first. The page keeps a bounded number of events, and says so.

import { clock, count, element, setText, visible } from "/page/words.js";

const KEPT = 1000;
const SHOWN = 200;
const AMISS = new Set(["error", "fatal", "HIGH", "CRITICAL"]);
const ATTEND = new Set(["warn", "MEDIUM"]);
const GRAVE_TYPES = new Set([
  "seal_verification_failed", "shard_quarantined", "policy_violation", "events_dropped", "shards_lost",
  "auth_failure", "path_traversal_attempt", "rate_limit_exceeded", "invalid_token_used",
  "suspicious_activity", "malformed_model_rejected", "vram_allocation_failed", "log_tampering_detected",
]);
const ENVELOPE = new Set(["index", "timestamp", "event_type", "service_id", "audit_id", "mac"]);

const byId = (id) => document.getElementById(id);
const events = [];
let lostCount = 0;
let heldBack = 0;
let isPaused = false;
let isDrawing = false;

export function startFeed() {
  for (const id of ["show-story", "show-evidence", "only-grave"]) byId(id).addEventListener("change", draw);
  byId("feed-find").addEventListener("input", draw);
  byId("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    heldBack = 0;
    byId("pause").setAttribute("aria-pressed", String(isPaused));
    setText(byId("pause"), isPaused ? "Go on" : "Pause");
    draw();
  });
}

export function clearFeed() {
  events.length = 0;
  lostCount = 0;
  draw();
}

/** Take one event of the stream: story, evidence or lost. */
export function take(event) {
  if (event.name === "lost") lostCount += event.data.count;
  else if (event.name === "story" || event.name === "evidence") {
    insert(asItem(event));
    if (events.length > KEPT) events.splice(0, events.length - KEPT);
  }
  if (isPaused) heldBack += 1;
  schedule();
}

/** By time: story and evidence come by different ways. */
function insert(item) {
  let at = events.length;
  while (at > 0 && events[at - 1].at > item.at) at -= 1;
  events.splice(at, 0, item);
}

function schedule() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => { isDrawing = false; if (isPaused) note(); else draw(); });
}

function asItem({ name, data }) {
  if (name === "story") {
    return {
      name, at: data.emitted_at, kind: data.action, says: data.human, grade: gradeOf(data.level), details: null,
      searched: `${data.action} ${data.target} ${data.human} ${data.actor}`.toLowerCase(),
    };
  }
  const details = Object.entries(data).filter(([key]) => !ENVELOPE.has(key));
  const grade = GRAVE_TYPES.has(data.event_type) ? gradeOf(data.severity || "HIGH") || "attend" : gradeOf(data.severity);
  return {
    name, at: data.timestamp, kind: data.event_type, says: `entry ${data.index}`, grade, details,
    searched: JSON.stringify(data).toLowerCase(),
  };
}

function gradeOf(level) {
  if (AMISS.has(level)) return "amiss";
  return ATTEND.has(level) ? "attend" : "";
}

function wanted(item) {
  if (!byId(`show-${item.name}`).checked) return false;
  if (byId("only-grave").checked && !item.grade) return false;
  const text = byId("feed-find").value.trim().toLowerCase();
  return !text || item.searched.includes(text);
}

/** Elements are kept from one drawing to the next, so that an opened entry stays open. */
const drawnItems = new WeakMap();

function draw() {
  const shown = events.filter(wanted).slice(-SHOWN).reverse();
  byId("feed-list").replaceChildren(...shown.map((item) => {
    let made = drawnItems.get(item);
    if (made) made.classList.remove("is-new");
    else { made = drawItem(item); drawnItems.set(item, made); }
    return made;
  }));
  note();
}

function note() {
  const said = [];
  if (isPaused) said.push(`Paused: ${count(heldBack, "event")} came since.`);
  if (lostCount) said.push(`${count(lostCount, "event")} came faster than they could be shown here; the log has every one.`);
  if (!events.length) said.push("Nothing has happened since this worker began.");
  else if (!byId("feed-list").childElementCount) said.push("Nothing matches.");
  setText(byId("feed-note"), said.join(" "));
}

function drawItem(item) {
  const source = item.name === "story" ? "story" : `evidence, ${item.says}`;
  const meta = element("div", { className: "meta" }, `${clock(item.at)} UTC · ${source}`);
  if (item.grade === "amiss") meta.append(" · ", element("span", { className: "amiss-word", textContent: "amiss" }));
  const made = element("li", { className: `${item.grade} is-new`.trim() }, meta);
  if (item.details === null) made.append(visible(item.says));
  else made.append(drawEvidence(item));
  return made;
}

function drawEvidence(item) {
  const facts = element("dl");
  for (const [name, value] of item.details) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    facts.append(element("dt", { textContent: visible(name) }), element("dd", { textContent: visible(text) }));
  }
  const about = item.details.find(([name]) => name === "shard_id");
  const title = visible(item.kind) + (about ? `: ${visible(about[1])}` : "");
  return element("details", {}, element("summary", { className: "code", textContent: title }), facts);
}
