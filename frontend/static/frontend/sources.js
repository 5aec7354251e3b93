/** The passages an answer used: a chip for each, and the passage itself when one is opened. */

import { el } from "./dom.js";
import { webAddress } from "./markdown-dom.js";

let panels = 0;

export class SourcesView {
  /** `read(hit)` opens a hit's document at its place. */
  constructor({ read }) {
    this.read = read;
    this.list = el("ol", { class: "chips", role: "list" });
    this.panel = el("section", { class: "passage", id: `passage-${(panels += 1)}`, tabIndex: -1, hidden: true });
    this.root = el("div", { class: "sources", hidden: true }, el("h3", {}, "Sources"), this.list, this.panel);
    this.hits = [];
    this.opened = null;
    this.opener = null;
    this.panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  update(hits) {
    if (hits === this.hits) return;
    this.hits = hits;
    this.root.hidden = !hits.length;
    this.list.replaceChildren(...hits.map((hit) => el("li", {}, this.#chip(hit))));
    if (this.opened !== null) this.open(this.opened, { focus: false });
  }

  /** A mark in the answer's text, or null where it points to no source: then it stays text. */
  mark(n) {
    const hit = this.hits.find((each) => each.n === n);
    if (!hit) return null;
    const mark = el("button", { type: "button", class: "cite", title: titleOf(hit), "aria-label": `Source ${n}: ${titleOf(hit)}` }, String(n));
    mark.addEventListener("click", () => this.open(n, { opener: mark }));
    return mark;
  }

  open(n, { opener = null, focus = true } = {}) {
    const hit = this.hits.find((each) => each.n === n);
    if (!hit) return this.close();
    this.opened = n;
    this.opener = opener ?? this.opener;
    const shut = el("button", { type: "button", class: "quiet", "aria-label": "Close the source" }, "✕");
    shut.addEventListener("click", () => this.close());
    this.panel.setAttribute("aria-label", `Source ${n}: ${titleOf(hit)}`);
    this.panel.replaceChildren(
      el("header", {}, el("h4", { dir: "auto" }, `${n}. ${titleOf(hit)}`), shut),
      el("blockquote", { dir: "auto" }, hit.text ?? ""),
      ...origin(hit),
      ...this.#reading(hit),
    );
    this.panel.hidden = false;
    this.#show();
    if (!focus) return;
    this.panel.focus({ preventScroll: true });
    this.panel.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.opened = null;
    this.panel.hidden = true;
    this.#show();
    // A mark in the text may have been drawn anew since; the chip is always there.
    const back = this.opener?.isConnected ? this.opener : this.list.querySelector("button");
    this.opener = null;
    back?.focus();
  }

  #chip(hit) {
    const label = [el("span", { class: "n" }, String(hit.n)), el("span", { class: "title", dir: "auto" }, titleOf(hit))];
    const chip = el("button", { type: "button", class: "chip", "aria-expanded": "false", "aria-controls": this.panel.id, data: { n: hit.n } }, ...label);
    chip.addEventListener("click", () => (this.opened === hit.n ? this.close() : this.open(hit.n, { opener: chip })));
    return chip;
  }

  #reading(hit) {
    if (!hit.document_id) return [];
    const open = el("button", { type: "button", class: "link" }, "Open in the document");
    open.addEventListener("click", () => this.read(hit));
    return [open];
  }

  #show() {
    for (const chip of this.list.querySelectorAll(".chip")) {
      chip.setAttribute("aria-expanded", String(Number(chip.dataset.n) === this.opened));
    }
  }
}

function titleOf(hit) {
  return hit.title || hit.source || `Source ${hit.n}`;
}

function origin(hit) {
  if (!hit.source || hit.source === hit.title) return [];
  const url = webAddress(hit.source);
  const where = url ? el("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, hit.source) : hit.source;
  return [el("p", { class: "origin" }, where)];
}
