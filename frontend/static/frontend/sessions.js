/** The list of conversations: newest first, a page at a time. */

import { el, handOn, say } from "./dom.js";

export class SessionList {
  /** `open(id)` is called when one is chosen; `urlOf(id)` is its address. */
  constructor({ api, list, more, note, urlOf, open, failed }) {
    Object.assign(this, { api, list, more, note, urlOf, failed });
    this.rows = new Map();
    this.links = new Map();
    this.paged = false;
    this.next = null;
    this.current = null;
    // A button that is disabled while the page is read would lose the focus.
    more.addEventListener("click", () => this.list.ariaBusy === "true" || this.load(this.next));
    list.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      // With a modifier the browser opens a tab or a window, as everywhere.
      if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
      event.preventDefault();
      open(link.dataset.id);
    });
  }

  /** Read a page: the first one, or the one behind `cursor`. */
  async load(cursor = null) {
    this.list.ariaBusy = "true";
    try {
      const page = await this.api.sessions(cursor);
      for (const row of page.sessions) this.#merge(row);
      // A refreshed first page doesn't shorten what "Show more" has brought.
      if (cursor || !this.paged) this.next = page.next;
      this.paged ||= Boolean(cursor);
      this.#draw();
    } catch (error) {
      this.failed(error);
    } finally {
      this.list.ariaBusy = "false";
    }
  }

  /** What is known of a session without asking: a fresh one, or one that has news. */
  learn(row) {
    this.rows.set(row.id, { ...this.rows.get(row.id), ...row });
    this.#draw();
  }

  /** A row of the server's. It was read at another moment: a session that just got its first message has no title there. */
  #merge(row) {
    const known = this.rows.get(row.id);
    const stale = known && this.updatedAt(row.id) >= Date.parse(row.updated_at);
    this.rows.set(row.id, stale ? { ...row, updated_at: known.updated_at, title: row.title || known.title } : row);
  }

  select(id) {
    this.current = id;
    this.#draw();
  }

  titleOf(id) {
    return this.rows.get(id)?.title ?? "";
  }

  updatedAt(id) {
    return Date.parse(this.rows.get(id)?.updated_at ?? 0) || 0;
  }

  #draw() {
    const rows = [...this.rows.values()].sort((a, b) => this.updatedAt(b.id) - this.updatedAt(a.id));
    const focused = document.activeElement?.dataset?.id;
    const last = this.list.lastElementChild;
    rows.forEach((row, at) => {
      const item = this.#item(row);
      if (this.list.children[at] !== item) this.list.insertBefore(item, this.list.children[at] ?? null);
    });
    if (focused && this.list.contains(document.activeElement) === false) this.links.get(focused)?.focus();
    if (!this.next) handOn(this.more, (last?.nextElementSibling ?? last)?.firstChild);
    this.more.hidden = !this.next;
    this.note.hidden = rows.length > 0;
  }

  #item(row) {
    let link = this.links.get(row.id);
    if (!link) {
      link = el("a", { href: this.urlOf(row.id), dir: "auto", data: { id: row.id } });
      el("li", {}, link);
      this.links.set(row.id, link);
    }
    say(link, row.title || "New conversation");
    if (row.id === this.current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    return link.parentElement;
  }
}
