/**
 * The client of the chain.v1 protocol: one socket for one session, kept alive, resumed without gap or repetition.
 *
 * It knows no DOM. Listen to its events:
 *   change {ids, all}   messages to draw again      status            `client.status` changed
 *   notice {code, message, retryAfter}  typed error  signin            the sign-in is over
 */

import { Store } from "./store.js";

const PING_EVERY = 20_000;
const PONG_WITHIN = 10_000;
const SEEN_EVERY = 1_000;
// Counted in characters of JSON, which stand for at most three bytes each.
const SEEN_BYTES = 32_768;
const BACKOFF = [500, 30_000];
const STABLE_AFTER = 3_000;
const SEND_TRIES = 8;
/** Seconds. Who is told to wait for longer is not kept waiting: the message can be sent again, or deleted. */
const LONGEST_WAIT = 120;

/** Close codes after which there's nothing to come back to; the `error` frame before them says more. */
const FINAL = {
  4003: { code: "forbidden", message: "You can't open this conversation." },
  4004: { code: "not_found", message: "There is no such conversation among yours." },
};

const encoder = new TextEncoder();

export class ChainClient extends EventTarget {
  /** `base` is the ws(s) origin; `storage` (getItem/setItem/removeItem) keeps unsent messages over a reload. */
  constructor({ base, storage = null }) {
    super();
    this.base = base;
    this.storage = storage;
    this.store = new Store();
    this.sessionId = null;
    this.session = null;
    this.limits = {};
    /** state: idle | connecting | connected | waiting | offline | ended */
    this.status = { state: "idle", degraded: false, retryAt: 0, code: "", message: "" };
    this.tries = 0;
    this.stops = new Map();
    this.timers = {};
    this.socket = null;
    this.onNetwork = (event) => (event.type === "online" ? this.reconnect() : this.#ping(PONG_WITHIN / 4));
    globalThis.addEventListener?.("online", this.onNetwork);
    globalThis.addEventListener?.("offline", this.onNetwork);
  }

  /** Join a session. Messages sent before this are sent now. */
  open(sessionId) {
    this.sessionId = sessionId;
    this.#recall();
    this.#keep();
    this.#connect();
  }

  /** Leave for good. */
  close() {
    globalThis.removeEventListener?.("online", this.onNetwork);
    globalThis.removeEventListener?.("offline", this.onNetwork);
    this.sessionId = null;
    this.#drop(1000);
    this.#state("idle");
  }

  /**
   * Send a text: a new message, or one in place of the message `edits`. It is kept, and repeated under the same id, until
   * the server has acknowledged it.
   */
  send(text, edits = null) {
    const id = newId();
    const row = { id, client_id: id, local: true, role: "USER", content: text, edits, status: "complete" };
    Object.assign(row, { state: "sending", error: null, tries: 0, created_at: new Date().toISOString() });
    this.store.outgoing.set(id, row);
    this.#keep();
    this.#changed([id]);
    this.#transmit(row);
    return id;
  }

  /** Try a failed message again: with its id, unless the server has that id for another text. */
  retry(id) {
    const row = this.store.outgoing.get(id);
    if (!row) return;
    if (row.error?.code === "id_conflict") {
      this.discard(id);
      this.send(row.content, row.edits);
      return;
    }
    Object.assign(row, { state: "sending", error: null, tries: 0 });
    this.#changed([id]);
    if (!this.#transmit(row)) this.reconnect();
  }

  discard(id) {
    this.store.outgoing.delete(id);
    this.#keep();
    this.#changed([id]);
  }

  /** Mark everything unsent as failed, e.g. when no session could be made for it. */
  failUnsent(code, message) {
    const rows = [...this.store.outgoing.values()].filter((row) => row.state === "sending");
    for (const row of rows) Object.assign(row, { state: "failed", error: { code, message } });
    this.#changed(rows.map((row) => row.id));
  }

  /** Ask for another answer beside this one; false while there is no connection. Errors come as `notice`. */
  regenerate(messageId) {
    return this.#now({ type: "message.regenerate", id: newId(), message_id: messageId });
  }

  /** Empty a message for good; false while there is no connection. Errors come as `notice`. */
  remove(messageId) {
    return this.#now({ type: "message.delete", id: newId(), message_id: messageId });
  }

  stop(messageId) {
    this.store.stopping.add(messageId);
    this.#changed([messageId]);
    this.#transmitStop(messageId);
  }

  /** Don't wait for the timer. */
  reconnect() {
    if (!this.sessionId || this.status.state === "connected" || this.status.state === "connecting") return;
    this.tries = 0;
    this.#connect();
  }

  // --- The socket ---------------------------------------------------------------------------------------------------

  #connect() {
    this.#drop();
    this.#state("connecting");
    const socket = new WebSocket(`${this.base}/ws/chat/${this.sessionId}/`);
    const mine = (act) => (event) => this.socket === socket && act(event);
    this.socket = socket;
    this.frames = this.unseen = 0;
    this.seenAt = Date.now();
    this.answered = false;
    this.refusal = null;
    this.transmitted = [];
    this.stops = new Map();
    this.timers.hello = setTimeout(() => this.#lost(0), PONG_WITHIN);
    socket.addEventListener("open", mine(() => this.#command({ type: "hello", ...this.store.cursor() })));
    socket.addEventListener("message", mine((event) => this.#receive(event.data)));
    socket.addEventListener("close", mine((event) => this.#lost(event.code)));
  }

  #drop(code) {
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.timers = {};
    const socket = this.socket;
    this.socket = null;
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close(code ?? 1000);
  }

  #command(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  #now(frame) {
    return this.status.state === "connected" && this.#command(frame);
  }

  #receive(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    this.frames += 1;
    this.unseen += data.length;
    this.#on[frame.type]?.(frame);
    const { ids, gap } = this.store.apply(frame);
    if (ids.length) this.#changed(ids);
    if (frame.type === "message" || frame.type === "ack") this.#keep();
    this.#tellSeen(frame.type === "delta");
    // Text is missing in front of this delta: come back with our offsets, and the server reads the range for us.
    if (gap) this.#retryIn(this.#backoff(0));
  }

  #on = {
    __proto__: null,
    welcome: (frame) => {
      clearTimeout(this.timers.hello);
      this.session = frame.session;
      this.limits = frame.limits ?? {};
      this.answered = true;
      // Only a connection that holds ends the backing off: one that breaks at once would be retried in a tight loop.
      this.timers.stable = setTimeout(() => (this.tries = 0), STABLE_AFTER);
      this.#state("connected", { degraded: false });
      this.timers.ping = setInterval(() => this.#ping(PONG_WITHIN), PING_EVERY);
      for (const row of this.store.outgoing.values()) if (row.state === "sending") this.#transmit(row);
      for (const id of this.store.stopping) this.#transmitStop(id);
    },
    reset: () => {
      this.store.clear();
      this.#emit("change", { ids: [], all: true });
    },
    pong: () => {
      clearTimeout(this.timers.pong);
      this.timers.pong = 0;
    },
    degraded: () => this.#state(this.status.state, { degraded: true }),
    recovered: () => this.#state(this.status.state, { degraded: false }),
    goodbye: (frame) => this.#retryIn(1000 * (frame.reconnect_after ?? 1)),
    error: (frame) => this.#refused(frame),
  };

  #refused({ id, code, message, retry_after: retryAfter = null }) {
    const row = id ? this.store.outgoing.get(id) : null;
    if (!this.answered) {
      // `hello` was refused: the close that follows decides what comes of it.
      this.refusal = { code, message };
    } else if (this.stops.has(id)) {
      this.#stopRefused(this.stops.get(id), retryAfter, { code, message });
    } else if (!row) {
      this.#emit("notice", { code, message, retryAfter });
    } else {
      this.#sendRefused(row, retryAfter, { code, message });
    }
  }

  #sendRefused(row, retryAfter, error) {
    row.error = error;
    if (retryAfter !== null && retryAfter <= LONGEST_WAIT && row.tries < SEND_TRIES) this.#later(retryAfter, () => row.state === "sending" && this.#transmit(row));
    else row.state = "failed";
    this.#changed([row.id]);
  }

  #stopRefused(messageId, retryAfter, error) {
    if (retryAfter !== null) {
      this.#later(retryAfter, () => this.store.stopping.has(messageId) && this.#transmitStop(messageId));
      return;
    }
    this.store.stopping.delete(messageId);
    this.#changed([messageId]);
    this.#emit("notice", { ...error, retryAfter });
  }

  /** Once more in a while, on this socket; a new one repeats everything anyway. */
  #later(seconds, act) {
    const { socket } = this;
    setTimeout(() => this.socket === socket && act(), 1000 * seconds + Math.random() * 500);
  }

  #transmitStop(messageId) {
    const id = newId();
    this.stops.set(id, messageId);
    this.#command({ type: "turn.stop", id, message_id: messageId });
  }

