/** The box one writes in. Enter sends, Shift+Enter makes a line; a draft stays with its conversation. */

import { handOn } from "./dom.js";

const GROWS = CSS.supports("field-sizing", "content");
const MAX_ROWS = 9;

export class Composer {
  /** `send(text)` and `stop()` are called; `storage` keeps drafts. */
  constructor({ form, box, sendButton, stopButton, count, send, stop, storage }) {
    Object.assign(this, { form, box, sendButton, stopButton, count, send, stop, storage });
    this.limit = Infinity;
    this.key = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    box.addEventListener("keydown", (event) => {
      // While an input method composes, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    box.addEventListener("input", () => this.#edited());
    stopButton.addEventListener("click", () => this.stop());
  }

  /** Turn to a conversation, with the draft that was left there. */
  open(sessionId) {
    const typedBeforeScripts = this.key === null ? this.box.value : "";
    this.key = `chain.draft.${sessionId ?? "new"}`;
    this.box.value = typedBeforeScripts || (this.storage.getItem(this.key) ?? "");
    this.#edited();
  }

  /** A conversation was made for what was just sent: later drafts are its own. */
  rename(sessionId) {
    this.storage.removeItem(this.key);
    this.key = `chain.draft.${sessionId}`;
    this.#edited();
  }

  answering(yes) {
    if (!yes) handOn(this.stopButton, this.box);
    this.stopButton.hidden = !yes;
  }

  enable(yes) {
    this.box.disabled = !yes;
    this.#edited();
  }

  #submit() {
    const text = this.box.value.trim();
    if (!text || text.length > this.limit || this.box.disabled) return;
    this.box.value = "";
    this.#edited();
    this.send(text);
    this.box.focus();
  }

  #edited() {
    const { value } = this.box;
    if (value) this.storage.setItem(this.key, value);
    else this.storage.removeItem(this.key);
    if (!GROWS) this.box.rows = Math.min(MAX_ROWS, value.split("\n").length);
    // The server counts code points; UTF-16 units are never fewer.
    const over = value.length - this.limit;
    this.count.hidden = over <= -200 || !Number.isFinite(over);
    this.count.textContent = over > 0 ? `${over} characters too many` : `${-over} characters left`;
    this.count.classList.toggle("error", over > 0);
    this.sendButton.disabled = !value.trim() || over > 0 || this.box.disabled;
  }
}
