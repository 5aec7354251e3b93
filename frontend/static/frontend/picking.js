/** Files that somebody drops or chooses, as {file, path}, folders with what is below them. Bounded; hidden files stay out. */

export const MOST_FILES = 1_000;
const MOST_ENTRIES = 10_000;
const DEEPEST = 16;

/** From an input: {items, problems: [{path, message}], more: whether some were left out}. */
export function chosen(files) {
  const all = [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  const seen = all.filter(({ path }) => !path.split("/").slice(1).some(hidden));
  return { items: seen.slice(0, MOST_FILES), problems: [], more: seen.length > MOST_FILES };
}

/** From a drop, as `chosen`. To be called in its event: afterwards the browser doesn't tell any more. */
export function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.());
  return entries.every(Boolean) ? walked(entries) : Promise.resolve(chosen(transfer.files));
}

async function walked(roots) {
  const found = { items: [], problems: [], more: false };
  const queue = roots.map((entry) => ({ entry, depth: 0 }));
  // The queue grows while it is worked through: what lies near the top comes first.
  for (const { entry, depth } of queue) {
    const path = entry.fullPath.slice(1);
    if (depth && hidden(entry.name)) continue;
    if (found.items.length === MOST_FILES) {
      found.more = true;
      break;
    }
    try {
      if (entry.isFile) found.items.push({ file: await fileOf(entry), path });
      else if (depth === DEEPEST) found.problems.push({ path, message: "lies too deep." });
      else found.more ||= await enter(entry, depth + 1, queue);
    } catch {
      found.problems.push({ path, message: "can't be read by your browser." });
    }
  }
  return found;
}

/** Put what is in a folder into the queue; whether there was too much of it. The browser hands it out in parts. */
async function enter(folder, depth, queue) {
  const reader = folder.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return false;
    const room = MOST_ENTRIES - queue.length;
    queue.push(...part.slice(0, room).map((entry) => ({ entry, depth })));
    if (part.length > room) return true;
  }
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

function hidden(name) {
  return name.startsWith(".");
}
