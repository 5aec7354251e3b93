/**
 * The messages on the page: a window of at most MOUNTED of them, drawn at most every 50 ms, and the scrolling.
 *
 * A long conversation costs what its window costs. The view follows the newest text only while the reader is at the bottom.
 */

import { say } from "./dom.js";
import { MessageView } from "./message-view.js";

const MOUNTED = 120;
const FRESH = 80;
const STEP = 40;
const NEAR = 48;
const EDGE = 400;
const FLUSH_FIRST = 50;
const FLUSH_LATER = 100;
const EARLY = 1_000;

export class Transcript {
  /** `older(order)` fetches rows before `order` into the store and answers whether there are more. */
  constructor({ scroller, list, latest, empty, actions, older }) {
    Object.assign(this, { scroller, list, latest, empty, actions, older });
    this.views = new Map();
    this.store = null;
    this.timer = 0;
    this.drawnAt = 0;
    this.flowingSince = 0;
    this.following = true;
    this.top = 0;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#unfollow(), { passive: true });
    scroller.addEventListener("touchmove", () => this.#unfollow(), { passive: true });
    latest.addEventListener("click", () => this.toLatest());
    document.addEventListener("visibilitychange", () => !document.hidden && this.draw());
    new ResizeObserver(() => this.following && this.#toBottom()).observe(scroller);
  }

  show(store) {
    this.store = store;
    this.list.replaceChildren();
    this.views.clear();
    this.reset();
  }

  /** Everything may have changed: back to the newest messages. */
  reset() {
    this.pinned = true;
    this.first = 0;
    this.last = 0;
    this.moreOlder = true;
    this.loading = false;
    this.following = true;
    this.news = false;
    this.draw();
  }

  /** Ask for drawing. A flood of deltas costs one drawing per interval, and none while nobody looks. */
  touch() {
    if (this.timer || document.hidden) return;
    const now = performance.now();
    if (now - this.drawnAt > EARLY) this.flowingSince = now;
    const interval = now - this.flowingSince > EARLY ? FLUSH_LATER : FLUSH_FIRST;
    this.timer = setTimeout(() => this.draw(), Math.max(0, this.drawnAt + interval - now));
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.store) return;
    this.drawnAt = performance.now();
    const rows = this.store.ordered();
    this.#frame(rows.length);
    if (this.following) {
      this.#mount(rows);
      this.#toBottom();
    } else {
      this.#keepPlace(() => this.#mount(rows));
      this.news = true;
    }
    this.empty.hidden = rows.length > 0;
    this.#button();
  }

  toLatest() {
    this.pinned = true;
    this.first = Math.max(0, this.store.ordered().length - FRESH);
    this.following = true;
    this.draw();
    this.scroller.focus({ preventScroll: true });
  }

  /** Which rows are mounted. */
  #frame(length) {
    if (!this.pinned) return;
    this.last = length;
    if (this.following && length - this.first > MOUNTED) this.first = length - FRESH;
    this.first = Math.min(this.first, length);
  }

  #mount(rows) {
    const wanted = rows.slice(this.first, this.last);
    const keys = new Set(wanted.map(keyOf));
    for (const [key, view] of this.views) {
      if (keys.has(key)) continue;
      view.root.remove();
      this.views.delete(key);
    }
    let place = this.list.firstChild;
    for (const row of wanted) {
      const view = this.#view(row);
      view.update(row, this.store);
      if (view.root === place) place = place.nextSibling;
      else this.list.insertBefore(view.root, place);
    }
  }

  #view(row) {
    const key = keyOf(row);
    let view = this.views.get(key);
    if (!view) this.views.set(key, (view = new MessageView(row, this.actions)));
    return view;
  }

  #unfollow() {
    const far = this.scroller.scrollHeight > this.scroller.clientHeight;
    if (far) this.following = false;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - clientHeight - scrollTop;
    // Moving up by a hair ends the following, or each new line would pull the reader back; coming down near the end resumes it.
    const up = scrollTop < this.top;
    this.top = scrollTop;
    if (below <= 1) this.following = this.pinned;
    else if (up) this.following = false;
    else if (below <= NEAR) this.following = this.pinned;
    if (this.following) this.news = false;
    if (scrollTop < EDGE) this.#backward();
    if (!this.pinned && below < EDGE) this.#forward();
    this.#button();
  }

  async #backward() {
    if (this.loading || !this.store || !this.views.size || (this.following && this.first === 0 && !this.moreOlder)) return;
    if (this.first === 0) {
      const [oldest] = this.store.ordered();
      if (!this.moreOlder || oldest.local || oldest.parent === null) return;
      await this.#fetch(oldest);
    }
    if (this.first === 0) return;
    this.first = Math.max(0, this.first - STEP);
    if (this.last - this.first > MOUNTED) {
      this.last = this.first + MOUNTED;
      this.pinned = false;
      this.following = false;
    }
    this.#keepPlace(() => this.#mount(this.store.ordered()));
  }

  async #fetch(oldest) {
    const { store } = this;
    const before = store.ordered().length;
    this.loading = true;
    try {
      this.moreOlder = await this.older(oldest.order);
    } catch {
      // The next scroll tries again.
    } finally {
      this.loading = false;
    }
    if (store !== this.store) return;
    const added = store.ordered().length - before;
    this.first += added;
    this.last += added;
  }

  #forward() {
    const rows = this.store.ordered();
    this.last = Math.min(rows.length, this.last + STEP);
    this.pinned = this.last === rows.length;
    this.first = Math.max(this.first, this.last - MOUNTED);
    this.#keepPlace(() => this.#mount(rows));
  }

  /** Change the list without moving what the reader looks at. */
  #keepPlace(change) {
    const top = this.scroller.getBoundingClientRect().top;
    const seen = [...this.list.children].filter((child) => child.getBoundingClientRect().bottom > top);
    const before = seen.map((child) => child.getBoundingClientRect().top);
    change();
    const at = seen.findIndex((child) => child.isConnected);
    if (at < 0) return;
    const moved = seen[at].getBoundingClientRect().top - before[at];
    if (Math.abs(moved) >= 1) this.scroller.scrollTop += moved;
  }

  #toBottom() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #button() {
    this.latest.hidden = this.following || (this.pinned && !this.news && this.#below() <= NEAR);
    this.latest.classList.toggle("news", this.news);
    say(this.latest.lastChild, this.news ? " New" : " Latest");
  }

  #below() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
  }
}

/** A message keeps its node when its row arrives: own ones are keyed by the id they were sent under. */
function keyOf(row) {
  return row.client_id ?? row.id;
}
