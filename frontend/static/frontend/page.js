/** The page: joins the client of the protocol, the list of conversations, the transcript and the composer. */

import { Api } from "./api.js";
import { ChainClient } from "./chain.js";
import { Composer } from "./composer.js";
import { Documents } from "./documents.js";
import { byId, handOn, say } from "./dom.js";
import { Drawer } from "./drawer.js";
import { acceptDrops } from "./dropping.js";
import { Reader } from "./reader.js";
import { SessionList } from "./sessions.js";
import { AnswerAnnouncer, StatusView } from "./status.js";
import { Transcript } from "./transcript.js";

const app = byId("app");
const { home, conversations, login, apiRoot, csrfCookie, maxFiles, maxBytes } = app.dataset;
const BASE = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`;

class Page {
  constructor() {
    this.client = null;
    this.creating = false;
    this.api = new Api({ root: apiRoot, csrfCookie, csrfField: document.querySelector("[name=csrfmiddlewaretoken]") });
    this.drawer = new Drawer({ drawer: byId("drawer"), button: byId("menu"), scrim: byId("scrim"), main: byId("main") });
    this.announcer = new AnswerAnnouncer(byId("answer-news"));
    this.status = new StatusView({ root: byId("status"), text: byId("status-text"), retry: byId("retry"), announcer: byId("state-news"), box: byId("box") });
    this.sessions = new SessionList({
      api: this.api,
      list: byId("sessions"),
      more: byId("more"),
      note: byId("no-sessions"),
      urlOf: (id) => `${conversations}${id}/`,
      open: (id) => this.visit(id),
      failed: (error) => this.failed(error),
    });
    this.transcript = new Transcript({
      scroller: byId("scroller"),
      list: byId("transcript"),
      latest: byId("latest"),
      empty: byId("empty"),
      actions: {
        retry: (id) => this.retry(id),
        discard: (id) => this.discard(id),
        edit: (id, text) => this.edit(id, text),
        regenerate: (id) => this.now((client) => client.regenerate(id)),
        remove: (id) => this.now((client) => client.remove(id)),
        read: (hit) => this.read(hit),
      },
      older: (order) => this.older(order),
    });
    this.composer = new Composer({
      form: byId("composer"),
      box: byId("box"),
      sendButton: byId("send"),
      stopButton: byId("stop"),
      count: byId("count"),
      send: (text) => this.send(text),
      stop: () => this.stop(),
      storage: sessionStorage,
    });
    this.reader = new Reader({ api: this.api, root: byId("reader"), signIn: () => this.signIn() });
    this.documents = new Documents({
      api: this.api,
      root: byId("documents"),
      button: byId("open-documents"),
      most: { files: Number(maxFiles), bytes: Number(maxBytes) },
      here: () => this.workspace(),
      read: (row, workspace) => this.reader.open(row, workspace),
      signIn: () => this.signIn(),
      tell: (text) => say(byId("state-news"), text),
    });
    acceptDrops({ sign: byId("drop-sign"), take: (picked) => this.take(picked) });
    this.#listen();
    this.open(app.dataset.session || null);
    this.sessions.load();
  }

  #listen() {
    byId("retry").addEventListener("click", () => this.client.reconnect());
    byId("add-documents").addEventListener("click", () => this.documents.open());
    byId("dismiss").addEventListener("click", () => this.alert(""));
    byId("new").addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      this.visit(null);
    });
    addEventListener("popstate", (event) => this.open(event.state?.session ?? null));
    addEventListener("focus", () => this.sessions.load());
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
      // It closes the dialog, and does nothing else.
      if (document.querySelector("dialog[open]")) return;
      if (!this.drawer.close()) this.stop();
    });
    // It doesn't bubble.
    addEventListener("close", () => this.announcer.catchUp(), true);
    history.replaceState({ session: app.dataset.session || null }, "");
  }

  /** Go to a conversation, as a step of the browser's history. */
  visit(id) {
    history.pushState({ session: id }, "", id ? `${conversations}${id}/` : home);
    this.open(id);
    this.drawer.close();
    byId("box").focus();
  }

  /** Show a conversation; null is one that begins with its first message. */
  open(id) {
    this.client?.close();
    const client = new ChainClient({ base: BASE, storage: sessionStorage });
    this.client = client;
    const mine = (act) => (event) => this.client === client && act(event.detail);
    client.addEventListener("change", mine((change) => this.changed(change)));
    client.addEventListener("status", mine(() => this.stateChanged()));
    client.addEventListener("notice", mine((notice) => this.alert(notice.message)));
    client.addEventListener("signin", mine(() => this.signIn()));
    this.alert("");
    this.announcer.clear();
    this.transcript.show(client.store);
    this.composer.open(id);
    this.composer.answering(false);
    this.sessions.select(id);
    if (id) client.open(id);
    this.stateChanged();
  }

  send(text) {
    this.alert("");
    this.client.send(text);
    this.transcript.toLatest();
    if (!this.client.sessionId) this.create(text);
  }

  edit(id, text) {
    this.alert("");
    this.client.send(text, id);
    this.transcript.toLatest();
    byId("box").focus();
  }

  /** What is done at once or not at all. The button that was pressed may vanish, so the focus moves on. */
  now(act) {
    this.alert(act(this.client) ? "" : "There is no connection right now. Try again in a moment.");
    byId("box").focus();
  }

  retry(id) {
    byId("box").focus();
    this.client.retry(id);
    if (!this.client.sessionId) this.create(this.client.store.get(id)?.content ?? "");
  }

  discard(id) {
    byId("box").focus();
    this.client.discard(id);
  }

  /** A conversation is made when its first message is sent, so that none stands empty in the list. */
  async create(text) {
    if (this.creating) return;
    this.creating = true;
    const { client } = this;
    try {
      const session = await this.api.createSession("");
      this.sessions.learn({ ...session, title: session.title || text.slice(0, 80) });
      if (client !== this.client) return;
      history.replaceState({ session: session.id }, "", `${conversations}${session.id}/`);
      client.open(session.id);
      this.composer.rename(session.id);
      this.sessions.select(session.id);
      this.#title();
    } catch (error) {
      client.failUnsent(error.code, error.message);
      this.failed(error, { quiet: true });
    } finally {
      this.creating = false;
    }
  }

  stop() {
    const answer = this.client.store.answering();
    if (answer && !this.client.store.stopping.has(answer.id)) this.client.stop(answer.id);
  }

  async older(order) {
    const { store, sessionId } = this.client;
    const [oldest] = store.ordered();
    let more = true;
    // Whole pages may be of other branches: go on until this one has grown.
    for (let before = order; more && store.ordered()[0] === oldest; ) {
      const page = await this.api.messagesBefore(sessionId, before);
      store.merge(page.messages);
      before = page.messages[0]?.order;
      more = page.has_more && before !== undefined;
    }
    return more;
  }

  changed({ ids, all }) {
    const { store } = this.client;
    for (const id of ids) this.announcer.notice(store.get(id), store.awaited.has(id));
    if (all) this.transcript.reset();
    else this.transcript.touch();
    this.composer.answering(store.answering() !== null);
    this.#bump(ids);
  }

  /** News in this conversation put it on top of the list, as the server will list it. */
  #bump(ids) {
    const { store, sessionId, session } = this.client;
    for (const id of ids) {
      const at = store.messages.get(id)?.updated_at;
      if (!at || Date.parse(at) <= this.sessions.updatedAt(sessionId)) continue;
      const title = this.sessions.titleOf(sessionId) || session?.title || "";
      this.sessions.learn({ id: sessionId, title, updated_at: at });
    }
  }

  /** The workspace of the conversation; undefined, the person's own, before it exists. */
  async workspace() {
    const { sessionId } = this.client;
    if (!sessionId) return undefined;
    return this.sessions.rows.get(sessionId)?.workspace ?? (await this.api.session(sessionId)).workspace;
  }

  /** Files that were dropped on the page. */
  take(picked) {
    this.reader.close();
    this.documents.open(picked);
  }

  async read(hit) {
    try {
      await this.reader.open(hit, await this.workspace());
    } catch (error) {
      this.failed(error);
    }
  }

  stateChanged() {
    const { status, limits } = this.client;
    this.status.show(status);
    this.composer.limit = limits.text ?? Infinity;
    this.composer.enable(status.state !== "ended");
    if (status.state === "ended") this.alert(status.message);
    this.#title();
  }

  #title() {
    const { sessionId, session } = this.client;
    const title = (sessionId && (this.sessions.titleOf(sessionId) || session?.title)) || "New conversation";
    say(byId("title"), title);
    document.title = sessionId ? `${title} · Django Chain` : "Django Chain";
  }

  failed(error, { quiet = false } = {}) {
    if (error.status === 401) this.signIn();
    else if (!quiet) this.alert(error.message);
  }

  alert(text) {
    say(byId("alert-text"), text);
    if (!text) handOn(byId("alert"), byId("box"));
    byId("alert").hidden = !text;
  }

  signIn() {
    location.assign(`${login}?${new URLSearchParams({ next: location.pathname })}`);
  }
}

/** Where the on-screen keyboard covers the page instead of shrinking it, the page shrinks itself. */
function makeRoomForKeyboard() {
  const view = globalThis.visualViewport;
  const fit = () => {
    const covered = view.scale > 1.01 ? 0 : Math.max(0, innerHeight - view.height - view.offsetTop);
    document.documentElement.style.setProperty("--keyboard", `${Math.round(covered)}px`);
  };
  view?.addEventListener("resize", fit);
}

makeRoomForKeyboard();
export const page = new Page();
