/** How far uploads are, and a line for each file that was not taken. */

import { byId, el, handOn, say } from "./dom.js";
import { count } from "./figures.js";

export class UploadsView {
  constructor(root, uploads) {
    this.root = root;
    this.uploads = uploads;
    this.words = el("p", { class: "words" });
    this.bar = el("progress", { "aria-label": "Upload" });
    this.list = el("ul", { class: "problems", role: "list" });
    this.more = el("p", { class: "muted" });
    this.dismiss = button("Dismiss", () => uploads.dismiss());
    this.stop = button("Stop", () => uploads.stop());
    this.drawn = new Map();
    root.replaceChildren(this.words, this.bar, this.stop, this.list, this.more, this.dismiss);
  }

  draw() {
    const { total, done, busy, waiting, problems, unlisted } = this.uploads;
    const left = (!busy && this.stop) || (!problems.length && this.dismiss);
    if (left) handOn(left, byId("choose-files"));
    this.root.hidden = !busy && !problems.length;
    say(this.words, waiting || (busy ? `Uploading: ${done} of ${count(total, "file")}` : summary(this.uploads)));
    this.bar.hidden = !busy;
    this.stop.hidden = !busy;
    this.bar.max = total || 1;
    this.bar.value = done;
    for (const [problem, line] of this.drawn) {
      if (problems.includes(problem)) continue;
      handOn(line, byId("choose-files"));
      line.remove();
      this.drawn.delete(problem);
    }
    for (const problem of problems) if (!this.drawn.has(problem)) this.#line(problem);
    say(this.more, `And ${count(unlisted, "more file")}.`);
    this.more.hidden = !unlisted;
    this.dismiss.hidden = busy || !problems.length;
  }

  #line(problem) {
    const { path, message, again } = problem;
    // The server names the file in most of what it says.
    const words = message.startsWith(path) ? message.slice(path.length) : `${/^\p{Ll}/u.test(message) ? "" : ":"} ${message}`;
    const line = el("li", { dir: "auto" }, el("b", {}, path), words);
    if (again) line.append(" ", button("Send again", () => this.uploads.again(problem)));
    this.list.append(line);
    this.drawn.set(problem, line);
  }
}

/** What became of files, in a sentence. */
export function summary({ total, known, problems, unlisted }) {
  const missed = problems.reduce((sum, { again }) => sum + (again?.length ?? 1), unlisted);
  const added = Math.max(0, total - known - missed);
  const parts = [];
  if (added) parts.push(`${count(added, "file")} uploaded`);
  if (known) parts.push(`${count(known, "file")} ${known === 1 ? "was" : "were"} here already`);
  if (missed) parts.push(`${count(missed, "file")} not taken`);
  return parts.length ? `${parts.join(", ")}.` : "";
}

function button(label, act) {
  const made = el("button", { type: "button", class: "link" }, label);
  made.addEventListener("click", act);
  return made;
}
