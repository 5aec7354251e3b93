/** Numbers in words. */

const UNITS = ["bytes", "KB", "MB", "GB"];

/** A size, as file managers say it: 1 KB is 1024 bytes. */
export function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${n < 10 && unit ? Math.round(n * 10) / 10 : Math.round(n)} ${UNITS[unit]}`;
}

/** "1 file", "2 files". */
export function count(n, what) {
  return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
}