  #transmit(row) {
    if (this.status.state !== "connected" || !this.store.outgoing.has(row.id)) return false;
    row.tries += 1;
    this.transmitted.push(row);
    const what = row.edits ? { type: "message.edit", message_id: row.edits } : { type: "message.send" };
    return this.#command({ ...what, id: row.id, text: row.content });
  }

  #lost(code) {
    if (FINAL[code]) {
      const why = this.refusal ?? FINAL[code];
      this.#drop();
      this.failUnsent(why.code, why.message);
      this.#state("ended", why);
    } else if (code === 4001) {
      this.#drop();
      this.#state("ended", { code: "sign_in_required", message: "You are signed out." });
      this.#emit("signin");
    } else {
      // The server closed because of what we sent: sending the same once more would only repeat it.
      if (code === 4009 || code === 4010) this.#blame(code);
      const least = { 4029: 5_000, 4503: 2_000, 4010: 2_000 }[code] ?? 0;
      const soon = code === 4008 || code === 1012;
      this.#retryIn(Math.max(least, this.#backoff(soon && this.answered ? 0 : BACKOFF[0])));
    }
  }

  #blame(code) {
    const row = this.transmitted.filter((sent) => this.store.outgoing.has(sent.id) && sent.state === "sending").pop();
    if (!row) return;
    const message = code === 4009 ? "This message is too large." : "The server could not read this message.";
    Object.assign(row, { state: "failed", error: { code: code === 4009 ? "too_large" : "protocol", message } });
    this.#changed([row.id]);
  }

  /** Milliseconds until the next try: grows with the tries, spread so that clients don't come back all at once. */
  #backoff(first) {
    const wait = Math.min(BACKOFF[1], (this.tries ? BACKOFF[0] : first) * 2 ** this.tries);
    this.tries += 1;
    return wait * (0.5 + Math.random() / 2);
  }

  #retryIn(wait) {
    this.#drop();
    const offline = globalThis.navigator?.onLine === false;
    this.#state(offline ? "offline" : "waiting", { retryAt: Date.now() + wait });
    this.timers.retry = setTimeout(() => this.#connect(), wait);
  }

  #ping(within) {
    if (this.status.state !== "connected" || this.timers.pong) return;
    if (this.#command({ type: "ping" })) this.timers.pong = setTimeout(() => this.#lost(0), within);
  }

  /** Flow control, where the server asks for it: tell how far we have got. */
  #tellSeen(flowing) {
    if (this.limits.credit == null || !this.answered) return;
    const late = Date.now() - this.seenAt >= SEEN_EVERY;
    if (this.unseen >= SEEN_BYTES || (flowing && late)) this.#seen();
    // The last frames of a burst are told of as well: else their credit stays spent until the next answer.
    else if (!this.timers.seen) this.timers.seen = setTimeout(() => this.#seen(), SEEN_EVERY);
  }

  #seen() {
    clearTimeout(this.timers.seen);
    this.timers.seen = 0;
    if (!this.unseen) return;
    this.unseen = 0;
    this.seenAt = Date.now();
    this.#command({ type: "seen", streams: this.store.cursor().streams, frames: this.frames });
  }

  // --- Unsent messages over a reload --------------------------------------------------------------------------------

  #keep() {
    if (!this.storage || !this.sessionId) return;
    const unsent = [...this.store.outgoing.values()].filter((row) => row.state !== "sent");
    const key = `chain.unsent.${this.sessionId}`;
    if (unsent.length) this.storage.setItem(key, JSON.stringify(unsent.map(({ id, content, edits }) => [id, content, edits])));
    else this.storage.removeItem(key);
  }

  #recall() {
    const kept = this.storage?.getItem(`chain.unsent.${this.sessionId}`);
    for (const [id, content, edits = null] of kept ? JSON.parse(kept) : []) {
      if (this.store.outgoing.has(id)) continue;
      const row = { id, client_id: id, local: true, role: "USER", content, edits, status: "complete" };
      this.store.outgoing.set(id, Object.assign(row, { state: "sending", error: null, tries: 0 }));
    }
  }

  // --- Events -------------------------------------------------------------------------------------------------------

  #state(state, more = {}) {
    this.status = { ...this.status, code: "", message: "", ...more, state };
    this.#emit("status");
  }

  #changed(ids) {
    this.#emit("change", { ids, all: false });
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The size of a text as the server counts it. */
export function bytesOf(text) {
  return encoder.encode(text).length;
}

/** A random UUID; `randomUUID` exists only in secure contexts, and a page on a local network may be none. */
export function newId() {
  if (globalThis.crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
