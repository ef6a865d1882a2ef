// Where the page meets the world: asks the mapper, reads the clock, and hears keys and the pointer.

import { Model } from "./model.js";
import { draw, drawDetails } from "./view.js";

/** So long after an answer the mapper is asked again: it makes a report once in a second. */
const POLL_MS = 1_000;

/** Who has not answered by then is silent. */
const PATIENCE_MS = 2_500;

const model = new Model();
const filter = document.getElementById("filter");
const rows = document.getElementById("main");
let etag = null;
let timer = null;
let isAsking = false;
let pointed = null;
let drawnAt = 0;

/** Asks the mapper once, and tells the model what came of it. */
async function ask() {
  clearTimeout(timer);
  // Who comes back is answered at once.
  if (isAsking || document.hidden) return;
  isAsking = true;
  try {
    const headers = etag === null ? {} : { "If-None-Match": etag };
    // The tag is ours to send: what the browser keeps would answer 200 for a 304.
    const options = { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    const answer = await fetch("status.json", options).catch(unreached);
    if (answer.status === 304) {
      model.handleUnchanged(performance.now(), Date.now());
    } else if (answer.ok) {
      model.handleReport(performance.now(), Date.now(), await answer.json());
      etag = answer.headers.get("ETag");
    } else {
      throw new Error(`It says: ${(await answer.text()).slice(0, 200)}`);
    }
  } catch (error) {
    etag = null;
    model.handleSilence(performance.now(), Date.now(), error.message);
  }
  isAsking = false;
  timer = setTimeout(ask, POLL_MS);
  redraw();
}

/** Says in our words why there is no answer. */
function unreached({ name }) {
  const { host } = location;
  throw new Error(
    name === "TimeoutError" ? `${host} takes connections and says nothing` : `Nobody answers at ${host}`,
  );
}

function redraw() {
  drawnAt = performance.now();
  const active = document.activeElement;
  const key = active?.dataset.key;
  const place = cells().indexOf(active);
  model.setFrozen(rows.matches(":hover") || rows.contains(active));
  const scene = model.scene(drawnAt);
  draw(scene);
  keepFocus(key, place);
  redrawDetails(scene.pins ?? []);
}

/** The card of who is pointed at, else of who has the focus; then those that are pinned. */
function redrawDetails(pins) {
  const focused = document.activeElement?.dataset.key ?? null;
  const looked = [pointed ?? focused].filter((key) => key !== null && !pins.includes(key));
  const now = performance.now();
  const details = [...looked, ...[...pins].reverse()].map((key) => model.detail(key, now));
  drawDetails(details.filter((detail) => detail !== null), now);
}

function cells() {
  return [...document.querySelectorAll('#services [role="option"]')];
}

/** Tab leads to one instance of each service; who is gone hands the focus to who is there now. */
function keepFocus(key, place) {
  for (const list of document.querySelectorAll('#services [role="listbox"]')) {
    if (list.firstChild !== null && list.querySelector('[tabindex="0"]') === null) {
      list.firstChild.tabIndex = 0;
    }
  }
  if (key === undefined || document.activeElement?.dataset.key === key) return;
  const all = cells();
  const next = all.find((cell) => cell.dataset.key === key) ?? all[Math.min(place, all.length - 1)];
  if (place >= 0 && next !== undefined) focus(next);
}

function focus(cell) {
  for (const other of cell.parentNode.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  cell.tabIndex = 0;
  cell.focus({ preventScroll: false });
}

/** The next cell in that direction, as the eye sees it. */
function neighbour(cell, key) {
  const all = cells();
  const place = all.indexOf(cell);
  switch (key) {
    case "ArrowLeft": return all[place - 1];
    case "ArrowRight": return all[place + 1];
    case "Home": return all[0];
    case "End": return all.at(-1);
  }
  const from = cell.getBoundingClientRect();
  const isDown = key === "ArrowDown";
  const boxes = all.map((other) => ({ other, box: other.getBoundingClientRect() }));
  const beyond = boxes.filter(({ box }) => isDown ? box.top > from.top + 1 : box.top < from.top - 1);
  const row = beyond.reduce((nearest, { box }) => isDown ? Math.min(nearest, box.top) : Math.max(nearest, box.top), isDown ? Infinity : -Infinity);
  const off = ({ box }) => Math.abs(box.left - from.left);
  const inRow = beyond.filter(({ box }) => Math.abs(box.top - row) < 2);
  return inRow.sort((one, other) => off(one) - off(other))[0]?.other;
}

const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

function handleKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const active = document.activeElement;
  const isCell = active?.getAttribute("role") === "option";
  if (event.key === "/" && active !== filter) {
    filter.focus();
    filter.select();
  } else if (isCell && MOVES.includes(event.key)) {
    const next = neighbour(active, event.key);
    if (next !== undefined) focus(next);
  } else if (active === filter && (event.key === "ArrowDown" || event.key === "Enter")) {
    const first = cells()[0];
    if (first !== undefined) focus(first);
  } else if (isCell && (event.key === "Enter" || event.key === " ")) {
    turnPin(active.dataset.key);
  } else if (event.key === "Escape") {
    handleEscape(active);
  } else {
    return;
  }
  event.preventDefault();
}

/** One step back: out of the filter, then pinned cards, the newest first, then out of the rows. */
function handleEscape(active) {
  if (active !== filter && model.unpinLast()) return redraw();
  if (filter.value !== "") {
    filter.value = "";
    model.setFilter("");
    return redraw();
  }
  if (active instanceof HTMLElement) active.blur();
}

function turnPin(key) {
  model.turnPin(key);
  redraw();
}

function handleClick({ target }) {
  const node = target.closest("[data-key], [data-close], [data-copy]");
  if (node === null) return;
  const { key, close, copy } = node.dataset;
  if (copy !== undefined) copyText(node, copy);
  else turnPin(key ?? close);
}

async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "not copied: select it";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1_500);
}

function point(key) {
  if (key === pointed) return;
  pointed = key;
  redrawDetails(model.scene(performance.now()).pins ?? []);
}

document.addEventListener("keydown", handleKey);
document.addEventListener("click", handleClick);
document.addEventListener("focusin", () => redrawDetails(model.scene(performance.now()).pins ?? []));
// What is at the side stays while the pointer goes there.
rows.addEventListener("pointerover", ({ target }) => point(target.closest("[data-key]")?.dataset.key ?? null));
rows.addEventListener("pointerleave", () => point(null));
filter.addEventListener("input", () => {
  model.setFilter(filter.value);
  redraw();
});
document.addEventListener("visibilitychange", ask);
// Silence grows while nobody answers.
setInterval(() => {
  if (isAsking && performance.now() - drawnAt > 1.5 * POLL_MS) redraw();
}, POLL_MS);
redraw();
ask();
