/**
 * The documents that answers draw on: a dialog with their list, newest first, and with what is being uploaded.
 *
 * While something is unfinished and somebody looks, the list is read again, less and less often until something moves.
 */

import { Dialog } from "./dialog.js";
import { DocumentRow, unfinished } from "./document-row.js";
import { byId, handOn, say } from "./dom.js";
import { bytes, count } from "./figures.js";
import { chosen } from "./picking.js";
import { Uploads } from "./uploads.js";
import { UploadsView, summary } from "./uploads-view.js";

const SOONEST = 1_000;
const LATEST = 10_000;
const SLOWER = 1.4;
const PAGE = 30;
/** Rows that stay on the page while uploads bring new ones. */
const MOST_ROWS = 300;
/** Queued for so long with nobody at work: there is no worker. */
const PATIENCE = 20_000;

export class Documents {
  /**
   * `most`: {files, bytes} of the server. `here()`: the workspace to show, undefined for the person's own.
   * `read(row, workspace)` opens a document, `signIn()` leaves the page, `tell(text)` speaks while the dialog is shut.
   */
  constructor({ api, root, button, most, here, read, signIn, tell }) {
    Object.assign(this, { api, button, here, signIn, tell });
    this.list = byId("document-list");
    this.views = new Map();
    this.actions = {
      read: (row) => read({ document_id: row.id, title: row.title, source: row.source }, this.workspace),
      retry: (row) => this.#attempt(async () => this.#learn(await api.retryDocument(row.id, this.workspace), this.workspace)),
      remove: (row) => this.#attempt(() => this.#remove(row)),
    };
    this.dialog = new Dialog(root);
    this.uploads = new Uploads({
      api,
      most,
      changed: () => this.#uploading(),
      taken: (row, workspace) => this.#learn(row, workspace),
      failed: (error) => error.status === 401 && signIn(),
    });
    this.uploadsView = new UploadsView(byId("uploads"), this.uploads);
    this.turn = 0;
    this.wasBusy = false;
    this.#turnTo(undefined);
    this.#listen();
  }

