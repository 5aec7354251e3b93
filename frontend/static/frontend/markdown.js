/**
 * Markdown as tokens: the part of CommonMark that models write, plus tables and [n] citation marks. No HTML: a `<` is text.
 *
 * `blocks(text)` cuts a text into blocks that know where they end, so that a growing text is parsed from its last block on.
 * `inline(text, {open})` reads what is inside a block; with `open` (the end of a text still being written) a construct
 * whose end has not come yet is shown as what it will most likely be, instead of flickering between marks and result.
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>[ ]?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;
const MAX_DEPTH = 12;
const MAX_COLUMNS = 64;
const MAX_LINK = 2_000;

/** @returns {{type: string, end: number}[]} `end` is the offset in `text` behind the block. */
export function blocks(text, depth = 0) {
  const lines = new Lines(text);
  const found = [];
  while (!lines.done) {
    if (BLANK.test(lines.now)) {
      lines.next();
      continue;
    }
    const block = depth < MAX_DEPTH ? structure(lines, depth) : null;
    found.push({ ...(block ?? paragraph(lines, depth)), end: lines.offset });
  }
  return found;
}

/** A cursor over lines that knows its offset in the text. */
class Lines {
  constructor(text) {
    this.lines = text.split("\n");
    this.at = 0;
    this.offset = 0;
    this.length = text.length;
  }

  get done() {
    return this.at >= this.lines.length;
  }

  get now() {
    return this.lines[this.at];
  }

  get after() {
    return this.lines[this.at + 1];
  }

  next() {
    const line = this.now;
    this.at += 1;
    this.offset = Math.min(this.length, this.offset + line.length + 1);
    return line;
  }
}

function structure(lines, depth) {
  return fence(lines) ?? heading(lines) ?? rule(lines) ?? quote(lines, depth) ?? list(lines, depth) ?? table(lines);
}

function fence(lines) {
  const start = FENCE.exec(lines.now);
  if (!start) return null;
  const [, mark, info] = start;
  const indent = lines.next().search(/\S/);
  const close = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
  const code = [];
  let closed = false;
  while (!lines.done && !closed) {
    const line = lines.next();
    closed = close.test(line);
    if (!closed) code.push(line.slice(Math.min(indent, Math.max(0, line.search(/\S|$/)))));
  }
  // The closing fence while it is being written is not code.
  if (!closed && code.length && new RegExp(`^ {0,3}\\${mark[0]}{1,${mark.length}}$`).test(code.at(-1))) code.pop();
  return { type: "code", language: info.trim().split(/\s/)[0], text: code.join("\n").replace(/\n$/, ""), closed };
}

