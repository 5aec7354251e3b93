/** One message on the page. `update` changes only what differs from what is shown. */

import { el, say } from "./dom.js";
import { MarkdownView } from "./markdown-dom.js";
import { words } from "./progress.js";
import { SourcesView } from "./sources.js";
import { ToolsView } from "./tools.js";

const ENDINGS = {
  stopped: "Stopped.",
  interrupted: "This answer was interrupted. What had arrived is kept.",
};

const FAILURES = {
  context_exceeded: "This is too long for the model. Ask something shorter.",
  provider_refused: "The model refused to answer this.",
  provider_rate_limited: "The model is busy. Ask again in a moment.",
  provider_unavailable: "The model can't be reached.",
  busy: "Too many wait for the model. Ask again in a moment.",
  provider_timeout: "The model took too long.",
  provider_truncated: "The model's answer broke off.",
  provider_bad_response: "The model sent something unreadable.",
  provider_misconfigured: "The model is not set up correctly. Tell whoever runs this site.",
  workflow_invalid: "The workflow is not set up correctly. Tell whoever runs this site.",
  prompt_invalid: "The prompt is not set up correctly. Tell whoever runs this site.",
  too_many_calls: "The workflow asks models too often. Tell whoever runs this site.",
  workflow_timeout: "The answer took too long.",
  output_invalid: "The model's answer never took the right form.",
  tool_failed: "A tool that the answer needs failed.",
  question_refused: "This message can't be answered here.",
  validator_failed: "The rules here couldn't be checked. Ask again shortly.",
  answer_refused: "The answer was held back by a rule.",
  embedding_mismatch: "The documents need to be indexed again. Tell whoever runs this site.",
  attempts_exhausted: "The answer was begun several times and never finished. Ask again.",
  internal: "Something went wrong here. Ask again.",
  budget_exceeded: "A budget is used up. Ask again later.",
  price_missing: "The model has no price, which its budget needs. Tell whoever runs this site.",
};

export class MessageView {
  /** `actions`: retry(id), discard(id), and those of ToolsView and SourcesView. */
  constructor(row, actions) {
    this.mine = row.role === "USER";
    this.actions = actions;
    this.failure = null;
    this.body = el("div", { class: "body", dir: "auto" });
    this.state = el("p", { class: "state", hidden: true });
    const who = el("h3", { class: "hidden" }, { USER: "You", ASSISTANT: "Assistant", SYSTEM: "System" }[row.role] ?? row.role);
    this.root = el("article", { class: `message ${row.role.toLowerCase()}` }, who, this.body, this.state);
    if (!this.mine) {
      this.sources = new SourcesView(actions);
      this.root.append(this.sources.root);
      this.markdown = new MarkdownView(this.body, { cite: (n) => this.sources.mark(n) });
    }
    this.tools = new ToolsView({ mine: this.mine, body: this.body, actions });
    this.root.append(this.tools.root);
  }

  update(row, store) {
    this.root.dataset.id = row.id;
    this.tools.update(row);
    this.root.dataset.status = row.local ? row.state : row.status;
    const text = store.textOf(row);
    if (this.mine) {
      say(this.body, text);
      this.#delivery(row);
    } else {
      this.#answer(row, store, text);
    }
  }

  #answer(row, store, text) {
    const pending = row.status === "pending";
    const hits = store.sourcesOf(row);
    // Marks are drawn with the text: once the sources are known, what is drawn already is drawn again.
    if (hits !== this.sources.hits && !sameHits(hits, this.sources.hits)) this.markdown.clear();
    else if (hits !== this.sources.hits) this.sources.hits = hits;
    this.sources.update(hits);
    this.markdown.update(text, { open: pending });
    this.root.setAttribute("aria-busy", String(pending));
    this.root.classList.toggle("waiting", pending && !text);
    const failed = row.status === "failed";
    let note = ENDINGS[row.status] ?? "";
    if (failed) note = FAILURES[row.error_code] ?? `No answer (${row.error_code || "unknown failure"}).`;
    if (pending && store.stopping.has(row.id)) note = "Stopping…";
    else if (pending && !text) note = words(store.steps.get(row.id));
    // A failure is news only to those who waited for the answer, not whenever the history is drawn.
    this.#note(note, { error: failed, alert: failed && store.awaited.has(row.id) });
  }

  #delivery(row) {
    if (!row.local) return this.#note("");
    if (row.state === "failed") {
      if (this.failure === row.error) return;
      this.failure = row.error;
      const held = this.state.contains(document.activeElement) ? document.activeElement.textContent : "";
      this.#note(`Not sent: ${row.error?.message ?? "unknown failure"}`, { error: true, alert: true });
      this.state.append(" ", this.#button("Try again", () => this.actions.retry(row.id)), " ", this.#button("Delete", () => this.actions.discard(row.id)));
      // Drawn anew, because it failed anew: who stands on a button stays there.
      if (held) [...this.state.querySelectorAll("button")].find((each) => each.textContent === held)?.focus();
    } else {
      this.failure = null;
      this.#note(row.error ? `${row.error.message} It will be sent again.` : row.state === "sending" ? "Sending…" : "Sent");
    }
  }

  #note(text, { error = false, alert = false } = {}) {
    if (this.state.firstChild?.textContent !== text || this.state.childNodes.length > 1) this.state.textContent = text;
    this.state.hidden = !text;
    this.state.classList.toggle("error", error);
    if (alert) this.state.setAttribute("role", "alert");
    else this.state.removeAttribute("role");
  }

  #button(label, act) {
    const button = el("button", { type: "button", class: "link" }, label);
    button.addEventListener("click", act);
    return button;
  }
}

function sameHits(some, others) {
  return some.length === others.length && some.every((hit, at) => hit.id === others[at].id && hit.n === others[at].n);
}
