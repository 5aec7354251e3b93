/** The connection's state in words, and what a screen reader is told. */

import { handOn, say } from "./dom.js";

const ANNOUNCED = { waiting: "Connection lost. Reconnecting.", offline: "You are offline.", connected: "Connected again." };

export class StatusView {
  /** `box` takes the focus from a retry button that is not needed any more. */
  constructor({ root, text, retry, announcer, box }) {
    Object.assign(this, { root, text, retry, announcer, box });
    this.timer = 0;
    this.was = "";
    this.lost = false;
  }

  show(status) {
    this.status = status;
    clearInterval(this.timer);
    if (status.state === "waiting") this.timer = setInterval(() => this.#words(), 250);
    const name = status.state === "connected" && status.degraded ? "degraded" : status.state;
    this.root.dataset.state = name;
    const lost = name === "waiting" || name === "offline";
    if (!lost) handOn(this.retry, this.box);
    this.retry.hidden = !lost;
    this.#words();
    this.#tell(name);
  }

  #words() {
    const { state, degraded, retryAt, message } = this.status;
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const words = {
      idle: "",
      connecting: "Connecting…",
      connected: degraded ? "Degraded: text may arrive late" : "Connected",
      waiting: seconds ? `Reconnecting in ${seconds} s` : "Reconnecting…",
      offline: "Offline",
      ended: message,
    };
    say(this.text, words[state]);
  }

  /** Changes are told once, not every second; the first connection is no news. */
  #tell(name) {
    const lost = name === "waiting" || name === "offline";
    const news = (lost && !this.lost) || (name === "connected" && this.lost);
    if (news) say(this.announcer, ANNOUNCED[name]);
    if (lost) this.lost = true;
    if (name === "connected") this.lost = false;
  }
}

/** Tells the hidden polite region when an answer begins, and the whole answer when it is there. */
export class AnswerAnnouncer {
  constructor(region) {
    this.region = region;
    this.begun = new Set();
    this.ended = new Set();
    this.held = "";
  }

  clear() {
    this.begun.clear();
    this.ended.clear();
    this.held = "";
    say(this.region, "");
  }

  /** `awaited`: whether somebody waited for this message. What is drawn of the history is no news. */
  notice(row, awaited) {
    if (row?.role !== "ASSISTANT" || !awaited) return;
    if (row.status === "pending") {
      if (!this.begun.has(row.id)) this.#tell("Answering…");
      this.begun.add(row.id);
    } else if (!this.ended.has(row.id)) {
      this.ended.add(row.id);
      const ending = { stopped: " Stopped.", interrupted: " Interrupted.", failed: " The answer failed." }[row.status] ?? "";
      this.#tell(`Answer: ${row.content}${ending}`);
    }
  }

  /** A dialog was shut: tell what came meanwhile. */
  catchUp() {
    if (this.held) this.#tell(this.held);
  }

  /** While a dialog is open, nothing outside of it is read out. */
  #tell(text) {
    const shut = !document.querySelector("dialog[open]");
    this.held = shut ? "" : text;
    if (shut) say(this.region, text);
  }
}
