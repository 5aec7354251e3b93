/**
 * Files on their way to the server: one bounded request after the other, each file with an outcome of its own.
 *
 * What was sent before is no second document, so whatever fails may be sent again. No DOM.
 */

import { bytes, count } from "./figures.js";
import { MOST_FILES } from "./picking.js";

const BATCH_FILES = 20;
const BATCH_BYTES = 8 * 1024 * 1024;
const TRIES = 6;
const LONGEST_WAIT = 60;
/** A rate that stays too high is one that so many files at once never fit in. */
const TRIES_WHOLE = 2;
/** The server, or what is before it, is away or has too much to do. */
const LATER = new Set([0, 429, 502, 503, 504]);
/** It may be about one of the files only; anything else is as true of those that wait. */
const ABOUT_ONE = new Set([400, 413, 422, 500]);
const LINES = 100;

export class Uploads {
  /** `most`: {files, bytes} of the server. `changed()` after each step, `taken(document, workspace)` for each row, `failed(error)`. */
  constructor({ api, most, changed, taken, failed }) {
    Object.assign(this, { api, most, changed, taken, failed });
    this.queue = [];
    this.waiting = "";
    this.#begin();
  }

  /** Forget what was told of files that went wrong. */
  dismiss() {
    this.problems = [];
    this.unlisted = 0;
    this.changed();
  }

  #begin() {
    this.total = 0;
    this.done = 0;
    /** Files that were here already. */
    this.known = 0;
    /** {path, message, again: the items that can be sent again}; `unlisted` more have no line. A message may go on from the path. */
    this.problems = [];
    this.unlisted = 0;
    this.stopped = false;
  }

  get busy() {
    return this.done < this.total;
  }

  /** `picked`: as of picking.js. */
  add({ items, problems, more }, workspace) {
    if (!this.busy) this.#begin();
    for (const { path, message } of problems) this.#problem(path, message);
    if (more) this.#problem("More files", `${count(MOST_FILES, "file")} are taken at once; add the others afterwards.`);
    const idle = !this.busy;
    for (const item of items) this.queue.push({ ...item, workspace });
    this.total += items.length;
    this.changed();
    if (idle && this.busy) this.#work();
  }

  /** Send no more than what is on its way. */
  stop() {
    this.stopped = true;
    this.total -= this.queue.splice(0).length;
    this.wake?.();
    this.changed();
  }

  /** Send a problem's files again. */
  again(problem) {
    const others = this.problems.filter((each) => each !== problem);
    this.add({ items: problem.again, problems: [], more: false }, problem.again[0].workspace);
    this.problems = others;
    this.changed();
  }

  async #work() {
    while (this.queue.length) {
      const batch = await this.#batch();
      if (batch.length) await this.#send(batch);
    }
    this.changed();
  }

  /** The next files that go in one request; those that can't go at all are told. */
  async #batch() {
    const batch = [];
    let size = 0;
    while (this.queue.length && batch.length < Math.min(BATCH_FILES, this.most.files)) {
      const [item] = this.queue;
      const full = batch.length && size + item.file.size > Math.min(BATCH_BYTES, 5 * this.most.bytes);
      if (full || (batch.length && item.workspace !== batch[0].workspace)) break;
      this.queue.shift();
      const wrong = await this.#wrong(item.file);
      if (wrong) {
        this.#settle(1);
        this.#problem(item.path, wrong);
      } else {
        batch.push(item);
        size += item.file.size;
      }
    }
    return batch;
  }

  async #wrong(file) {
    const { bytes: most } = this.most;
    if (file.size > most) return `is larger than ${bytes(most)}.`;
    try {
      // It may have been moved or locked since it was picked, and would fail the whole request.
      await file.slice(0, 1).arrayBuffer();
      return "";
    } catch {
      return "can't be read by your browser.";
    }
  }

  async #send(items, tries = 0) {
    try {
      const { documents } = await this.api.upload(form(items), items[0].workspace);
      this.#taken(items, documents);
    } catch (error) {
      const few = ABOUT_ONE.has(error.status) || (error.status === 429 && tries >= TRIES_WHOLE);
      if (few && items.length > 1) {
        const half = Math.ceil(items.length / 2);
        await this.#send(items.slice(0, half));
        await this.#send(items.slice(half));
      } else if (LATER.has(error.status) && tries < TRIES) {
        await this.#wait(error, tries);
        if (this.stopped) this.total -= items.length;
        else await this.#send(items, tries + 1);
      } else {
        this.#refused(items, error);
      }
    }
  }

  async #wait({ retryAfter, message }, tries) {
    const seconds = Math.min(LONGEST_WAIT, retryAfter || 2 ** tries);
    this.waiting = `${message} Trying again in ${count(seconds, "second")}.`;
    this.changed();
    await new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
    this.waiting = "";
    this.changed();
  }

  #taken(items, documents) {
    this.#settle(items.length);
    documents.forEach(({ document, outcome, message }, at) => {
      if (outcome === "refused") this.#problem(items[at].path, message);
      else if (outcome === "unchanged") this.known += 1;
      if (document) this.taken(document, items[at].workspace);
    });
    this.changed();
  }

  #refused(items, error) {
    const rest = ABOUT_ONE.has(error.status) ? [] : this.queue.splice(0);
    const all = [...items, ...rest];
    this.#settle(all.length);
    this.#problem(all.length === 1 ? all[0].path : count(all.length, "file"), error.message, all);
    this.failed(error);
  }

  #settle(number) {
    this.done += number;
    this.changed();
  }

  #problem(path, message, again = null) {
    if (this.problems.length < LINES) this.problems.push({ path, message, again });
    else this.unlisted += 1;
    this.changed();
  }
}

function form(items) {
  const data = new FormData();
  for (const { file, path } of items) {
    data.append("files", file);
    data.append("paths", path);
  }
  return data;
}
