// The page: asks for the overview every few seconds and after every event, shows it, and acts on request.

import * as api from "/page/api.js";
import { drawChart, forecastSentence } from "/page/chart.js";
import { clearFeed, startFeed, take } from "/page/feed.js";
import { chosenShard, showShards, startShards } from "/page/shards.js";
import { ago, bytes, clock, count, duration, element, setText, visible } from "/page/words.js";

const ASK_MS = 5000;
const PAUSE_MS = 1000; // between two answers, however much happens
const SILENCE_MS = 15000;
const MARKS = { ok: "✓", attention: "!", stopped: "■" };
const byId = (id) => document.getElementById(id);

let last = null; // the newest overview
let lastAt = 0; // when it came, by this machine's clock that never steps
let lastId = null;
let isAsking = false;
let mustAskAgain = false;
let stream = null;

const nowMs = () => Date.parse(last.now) + (performance.now() - lastAt);

async function ask() {
  if (isAsking) { mustAskAgain = true; return; }
  isAsking = true;
  try {
    show(await api.overview(AbortSignal.timeout(SILENCE_MS)));
  } catch (error) {
    if (error.status === 401 || error.status === 403) signIn(error);
    else showSilence();
  } finally {
    isAsking = false;
    if (mustAskAgain) { mustAskAgain = false; setTimeout(ask, PAUSE_MS); }
  }
}

function show(overview) {
  last = overview;
  lastAt = performance.now();
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  byId("forget").hidden = !api.hasToken();
  const { verdict, status } = overview;
  document.title = `${MARKS[verdict.grade]} ${status.worker_id}: vram worker`;
  setText(byId("worker"), visible(status.worker_id));
  setText(byId("state"), status.state);
  byId("state").className = `badge ${verdict.grade}`;
  byId("state").hidden = false;
  setText(byId("device"), `${visible(status.device)}, up ${duration(status.uptime_s)}, version ${status.version}`);
  showVerdict(verdict);
  showShards(overview.shards, nowMs());
  showChosen(chosenShard());
  showCapacity(overview);
  showLog(overview.log);
  showCaveats(overview.caveats);
  setText(byId("connection"), "Live");
  byId("connection").className = "quiet";
  if (stream === null) listen();
}

function showVerdict(verdict) {
  byId("verdict").className = `verdict ${verdict.grade}`;
  setText(byId("verdict-mark"), MARKS[verdict.grade]);
  setText(byId("verdict-says"), visible(verdict.says));
  setText(byId("verdict-next"), verdict.next ? visible(verdict.next) : "");
  showAge();
}

/** The verdict's age; one that is not renewed any more is marked as old. */
function showAge() {
  if (last === null) return;
  const oldest = last.verdict.oldest_full_verification;
  setText(byId("verdict-age"), oldest ? `, oldest full verification ${ago((nowMs() - Date.parse(oldest)) / 1000)}.` : ".");
  if (performance.now() - lastAt > SILENCE_MS) showSilence();
}

function showSilence() {
  const said = last === null
    ? "The worker does not answer."
    : `The worker does not answer: all this is from ${clock(last.now)} UTC, ${ago((performance.now() - lastAt) / 1000)}.`;
  setText(byId("connection"), said);
  byId("connection").className = "lost";
  byId("verdict").classList.add("old");
}

function showCapacity(overview) {
  const { total_bytes: total, used_bytes: used, available_bytes: available, headroom_bytes: headroom } = overview.status.capacity;
  setText(byId("capacity-says"), `${bytes(used)} of ${bytes(total)} used, ${bytes(available)} free`
    + (headroom ? `, ${bytes(headroom)} kept free` : ""));
  const meter = byId("capacity-bar");
  const parts = [["used", used], ["kept", headroom]].map(([name, size]) => {
    const part = element("span", { className: name });
    part.style.width = `${(100 * size) / total}%`;
    return part;
  });
  meter.replaceChildren(parts[0], ...(headroom ? [element("span"), parts[1]] : []));
  if (headroom) meter.children[1].style.flex = "1";
  meter.setAttribute("aria-label", `${Math.round((100 * used) / total)} percent used`);
  drawChart(byId("chart"), {
    history: overview.history, forecast: overview.forecast, usableBytes: total - headroom, nowS: nowMs() / 1000,
  });
  setText(byId("forecast"), forecastSentence(overview.forecast, nowMs() / 1000));
}

function showLog(log) {
  const { stats } = log;
  const facts = log.is_kept ? [
    ["Entries", `${stats.tree_size.toLocaleString("en")}, epoch ${stats.epoch}`, ""],
    ["Signed head", `over ${stats.checkpoint_size.toLocaleString("en")}: ${(log.head || "none").slice(0, 16)}…`, ""],
    ["Not signed yet", count(log.unsigned, "entry", "entries"), ""],
    ["Not written yet", `${stats.waiting} of ${stats.capacity.toLocaleString("en")}`, stats.waiting > stats.capacity / 2 ? "attend" : ""],
    ["Gaps", stats.dropped ? `${count(stats.dropped, "event")} lost, ${stats.dropped_critical} of them critical` : "none", stats.dropped ? "amiss" : ""],
    ["Failed writes", String(stats.write_failures), stats.write_failures ? "attend" : ""],
    ["Unprotected", `all ${count(stats.tree_size, "entry", "entries")}, unless somebody else keeps a checkpoint`, "attend"],
  ] : [["Kept", "no: nothing is recorded", "amiss"]];
  if (stats.last_failure) facts.push(["Now", visible(stats.last_failure), "amiss"]);
  byId("log-facts").replaceChildren(...facts.flatMap(([name, text, grade]) => [
    element("dt", { textContent: name }), element("dd", { textContent: text, className: grade }),
  ]));
}