  #listen() {
    say(byId("most-bytes"), bytes(this.uploads.most.bytes));
    this.button.addEventListener("click", () => this.open());
    for (const kind of ["files", "folder"]) {
      const input = byId(`${kind}-input`);
      byId(`choose-${kind}`).addEventListener("click", () => input.click());
      input.addEventListener("change", () => {
        this.uploads.add(chosen(input.files), this.workspace);
        // The same files may be chosen again.
        input.value = "";
      });
    }
    byId("more-documents").addEventListener("click", () => this.#attempt(() => this.#older()));
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** Show the list, and upload what was `picked`, if anything was. */
  async open(picked = null) {
    this.dialog.open();
    await this.#attempt(async () => {
      const workspace = await this.here();
      if (workspace !== this.workspace) this.#turnTo(workspace);
      if (picked) this.uploads.add(await picked, workspace);
    });
    await this.#look();
  }

  #turnTo(workspace) {
    this.#stopLooking();
    this.workspace = workspace;
    this.rows = new Map();
    this.counts = null;
    /** Older ones than this are not known yet; null: there are none. */
    this.next = null;
    this.moved = "";
    this.waited = new Set();
    this.turn += 1;
    this.#soon();
    this.#draw();
  }

  /** What a press of a button asks for; a failure is told. */
  async #attempt(act) {
    this.#alert("");
    try {
      await act();
    } catch (error) {
      if (error.status === 401) this.signIn();
      else this.#alert(error.message);
    }
  }

  async #remove(row) {
    await this.api.deleteDocument(row.id, this.workspace).catch((error) => {
      // Somebody else was faster.
      if (error.status !== 404) throw error;
    });
    const item = this.views.get(row.id)?.root;
    const beside = item?.nextElementSibling ?? item?.previousElementSibling;
    this.rows.delete(row.id);
    this.#draw();
    (beside?.querySelector(".does :last-child") ?? byId("choose-files")).focus();
    this.#tell(`${row.title} was deleted.`);
    await this.#look();
  }

  async #older() {
    const { next } = this;
    const page = await this.api.documents(this.workspace, next);
    this.next = page.next;
    this.#merge(page, next);
    this.#draw();
  }

  /** Read the list again, if somebody looks. */
  async #look() {
    this.#stopLooking();
    if (!this.dialog.isOpen || document.hidden) return;
    const turn = (this.turn += 1);
    try {
      const read = await this.#read();
      // Meanwhile something was changed here, or another look was taken.
      if (turn !== this.turn) return;
      this.counts = read.counts;
      for (const [page, before] of read.pages) this.#merge(page, before);
      this.#notice();
      if (this.failing) this.#alert("");
      this.failing = false;
    } catch (error) {
      if (turn !== this.turn) return;
      if (error.status === 401) return this.signIn();
      this.failing = true;
      this.wait = Math.min(LATEST, this.wait * SLOWER);
      this.#alert(error.message);
    }
    this.#draw();
    this.#schedule();
  }

  /** The newest page, that of the oldest one which is not done (work is done in order), and how many are in which state. */
  async #read() {
    const { workspace } = this;
    const rows = this.#sorted();
    const at = rows.findLastIndex(unfinished);
    const newest = await this.api.documents(workspace);
    const pages = [[newest, ""]];
    if (at >= PAGE) {
      const before = rows[at - PAGE].id;
      pages.push([await this.api.documents(workspace, before), before]);
    }
    const counts = newest.documents.length ? (await this.api.collection(workspace)).documents : {};
    return { pages, counts };
  }

  /** Take over a page: what it names, and that nothing else is there between its ends. Ids grow with time. */
  #merge({ documents, next }, before) {
    const listed = new Set(documents.map(({ id }) => id));
    // So many new ones that there may be others between them and those we know: as at first, it begins here.
    const apart = !before && ![...listed].some((id) => this.rows.has(id));
    if (apart) this.rows.clear();
    if (apart || (!before && !next)) this.next = next;
    for (const id of this.rows.keys()) {
      if ((!before || id < before) && id >= (next ?? "") && !listed.has(id)) this.rows.delete(id);
    }
    for (const row of documents) this.rows.set(row.id, row);
  }

  /** A row that an upload or a retry brought. Below what is listed it would stand in the wrong place. */
  #learn(row, workspace) {
    if (workspace !== this.workspace || (!this.rows.has(row.id) && row.id < (this.next ?? ""))) return;
    this.turn += 1;
    this.rows.set(row.id, row);
    if (unfinished(row)) this.waited.add(row.id);
    if (this.rows.size > MOST_ROWS) this.#shorten();
    const slow = this.wait > SOONEST;
    this.#soon();
    // A flood of these doesn't put off a look that will come soon.
    if (slow || !this.timer) this.#schedule();
    this.#drawSoon();
  }

  #shorten() {
    const rows = this.#sorted().slice(0, MOST_ROWS);
    this.rows = new Map(rows.map((row) => [row.id, row]));
    this.next = rows.at(-1).id;
  }

  /** Tell what has come to its end since the last look; something that moves is looked at sooner. */
  #notice() {
    const rows = this.#sorted();
    const ended = rows.filter((row) => !unfinished(row) && this.waited.has(row.id));
    this.waited = new Set(rows.filter(unfinished).map(({ id }) => id));
    this.#tell(news(ended));
    const moved = JSON.stringify([this.counts, rows.map(({ id, state, done }) => [id, state, done])]);
    if (moved === this.moved) this.wait = Math.min(LATEST, this.wait * SLOWER);
    else this.#soon();
    this.moved = moved;
  }

  #soon() {
    this.wait = SOONEST;
    this.movedAt = Date.now();
  }

  #stopLooking() {
    clearTimeout(this.timer);
    this.timer = 0;
  }

  #schedule() {
    this.#stopLooking();
    if (this.dialog.isOpen && (this.failing || this.#open() > 0)) this.timer = setTimeout(() => this.#look(), this.wait);
  }

  /** How many are not done. */
  #open() {
    const { queued = 0, parsing = 0, embedding = 0 } = this.counts ?? {};
    return Math.max(queued + parsing + embedding, this.#sorted().filter(unfinished).length);
  }

  #uploading() {
    const { busy } = this.uploads;
    this.uploadsView.draw();
    this.button.classList.toggle("busy", busy);
    if (busy === this.wasBusy) return;
    this.wasBusy = busy;
    // Only while it matters: a page that asks is not kept by browsers for going back to.
    if (busy) addEventListener("beforeunload", ask);
    else removeEventListener("beforeunload", ask);
    if (!busy) this.#tell(summary(this.uploads));
  }

  #sorted() {
    return [...this.rows.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  #drawSoon() {
    if (this.drawing) return;
    this.drawing = true;
    queueMicrotask(() => this.#draw());
  }

  #draw() {
    this.drawing = false;
    const rows = this.#sorted();
    const last = this.list.lastElementChild;
    for (const [id, view] of this.views) {
      if (this.rows.has(id)) continue;
      view.root.remove();
      this.views.delete(id);
    }
    rows.forEach((row, at) => {
      let view = this.views.get(row.id);
      if (!view) this.views.set(row.id, (view = new DocumentRow(this.actions)));
      if (view.row !== row) view.update(row);
      if (this.list.children[at] !== view.root) this.list.insertBefore(view.root, this.list.children[at] ?? null);
    });
    const more = byId("more-documents");
    if (!this.next) handOn(more, (last?.nextElementSibling ?? last)?.querySelector("button:enabled:not([hidden])"));
    more.hidden = !this.next;
    const none = byId("no-documents");
    none.hidden = rows.length > 0;
    say(none, this.counts ? "Nothing here yet. Answers quote the passages of what you add." : "Loading…");
    say(byId("documents-count"), this.#summary());
    byId("no-worker").hidden = !this.#stuck(rows);
  }

  #summary() {
    const { queued = 0, parsing = 0, embedding = 0, ready = 0, failed = 0 } = this.counts ?? {};
    const open = queued + parsing + embedding;
    const all = open + ready + failed;
    return all ? [count(all, "document"), open && `${open} in progress`, failed && `${failed} failed`].filter(Boolean).join(" · ") : "";
  }

  /** Nobody has taken what is queued. What has failed once waits for its next try, and says so itself. */
  #stuck(rows) {
    const { queued = 0, parsing = 0, embedding = 0 } = this.counts ?? {};
    const tried = rows.some(({ state, reason }) => state === "queued" && reason);
    return queued > 0 && !parsing && !embedding && !tried && Date.now() - this.movedAt > PATIENCE;
  }

  #alert(text) {
    say(byId("documents-alert"), text);
    byId("documents-alert").hidden = !text;
  }

  #tell(text) {
    if (text && this.dialog.isOpen) say(byId("documents-news"), text);
    else if (text) this.tell(text);
  }
}

function ask(event) {
  event.preventDefault();
}

function news(ended) {
  const failed = ended.filter(({ state }) => state === "failed");
  const ready = ended.length - failed.length;
  if (ended.length === 1) return failed.length ? `${ended[0].title} failed: ${ended[0].reason}` : `${ended[0].title} is ready.`;
  const parts = [ready && `${count(ready, "document")} ready`, failed.length && `${count(failed.length, "document")} failed`];
  return parts.some(Boolean) ? `${parts.filter(Boolean).join(", ")}.` : "";
}
