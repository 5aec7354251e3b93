/**
 * What a conversation looks like right now, from the frames received so far. Pure state: no socket, no DOM, no clock.
 *
 * `apply(frame)` answers which messages changed, or that something is missing and the client has to resume.
 */

import { follow } from "./progress.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Store {
  constructor() {
    /** Messages sent from here that have no row of the server's yet, by client id. They outlive a `reset`. */
    this.outgoing = new Map();
    /** The rows that became of them, and the answers that somebody here waits for or has waited for. Ids; a `reset` keeps them. */
    this.sent = new Set();
    this.awaited = new Set();
    this.clear();
  }

  clear() {
    this.seq = 0;
    this.messages = new Map();
    /** Text of unfinished answers: message id → {offset, text}; `offset` is where the next delta has to begin. */
    this.streams = new Map();
    /** What unfinished answers are at: message id → see progress.js. */
    this.steps = new Map();
    this.hits = new Map();
    this.stopping = new Set();
    this.sorted = null;
  }

  /** The rows of the active branch, then what was sent from here and is not a row yet. */
  ordered() {
    this.sorted ??= this.#branch().filter((row) => !row.deleted);
    return [...this.sorted, ...this.outgoing.values()];
  }

  /** The path from the newest message up through the parents, as far as it is known here. */
  #branch() {
    let row = null;
    for (const each of this.messages.values()) if (!row || each.order > row.order) row = each;
    const path = [];
    for (; row; row = this.messages.get(row.parent)) path.push(row);
    return path.reverse();
  }

  get(id) {
    return this.messages.get(id) ?? this.outgoing.get(id);
  }

  /** The answer that is under way, if any: the oldest pending one. */
  answering() {
    return this.ordered().find((row) => row.role === "ASSISTANT" && row.status === "pending") ?? null;
  }

  textOf(row) {
    return row.status === "pending" && row.role === "ASSISTANT" ? (this.streams.get(row.id)?.text ?? "") : row.content;
  }

  sourcesOf(row) {
    return row.sources?.length ? row.sources : (this.hits.get(row.id) ?? []);
  }

  /** What `hello` says: where we left off. */
  cursor() {
    const streams = {};
    for (const [id, stream] of this.streams) streams[id] = stream.offset;
    return { seq: this.seq, streams };
  }

  apply(frame) {
    switch (frame.type) {
      case "message":
        return this.#message(frame.message, frame.seq);
      case "delta":
        return this.#delta(frame);
      case "step":
        this.steps.set(frame.message_id, follow(this.steps.get(frame.message_id), frame));
        return changed(frame.message_id);
      case "sources":
        this.hits.set(frame.message_id, frame.hits);
        return changed(frame.message_id);
      case "ack":
        return this.#ack(frame);
      default:
        return changed();
    }
  }

  /** Older rows read by REST. They don't move the cursor: events between them and it are still to come. */
  merge(rows) {
    for (const row of rows) {
      const known = this.messages.get(row.id);
      if (!known || known.seq < row.seq) this.messages.set(row.id, row);
    }
    this.sorted = null;
  }

  #message(message, seq) {
    const known = this.messages.get(message.id);
    this.seq = Math.max(this.seq, seq);
    // A replay may bring a state that we already have, or have moved on from.
    if (known && known.seq > seq) return changed();
    this.messages.set(message.id, { ...message, seq });
    this.sorted = null;
    if (message.client_id && this.outgoing.delete(message.client_id)) this.sent.add(message.id);
    // An answer may be there before anything was heard of it: after a broken connection, or from a fast model.
    if (message.status === "pending" || this.sent.has(message.parent)) this.awaited.add(message.id);
    if (message.status !== "pending") {
      this.streams.delete(message.id);
      this.steps.delete(message.id);
      this.stopping.delete(message.id);
    } else if (message.role === "ASSISTANT" && (!known || known.seq !== seq)) {
      // A new attempt at the answer: its text and its steps begin anew.
      this.steps.delete(message.id);
      this.streams.set(message.id, { offset: 0, text: "" });
    }
    return changed(message.id);
  }

  #delta({ message_id: id, offset, end, text }) {
    const row = this.messages.get(id);
    if (row && row.status !== "pending") return changed();
    let stream = this.streams.get(id);
    if (!stream) this.streams.set(id, (stream = { offset: 0, text: "" }));
    if (end <= stream.offset) return changed();
    if (offset > stream.offset) return { ids: [], gap: true };
    stream.text += offset === stream.offset ? text : decoder.decode(encoder.encode(text).slice(stream.offset - offset));
    stream.offset = end;
    return changed(id);
  }

  #ack(frame) {
    const sent = this.outgoing.get(frame.id);
    if (!sent) return changed();
    const known = this.messages.has(frame.message_id);
    if (known) this.outgoing.delete(frame.id);
    else Object.assign(sent, { state: "sent", error: null });
    return changed(known ? frame.message_id : frame.id);
  }
}

function changed(...ids) {
  return { ids, gap: false };
}