function heading(lines) {
  const match = HEADING.exec(lines.now);
  if (!match) return null;
  lines.next();
  return { type: "heading", level: match[1].length, text: match[2].trim().replace(/(?<=^|\s)#+$/, "").trimEnd() };
}

function rule(lines) {
  if (!RULE.test(lines.now)) return null;
  lines.next();
  return { type: "rule" };
}

function quote(lines, depth) {
  if (!QUOTE.test(lines.now)) return null;
  const inner = [];
  while (!lines.done && QUOTE.test(lines.now)) inner.push(lines.next().replace(QUOTE, ""));
  return { type: "quote", blocks: blocks(inner.join("\n"), depth + 1) };
}

function list(lines, depth) {
  const first = ITEM.exec(lines.now);
  if (!first || RULE.test(lines.now)) return null;
  const ordered = /\d/.test(first[2]);
  const items = [];
  let loose = false;
  while (!lines.done) {
    const match = ITEM.exec(lines.now);
    if (!match || /\d/.test(match[2]) !== ordered || RULE.test(lines.now)) break;
    const [text, gap] = item(lines, match);
    items.push(blocks(text, depth + 1));
    const next = gap && !lines.done && ITEM.exec(lines.now);
    if (next && /\d/.test(next[2]) === ordered) loose = true;
  }
  return { type: "list", ordered, start: ordered ? Number.parseInt(first[2], 10) : 1, items, loose };
}

/** One item's text without its indent, and whether blank lines followed it. */
function item(lines, match) {
  const width = match[0].length - Math.max(0, match[3].length - 4);
  const text = [lines.next().slice(match[0].length)];
  let blank = 0;
  while (!lines.done) {
    const line = lines.now;
    const indent = line.search(/\S|$/);
    if (BLANK.test(line)) {
      blank += 1;
    } else if (indent >= Math.min(width, 2)) {
      text.push(...Array(blank).fill(""), line.slice(Math.min(indent, width)));
      blank = 0;
    } else if (blank || ITEM.test(line) || interrupts(line)) {
      break;
    } else {
      text.push(line);
    }
    lines.next();
  }
  return [text.join("\n"), blank > 0];
}

function table(lines) {
  if (!lines.now.includes("|") || lines.after === undefined || !TABLE_RULE.test(lines.after)) return null;
  const head = cells(lines.next());
  const align = cells(lines.now).map((cell) => [cell.startsWith(":") && "start", cell.endsWith(":") && "end"]);
  if (align.length !== head.length || head.length > MAX_COLUMNS) return { type: "paragraph", text: `${head.join(" | ")}\n${lines.next()}` };
  lines.next();
  const rows = [];
  while (!lines.done && !BLANK.test(lines.now) && !interrupts(lines.now)) {
    const row = cells(lines.next());
    rows.push(head.map((_, column) => row[column] ?? ""));
  }
  return { type: "table", head, rows, align: align.map(([start, end]) => (start && end ? "center" : end || "start")) };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, depth) {
  const text = [lines.next()];
  while (!lines.done && !BLANK.test(lines.now) && !(depth < MAX_DEPTH && interrupts(lines.now))) text.push(lines.next());
  return { type: "paragraph", text: text.map((line) => line.replace(/^[ \t]+/, "")).join("\n") };
}

/** Whether a line ends the paragraph above it. An ordered list does so only when it begins with 1. */
function interrupts(line) {
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const match = ITEM.exec(line);
  return Boolean(match && match[3] && (!/\d/.test(match[2]) || Number.parseInt(match[2], 10) === 1));
}

// --- Inside a block ---------------------------------------------------------------------------------------------------

const ESCAPED = /^\\([!-/:-@[-`{-~])/;
const CITE = /^\[(\d{1,3}(?:\s*,\s*\d{1,3}){0,9})\](?!\()/;
const AUTOLINK = /^<(https?:\/\/[^\s<>]+)>/i;
const BARE_LINK = /^https?:\/\/[^\s<>]*[^\s<>.,:;!?'"()[\]{}*_`]/i;
const LINK_TAIL = /^\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/;

/** @returns {object[]} tokens: text, code, strong, em, strike, link, cite, break */
export function inline(text, { open = false, depth = 0, linked = false } = {}) {
  const tokens = [];
  const barren = new Set();
  let plain = "";
  const flush = () => {
    if (plain) tokens.push({ type: "text", text: plain });
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const special = /[\\`*_~[!<\nhH]/g;
    special.lastIndex = at;
    const next = special.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at >= text.length) break;
    const found = depth < MAX_DEPTH ? construct(text, at, { open, depth, linked, barren }) : null;
    if (found?.token) {
      flush();
      tokens.push(found.token);
    }
    plain += found ? (found.plain ?? "") : text[at];
    at = found ? found.end : at + 1;
  }
  flush();
  return tokens;
}

function construct(text, at, options) {
  const rest = text.slice(at);
  switch (text[at]) {
    case "\\": {
      const match = ESCAPED.exec(rest);
      return match && { plain: match[1], end: at + 2 };
    }
    case "\n":
      return { token: { type: "break" }, end: at + 1 };
    case "`":
      return codeSpan(text, at, options);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, options);
    case "[":
    case "!":
      return bracket(text, at, rest, options);
    case "<": {
      const match = AUTOLINK.exec(rest);
      return match && { token: link(match[1], [{ type: "text", text: match[1] }]), end: at + match[0].length };
    }
    default: {
      const match = !options.linked && !/\w/.test(text[at - 1] ?? " ") && BARE_LINK.exec(rest);
      return match ? { token: link(match[0], [{ type: "text", text: match[0] }]), end: at + match[0].length } : null;
    }
  }
}

function link(href, inner) {
  return { type: "link", href, inner };
}

function codeSpan(text, at, { open, barren }) {
  const mark = /^`+/.exec(text.slice(at))[0];
  const close = new RegExp(`(?<!\`)\`{${mark.length}}(?!\`)`, "g");
  close.lastIndex = at + mark.length;
  const match = barren.has(mark) ? null : close.exec(text);
  if (match) {
    const code = text.slice(at + mark.length, match.index).replaceAll("\n", " ");
    return { token: { type: "code", text: /^ .*\S.* $/.test(code) ? code.slice(1, -1) : code }, end: match.index + mark.length };
  }
  barren.add(mark);
  if (!open) return { plain: mark, end: at + mark.length };
  const code = text.slice(at + mark.length).replace(/`+$/, "");
  return code ? { token: { type: "code", text: code }, end: text.length } : { plain: "", end: text.length };
}

const EMPHASIS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "strike" };

function emphasis(text, at, options) {
  const run = new RegExp(`^\\${text[at]}+`).exec(text.slice(at))[0];
  const wholeRun = { plain: run, end: at + run.length };
  if (run[0] === "~" && run.length !== 2) return wholeRun;
  const ended = at + run.length >= text.length;
  // Marks at the very end of a text still being written: they may open or close anything, so they wait.
  if (ended) return options.open && run.length <= 3 ? { plain: "", end: text.length } : wholeRun;
  const inWord = run[0] === "_" && /[\p{L}\p{N}]/u.test(text[at - 1] ?? "");
  if (/\s/.test(text[at + run.length]) || inWord || run.length > 3) return wholeRun;
  const size = run.length;
  const end = closing(text, at + size, { mark: run[0], size, barren: options.barren });
  if (end < 0 && !options.open) return wholeRun;
  const inside = text.slice(at + size, end < 0 ? text.length : end);
  const inner = inline(inside, { ...options, open: end < 0, depth: options.depth + 1 });
  const both = size === 3 && { type: "strong", inner: [{ type: "em", inner }] };
  return { token: both || { type: EMPHASIS[run], inner }, end: end < 0 ? text.length : end + size };
}

/** Where the run that closes begins, or -1. Code and escapes in between keep their own marks. */
function closing(text, from, { mark, size, barren }) {
  // Without this, thousands of openers that nothing closes would each read the text to its end.
  if (barren.has(mark + size)) return -1;
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === "\\") {
      at += 1;
    } else if (text[at] === "`") {
      const code = codeSpan(text, at, { open: false, barren });
      at = code.end - 1;
    } else if (text[at] === mark) {
      let end = at;
      while (text[end] === mark) end += 1;
      const free = !/\s/.test(text[at - 1]) && !(mark === "_" && /[\p{L}\p{N}]/u.test(text[end] ?? ""));
      if (free && (end - at === size || end - at === 3)) return size < 3 && end - at === 3 ? end - size : at;
      at = end - 1;
    }
  }
  barren.add(mark + size);
  return -1;
}

function bracket(text, at, rest, options) {
  if (text[at] === "!") {
    // An image is shown as a link: loading it would tell a stranger's server who reads this.
    if (text[at + 1] !== "[") return null;
    return bracket(text, at + 1, rest.slice(1), options) ?? { plain: "!", end: at + 1 };
  }
  const cite = CITE.exec(rest);
  if (cite) return { token: { type: "cite", marks: cite[1].split(",").map(Number), text: cite[0] }, end: at + cite[0].length };
  if (options.linked) return null;
  const close = closingBracket(text, at);
  if (close < 0) return options.open && /^\[\d{0,3}$/.test(rest) ? { plain: "", end: text.length } : null;
  const label = text.slice(at + 1, close);
  const tail = LINK_TAIL.exec(text.slice(close + 1, close + 1 + MAX_LINK));
  const inner = () => inline(label, { ...options, open: false, depth: options.depth + 1, linked: true });
  if (tail) return { token: link(tail[1], inner()), end: close + 1 + tail[0].length };
  const unfinished = options.open && text[close + 1] === "(" && !/[\s)]/.test(text.slice(close + 2));
  return unfinished ? { token: { type: "group", inner: inner() }, end: text.length } : null;
}

function closingBracket(text, from) {
  let deep = 0;
  for (let at = from; at < text.length && at < from + MAX_LINK / 2; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "[") deep += 1;
    else if (text[at] === "]") deep -= 1;
    if (deep === 0) return at;
  }
  return -1;
}
