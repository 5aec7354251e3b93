/** The connection's state in words, and what a screen reader is told. */

import { say } from "./dom.js";

const ANNOUNCED = { waiting: "Connection lost. Reconnecting.", offline: "You are offline.", connected: "Connected again." };

export class StatusView {
  constructor({ root, text, retry, announcer }) {
    Object.assign(this, { root, text, retry, announcer });
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
    this.retry.hidden = !["waiting", "offline"].includes(name);
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
    this.pending = new Set();
  }

  clear() {
    this.pending.clear();
    say(this.region, "");
  }

  notice(row) {
    if (row?.role !== "ASSISTANT") return;
    if (row.status === "pending") {
      if (!this.pending.has(row.id)) say(this.region, "Answering…");
      this.pending.add(row.id);
    } else if (this.pending.delete(row.id)) {
      const ending = { stopped: " Stopped.", interrupted: " Interrupted.", failed: " The answer failed." }[row.status] ?? "";
      say(this.region, `Answer: ${row.content}${ending}`);
    }
  }
}
