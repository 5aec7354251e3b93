/** What one can do with a message that is stored: edit a question, ask for another answer, delete either. */

import { el } from "./dom.js";

const REALLY = "Delete for good?";

export class ToolsView {
  /** `actions`: edit(id, text), regenerate(id), remove(id). `body` makes room for the box in which a question is edited. */
  constructor({ mine, body, actions }) {
    Object.assign(this, { body, actions });
    this.row = null;
    this.form = null;
    this.first = mine ? this.#button("Edit", "Edit message", () => this.#edit()) : this.#button("Regenerate", "Regenerate answer", () => actions.regenerate(this.row.id));
    this.remove = this.#button("Delete", mine ? "Delete message" : "Delete answer", () => this.#remove());
    this.remove.addEventListener("blur", () => this.#ask(false));
    this.label = this.remove.getAttribute("aria-label");
    this.root = el("div", { class: "tools", hidden: true }, this.first, this.remove);
  }

  update(row) {
    this.row = row;
    this.root.hidden = Boolean(row.local) || row.status === "pending" || this.form !== null;
  }

  /** The first press asks, the second one does it; going elsewhere takes the question back. */
  #remove() {
    if (this.remove.textContent === REALLY) this.actions.remove(this.row.id);
    else this.#ask(true);
  }

  #ask(yes) {
    this.remove.textContent = yes ? REALLY : "Delete";
    this.remove.setAttribute("aria-label", yes ? REALLY : this.label);
  }

  #edit() {
    const box = el("textarea", { "aria-label": "Edited message", dir: "auto", value: this.row.content });
    box.rows = Math.min(9, this.row.content.split("\n").length + 1);
    const cancel = this.#button("Cancel", "Cancel editing", () => this.#close());
    const send = el("button", { type: "submit", class: "button primary" }, "Send edited");
    this.form = el("form", { class: "edit" }, box, el("div", { class: "actions" }, cancel, send));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(box.value.trim());
    });
    box.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        this.#close();
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        this.#submit(box.value.trim());
      }
    });
    this.body.hidden = true;
    this.body.after(this.form);
    this.root.hidden = true;
    box.focus();
  }

  #submit(text) {
    const { id, content } = this.row;
    this.#close();
    if (text && text !== content) this.actions.edit(id, text);
  }

  #close() {
    this.form.remove();
    this.form = null;
    this.body.hidden = false;
    this.root.hidden = false;
    this.first.focus();
  }

  #button(label, name, act) {
    const button = el("button", { type: "button", class: "link", "aria-label": name }, label);
    button.addEventListener("click", act);
    return button;
  }
}