function showCaveats(caveats) {
  byId("caveat-list").replaceChildren(...caveats.map((caveat) => element(
    "li", {}, caveat.says, ...(caveat.mend ? [" ", element("span", { textContent: caveat.mend })] : []),
  )));
}

function showChosen(shard) {
  byId("chosen").hidden = shard === null;
  if (shard === null) return;
  const { handle, damage } = shard;
  const lines = [`${visible(shard.id)}: ${bytes(shard.bytes)}, ${count(handle.tensors, "tensor")}, ${handle.format}, sealed at ${clock(handle.sealed_at)} UTC as ${handle.digest.slice(0, 23)}…`];
  if (damage) lines.push(damageSentence(damage));
  byId("chosen-says").replaceChildren(...lines.map((line) => element("p", { textContent: line })));
  byId("verify").disabled = shard.kind === "damaged";
}

function damageSentence(damage) {
  const where = damage.first_bad_offset === undefined || damage.first_bad_offset === null
    ? "" : `, in bytes ${damage.first_bad_offset} to ${damage.last_bad_offset}`;
  const tensors = damage.tensors?.length ? `, ${damage.tensors.length === 1 ? "tensor" : "tensors"} ${damage.tensors.slice(0, 5).map(visible).join(", ")}` : "";
  return `Damage found at ${clock(damage.timestamp)} UTC (${damage.reason.replaceAll("_", " ")})${where}${tensors}.`;
}

/** Ask before acting. The safe answer has the focus where the act cannot be undone. */
function confirmed({ title, says, yes, isDangerous }) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-says"), says);
  setText(byId("confirm-yes"), yes);
  byId("confirm-yes").className = isDangerous ? "danger" : "";
  dialog.returnValue = "";
  dialog.showModal();
  byId(isDangerous ? "confirm-no" : "confirm-yes").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(shard, question, work, doing) {
  if (shard === null || !await confirmed(question)) return;
  say(doing);
  try {
    say(await work(shard.id));
  } catch (error) {
    const isDamage = error.code === "SEAL_VERIFICATION_FAILED";
    say(isDamage ? `${shard.id} is damaged.` : `${error.message}${error.hint ? ` (${error.hint})` : ""}`, true);
  }
  ask();
}

function say(text, isError = false) {
  byId("outcome").className = isError ? "error" : "";
  setText(byId("outcome"), visible(text));
}

function verifyChosen() {
  const shard = chosenShard();
  return act(shard, {
    title: `Verify ${visible(shard.id)} in full?`,
    says: `All ${bytes(shard.bytes)} are read and compared with the seal. If there is damage, this worker stops.`,
    yes: "Verify", isDangerous: false,
  }, async (id) => {
    const found = await api.verify(id);
    return `${id} is what was sealed: ${bytes(found.bytes_checked)} read in ${found.duration_s.toFixed(2)} s.`;
  }, `Reading ${shard.id} …`);
}

function freeChosen() {
  const shard = chosenShard();
  return act(shard, {
    title: `Free ${visible(shard.id)}?`,
    says: `${shard.kind === "damaged" ? "It is damaged: what could be examined in its memory is gone then. " : ""}Its ${bytes(shard.bytes)} are wiped and given back. Requests for it are refused from then on; only loading the model again undoes this.`,
    yes: "Free it", isDangerous: true,
  }, async (id) => { await api.free(id); return `${id} is freed.`; }, `Freeing ${shard.id} …`);
}

function signIn(error) {
  stream?.abort();
  stream = null;
  lastId = null;
  byId("board").hidden = true;
  byId("sign-in").hidden = false;
  setText(byId("connection"), "Not signed in");
  byId("connection").className = "quiet";
  setText(byId("sign-in-error"), visible(error.message));
  api.setToken(null);
  byId("forget").hidden = true;
  byId("token").focus();
}

/** Asks for a token first where none could be known: a call without one would be recorded as a failure. */
async function begin() {
  try {
    if (await api.isKnown()) ask();
    else signIn(new Error(""));
  } catch {
    showSilence();
  }
}

async function listen() {
  stream = new AbortController();
  const { signal } = stream;
  while (!signal.aborted) {
    try {
      await api.follow({ lastId, signal, onOpen: () => {}, onEvent: (event) => {
        if (event.id && lastId && event.id.split(".")[0] !== lastId.split(".")[0]) clearFeed();
        lastId = event.id || lastId;
        take(event);
        ask();
      } });
    } catch (error) {
      if (error.status === 401 || error.status === 403) return;
    }
    await new Promise((resolve) => { setTimeout(resolve, 2000); });
  }
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setToken(byId("token").value.trim());
  byId("token").value = "";
  setText(byId("sign-in-error"), "");
  ask();
});
byId("no-token").addEventListener("click", () => { setText(byId("sign-in-error"), ""); ask(); });
byId("forget").addEventListener("click", () => { api.setToken(null); clearFeed(); signIn(new Error("")); });
byId("verify").addEventListener("click", verifyChosen);
byId("free").addEventListener("click", freeChosen);
byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
byId("confirm-no").addEventListener("click", () => byId("confirm").close(""));
startFeed();
startShards((shard) => { if (shard) say(""); showChosen(shard); });
begin();
setInterval(showAge, 1000);
setInterval(() => { if (byId("sign-in").hidden) ask(); }, ASK_MS);
