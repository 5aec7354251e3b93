/** A document's text in a dialog, opened at a passage. A long text is read in parts, as one goes on. */

import { Dialog } from "./dialog.js";
import { byId, el, say } from "./dom.js";
import { webAddress } from "./markdown-dom.js";
import { placeOf } from "./places.js";

/** Characters in one part, no more than the server gives at once; before a passage there are so many. */
const PART = 12_000;
const BEFORE = 3_000;
/** Parts that are kept on the page. */
const KEPT = 20;
const DELETED = "This document was deleted.";
const CHANGED = "The document has changed since: the passage is not in it any more.";

export class Reader {
  constructor({ api, root, signIn }) {
    Object.assign(this, { api, signIn });
    this.turn = 0;
    this.growing = false;
    this.dialog = new Dialog(root, { closed: () => this.#clear() });
    this.title = byId("reader-title");
    this.origin = byId("reader-origin");
    this.note = byId("reader-note");
    this.scroller = byId("reader-scroller");
    this.text = byId("reader-text");
    this.before = byId("reader-before");
    this.after = byId("reader-after");
    this.before.addEventListener("click", () => this.#grow(-1));
    this.after.addEventListener("click", () => this.#grow(1));
  }

  /** `passage`: {document_id, title, source} and, to open at its place, {start, end, text}. */
  async open(passage, workspace) {
    this.#clear();
    Object.assign(this, { id: passage.document_id, workspace });
    say(this.title, passage.title || passage.source);
    this.origin.replaceChildren(...origin(passage));
    this.#say("Loading…");
    this.dialog.open();
    const { start = 0 } = passage;
    await this.#attempt(async () => {
      let part = await this.#part(Math.max(0, start - BEFORE));
      // It was longer when it was cited.
      if (!part.text && part.length) part = await this.#part(0);
      return () => this.#show(part, passage);
    });
  }

  close() {
    this.dialog.close();
  }

  #clear() {
    this.turn += 1;
    this.parts = [];
    this.length = 0;
    this.text.replaceChildren();
    this.#buttons();
  }

  #part(start, end = start + PART) {
    return this.api.documentText(this.id, start, end, this.workspace);
  }

  /** `read()` gives what is to be done then, unless another document was opened meanwhile. */
  async #attempt(read) {
    const { turn } = this;
    try {
      const show = await read();
      if (turn === this.turn) show();
    } catch (error) {
      if (turn !== this.turn) return;
      if (error.status === 401) this.signIn();
      else this.#say(error.status === 404 ? DELETED : error.message);
    }
  }

  #show(part, passage) {
    const place = passage.end === undefined ? null : placeOf(passage, part);
    this.#say(place || passage.end === undefined ? "" : CHANGED);
    const mark = place && el("mark", { tabIndex: -1 }, part.text.slice(...place));
    const node = mark ? el("span", {}, part.text.slice(0, place[0]), mark, part.text.slice(place[1])) : el("span", {}, part.text);
    this.#put(part, node, 1);
    if (!part.length) this.#say("There is no text to show.");
    this.scroller.scrollTop = 0;
    mark?.scrollIntoView({ block: mark.offsetHeight > this.scroller.clientHeight / 2 ? "start" : "center" });
    (mark ?? this.scroller).focus({ preventScroll: true });
  }

  async #grow(way) {
    if (this.growing) return;
    this.growing = true;
    const first = this.parts[0];
    const start = way < 0 ? Math.max(0, first.start - PART) : this.parts.at(-1).end;
    await this.#attempt(async () => {
      const part = await this.#part(start, way < 0 ? first.start : undefined);
      return () => {
        const { node } = this.parts.at(way < 0 ? 0 : -1);
        const top = node.getBoundingClientRect().top;
        this.#put(part, el("span", {}, part.text), way);
        // What one reads stays where it is.
        this.scroller.scrollTop += node.getBoundingClientRect().top - top;
        this.scroller.focus({ preventScroll: true });
      };
    });
    this.growing = false;
  }

  #put({ start, end, length }, node, way) {
    this.length = length;
    this.parts.splice(way < 0 ? 0 : this.parts.length, 0, { start, end, node });
    if (way < 0) this.text.prepend(node);
    else this.text.append(node);
    if (this.parts.length > KEPT) this.parts.splice(way < 0 ? KEPT : 0, 1)[0].node.remove();
    this.#buttons();
  }

  #buttons() {
    this.before.hidden = !(this.parts[0]?.start > 0);
    this.after.hidden = !(this.parts.at(-1)?.end < this.length);
  }

  #say(text) {
    say(this.note, text);
    this.note.hidden = !text;
  }
}

function origin({ title, source }) {
  if (!source || source === title) return [];
  const url = webAddress(source);
  return [url ? el("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, source) : source];
}
