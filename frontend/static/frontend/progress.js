/** What an answer is at, told by its `step` frames: `follow` keeps it, `words` says it. */

const WAITING = "Waiting for its turn…";
const THINKING = "Thinking…";

const STEPS = {
  retrieve: "Searching the documents…",
  tool: "Using a tool…",
  parallel: "Working on several things at once…",
  map: "Working through a list…",
  workflow: "Working…",
};

/** `progress` after a frame: `step` (name, path) that goes on, and `place` in a queue, null if it doesn't wait. */
export function follow(progress, { name, state, detail }) {
  if (state === "queued") return { ...progress, place: detail?.place ?? 0 };
  if (name === "queue") return { ...progress, place: null };
  const path = detail?.path;
  // Texts of what goes on side by side would run into each other: the step that holds them is what is said.
  if (within(path, progress?.step)) return progress;
  if (state === "started") return { step: { name, path }, place: null };
  // What has ended is not what is going on. The end of an earlier one may come late, or never.
  const ended = progress?.step?.name === name && progress.step.path === path;
  return ended ? { step: null, place: null } : progress;
}

export function words(progress) {
  if (typeof progress?.place === "number") return progress.place ? `Waiting: number ${progress.place} in the queue…` : WAITING;
  return STEPS[progress?.step?.name] ?? THINKING;
}

function within(path, step) {
  return (step?.name === "parallel" || step?.name === "map") && path?.startsWith(`${step.path}.`);
}
