/**
 * Markdown tokens as DOM nodes: elements of an allow-list with text nodes in them. No HTML string exists anywhere.
 *
 * A `MarkdownView` draws a text that grows: finished blocks are drawn once and stay, only the last one is drawn again.
 */

import { blocks, inline } from "./markdown.js";

/** What can have the focus. */
const STOPS = "a, button, [tabindex]";
const INLINE = { strong: "strong", em: "em", strike: "s", group: "span" };

export class MarkdownView {
  /** `cite(n)` gives the node for a citation mark, or null where there's no such source. */
  constructor(root, { cite = () => null } = {}) {
    this.root = root;
    this.cite = cite;
    this.clear();
  }

  /** The next update draws everything anew. */
  clear() {
    this.text = null;
    this.open = false;
    this.kept = 0;
    this.offset = 0;
  }

  /** Show `text`; `open` says that more is to come. */
  update(text, { open = false } = {}) {
    if (text === this.text && open === this.open) return;
    if (this.text !== null && !text.startsWith(this.text.slice(0, this.offset))) this.clear();
    const rest = text.slice(this.offset);
    const found = blocks(rest);
    const settled = found.slice(0, -1);
    // What has the focus may be drawn again. A text grows at its end: it keeps its place among its like.
    const focused = [...this.root.querySelectorAll(STOPS)].indexOf(document.activeElement);
    this.#trim();
    for (const block of settled) this.root.append(draw(block, { cite: this.cite, open: false }));
    this.kept += settled.length;
    this.offset += settled.at(-1)?.end ?? 0;
    const last = found.at(-1);
    if (last) this.root.append(draw(last, { cite: this.cite, open }));
    if (focused >= 0) this.root.querySelectorAll(STOPS)[focused]?.focus({ preventScroll: true });
    this.text = text;
    this.open = open;
  }

  #trim() {
    while (this.root.childNodes.length > this.kept) this.root.lastChild.remove();
  }
}

function draw(block, how) {
  switch (block.type) {
    case "heading":
      // The page has its own h1 and h2.
      return node(`h${Math.min(6, block.level + 2)}`, ...spans(block.text, how));
    case "code":
      return codeBlock(block);
    case "quote":
      return node("blockquote", ...within(block.blocks, how));
    case "list":
      return listBlock(block, how);
    case "rule":
      return node("hr");
    case "table":
      return tableBlock(block, how);
    default:
      return node("p", ...spans(block.text, how));
  }
}

/** Only the end of a text is still being written, so only the last of the blocks is open. */
function within(inner, how) {
  return inner.map((block, at) => draw(block, { ...how, open: how.open && at === inner.length - 1 }));
}

function listBlock({ ordered, start, items, loose }, how) {
  const list = node(ordered ? "ol" : "ul");
  if (ordered && start !== 1) list.start = start;
  items.forEach((item, at) => {
    const inner = { ...how, open: how.open && at === items.length - 1 };
    const tight = !loose && item[0]?.type === "paragraph";
    const [first, ...rest] = item;
    const lead = tight ? spans(first.text, { ...inner, open: inner.open && !rest.length }) : [];
    list.append(node("li", ...lead, ...within(tight ? rest : item, inner)));
  });
  return list;
}

function codeBlock({ language, text }) {
  const code = node("code", text);
  const pre = node("pre", code);
  pre.tabIndex = 0;
  pre.dir = "ltr";
  const figure = node("figure", pre);
  figure.className = "code";
  if (/^[\w+#.-]{1,24}$/.test(language)) figure.prepend(node("figcaption", language));
  return figure;
}

function tableBlock({ head, rows, align }, how) {
  const row = (name, cells) =>
    node("tr", ...cells.map((cell, at) => Object.assign(node(name, ...spans(cell, { ...how, open: false })), { className: align[at] })));
  const table = node("table", node("thead", row("th", head)), node("tbody", ...rows.map((cells) => row("td", cells))));
  const frame = node("div", table);
  frame.className = "table";
  frame.tabIndex = 0;
  return frame;
}

function spans(text, { open, cite }) {
  return inline(text, { open }).flatMap((token) => span(token, cite));
}

function span(token, cite) {
  switch (token.type) {
    case "text":
      return [token.text];
    case "break":
      return [node("br")];
    case "code":
      return [node("code", token.text)];
    case "cite": {
      const marks = token.marks.map(cite);
      return marks.every(Boolean) ? marks : [token.text];
    }
    case "link":
      return [anchor(token, cite)];
    default:
      return [node(INLINE[token.type] ?? "span", ...token.inner.flatMap((inner) => span(inner, cite)))];
  }
}

function anchor({ href, inner }, cite) {
  const children = inner.flatMap((token) => span(token, cite));
  const url = webAddress(href);
  if (!url) return node("span", ...children);
  const link = node("a", ...children);
  link.href = url;
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  return link;
}

/** The address if it is an absolute http(s) one, else null: `javascript:`, `data:` and relative ones are never linked. */
export function webAddress(href) {
  if (!/^https?:\/\//i.test(href)) return null;
  try {
    return new URL(href).href;
  } catch {
    return null;
  }
}

function node(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}
