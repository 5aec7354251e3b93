/** Files and folders that are dropped anywhere on the page. */

import { dropped } from "./picking.js";

/** `take(picked)` gets a promise, as of picking.js. `sign` is shown while something hovers over the page, above all dialogs. */
export function acceptDrops({ sign, take }) {
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const show = (yes) => sign.matches(":popover-open") !== yes && sign.togglePopover(yes);
  let leaving = 0;
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    clearTimeout(leaving);
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    show(true);
  });
  // Leaving an element for another one of the page is no leaving, but not every browser names the other one.
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) leaving = setTimeout(() => show(false), 100);
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    show(false);
    take(dropped(event.dataTransfer));
  });
}
