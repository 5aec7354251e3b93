/** Elements from JavaScript, without HTML strings. */

/** `props` are properties, but for `class`, `data` and names with a dash, which are attributes. */
export function el(name, props = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") element.className = value;
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Set text only where it changes: an unchanged node costs no layout. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Before `element` vanishes: the focus, if it is there, goes to `next`. Else a keyboard user stands at the top of the page. */
export function handOn(element, next) {
  if (element.contains(document.activeElement)) next.focus();
}

export function byId(id) {
  return document.getElementById(id);
}
