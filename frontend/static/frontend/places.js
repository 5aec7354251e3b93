/** Places in a text. The server counts characters as Python does, in code points; a string here counts UTF-16 units. */

/** The index in `text` of its code point number `n`, or its length. */
export function unitOf(text, n) {
  let at = 0;
  for (; n > 0 && at < text.length; n -= 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

/**
 * Where a passage stands in a part of its document: [from, to] as indices into `part.text`, or null.
 *
 * The document may have changed since the passage was cited: then it counts where its words stand now.
 */
export function placeOf({ text, start, end }, part) {
  const from = unitOf(part.text, start - part.start);
  const to = from + unitOf(part.text.slice(from), end - Math.max(start, part.start));
  if (!text || part.text.slice(from, to) === text) return from < to ? [from, to] : null;
  const found = nearest(part.text, text, from);
  return found < 0 ? null : [found, found + text.length];
}

/** Where `words` stand in `text`, as near to `place` as they do; -1 if nowhere. */
function nearest(text, words, place) {
  const before = text.lastIndexOf(words, place);
  const after = text.indexOf(words, place);
  if (before < 0 || after < 0) return Math.max(before, after);
  return place - before < after - place ? before : after;
}
