/** A document in the list: its name, how far it is, and what can be done with it. */

import { el, handOn, say } from "./dom.js";
import { bytes, count } from "./figures.js";

const REALLY = "Delete for good?";
const BEGUN = new Set(["parsing", "embedding"]);

/** Whether a worker still has to do something with it. */
export function unfinished(row) {
  return row.state === "queued" || BEGUN.has(row.state);
}

export class DocumentRow {
  /** `actions`: read(row), retry(row), remove(row). */
  constructor(actions) {
    this.actions = actions;
    this.title = button("title", () => actions.read(this.row));
    this.about = el("p", { class: "about" });
    this.state = el("span", { class: "badge" });
    this.bar = el("progress", { hidden: true });
    this.reason = el("p", { class: "reason", dir: "auto", hidden: true });
    this.retry = button("link", () => actions.retry(this.row), "Try again");
    this.remove = button("link", () => this.#remove(), "Delete");
    this.remove.addEventListener("blur", () => this.#ask(false));
    const tools = el("div", { class: "does" }, this.retry, this.remove);
    this.root = el("li", { class: "document" }, this.title, this.state, this.about, this.bar, this.reason, tools);
  }

  update(row) {
    this.row = row;
    const { title, source, state, done, total, reason, size, chunk_count: chunks } = row;
    const counted = state === "embedding" && total > 0;
    this.root.dataset.state = state;
    say(this.title, title);
    // What a document had before is still there while its new text is read.
    this.title.disabled = !chunks;
    say(this.state, words(row));
    const figures = [size && bytes(size), chunks && count(chunks, "passage")].filter(Boolean);
    say(this.about, [...(source === title ? [] : [source]), ...figures.map(unbroken)].join(" · "));
    this.bar.hidden = !BEGUN.has(state);
    if (counted) Object.assign(this.bar, { max: total, value: done });
    else this.bar.removeAttribute("value");
    this.bar.setAttribute("aria-label", `${title}: ${words(row)}`);
    say(this.reason, reason);
    this.reason.hidden = !reason;
    if (state !== "failed") handOn(this.retry, this.remove);
    this.retry.hidden = state !== "failed";
    this.retry.setAttribute("aria-label", `Try ${title} again`);
    this.#name();
  }

  /** The first press asks, the second one does it; going elsewhere takes the question back. */
  #remove() {
    if (this.remove.textContent === REALLY) this.actions.remove(this.row);
    else this.#ask(true);
  }

  #ask(yes) {
    say(this.remove, yes ? REALLY : "Delete");
    this.remove.classList.toggle("asks", yes);
    this.#name();
  }

  #name() {
    const asks = this.remove.textContent === REALLY;
    this.remove.setAttribute("aria-label", asks ? `Delete ${this.row.title} for good?` : `Delete ${this.row.title}`);
  }
}

function unbroken(text) {
  return text.replaceAll(" ", "\u00a0");
}

function words({ state, done, total, chunk_count: chunks }) {
  switch (state) {
    case "queued":
      return "Queued";
    case "parsing":
      return "Reading";
    case "embedding":
      return total ? `Embedding ${done} of ${total}` : "Embedding";
    case "ready":
      return "Ready";
    default:
      return chunks ? "Update failed" : "Failed";
  }
}

function button(kind, act, label = "") {
  const made = el("button", { type: "button", class: kind }, label);
  made.addEventListener("click", act);
  return made;
}
