// Calls of the worker's API. The token lives in this module's memory alone: no storage, no cookie, no address.

let token = null;

export function setToken(text) { token = text; }
export function hasToken() { return token !== null; }

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the worker answered ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.hint = problem.hint || "";
  }
}

function headers(more = {}) {
  return token === null ? more : { ...more, Authorization: `Bearer ${token}` };
}

async function answer(path, options) {
  const response = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers: headers(options.headers) });
  if (response.ok) return response;
  let problem = {};
  try { problem = await response.json(); } catch { /* no problem details: the status has to do */ }
  throw new Refused(response.status, problem);
}

/** Whether the worker knows who asks without a token, as on its Unix socket. */
export async function isKnown() {
  return (await (await answer("/page/door", {})).json()).is_known;
}

export async function overview(signal) {
  return (await answer("/v1/overview", { signal })).json();
}

export async function verify(shardId) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"scope":"full"}' };
  return (await answer(`/v1/shards/${encodeURIComponent(shardId)}/verify`, options)).json();
}

export async function free(shardId) {
  await answer(`/v1/shards/${encodeURIComponent(shardId)}`, { method: "DELETE" });
}

/** Follow the events until the stream ends; ``lastId`` resumes. fetch, since EventSource sends no token. */
export async function follow({ lastId, onOpen, onEvent, signal }) {
  const more = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const response = await answer("/v1/events?recent=200", { headers: more, signal });
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parsed(block);
      if (event) onEvent(event);
    }
  }
}

function parsed(block) {
  const event = { id: null, name: "message", data: [] };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("id:")) event.id = value;
    else if (line.startsWith("event:")) event.name = value;
    else if (line.startsWith("data:")) event.data.push(value);
  }
  if (!event.data.length) return null;
  return { id: event.id, name: event.name, data: JSON.parse(event.data.join("\n")) };
}
