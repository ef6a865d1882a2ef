// Small steps on the document, each only where something has changed. All text goes in as text.

/** What a node shows already: asking the document would cost more. */
const shown = new WeakMap();

function isNew(node, name, value) {
  const known = shown.get(node) ?? {};
  if (known[name] === value) return false;
  known[name] = value;
  shown.set(node, known);
  return true;
}

/** An element with a class and children. */
export function make(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className !== "") node.className = className;
  node.append(...children);
  return node;
}

export function putText(node, text) {
  if (isNew(node, "text", text)) node.textContent = text;
}

/** Sets an attribute; `null` takes it away. */
export function put(node, name, value) {
  if (!isNew(node, name, value)) return;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

export function putClass(node, name, isThere) {
  if (isNew(node, `.${name}`, isThere)) node.classList.toggle(name, isThere);
}

export function show(node, isShown) {
  if (isNew(node, "hidden", !isShown)) node.hidden = !isShown;
}

/** A part that `make` made with one of its classes. */
export function part(node, className) {
  const parts = node.parts ??= new Map();
  if (!parts.has(className)) parts.set(className, node.querySelector(`.${className}`));
  return parts.get(className);
}

/**
 * Makes the children of a node those of the items, in their order. Nodes stay what they are as long as their
 * item does, so focus, selection and scrolling stay, too.
 */
export function patch(parent, items, create, update) {
  const before = parent.nodes ?? new Map();
  parent.nodes = new Map(items.map((item) => [item.key, before.get(item.key) ?? create(item)]));
  for (const [key, node] of before) {
    if (!parent.nodes.has(key)) node.remove();
  }
  let next = parent.firstChild;
  for (const item of items) {
    const node = parent.nodes.get(item.key);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
}

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [120, 24];

/** A place for a sparkline. */
export function makeMinute() {
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { class: "minute", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" };
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

/** A pause without points is a gap, and no line. */
const GAP_MS = 5_000;

/** Draws the points of the last minute: the line, and what is beneath it. */
export function drawMinute(svg, points, now, minuteMs) {
  const highest = points.reduce((most, { value }) => Math.max(most, value), 1e-9);
  let [line, area, last] = ["", "", null];
  for (const { at, value } of points) {
    const x = ((at - now) / minuteMs + 1) * WIDTH;
    const y = HEIGHT - 1 - (value / highest) * (HEIGHT - 3);
    const place = `${x.toFixed(1)} ${y.toFixed(1)}`;
    const goesOn = last !== null && at - last.at < GAP_MS;
    if (!goesOn && last !== null) area += `V${HEIGHT}Z`;
    line += goesOn ? `L${place}` : `M${place}`;
    area += goesOn ? `L${place}` : `M${x.toFixed(1)} ${HEIGHT}L${place}`;
    last = { at };
  }
  put(svg.lastChild, "d", line);
  put(svg.firstChild, "d", area === "" ? "" : `${area}V${HEIGHT}Z`);
}
