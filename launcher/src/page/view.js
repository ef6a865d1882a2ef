// Draws what the model says is to be seen.

import { drawMinute, make, makeMinute, part, patch, put, putClass, putText, show } from "./dom.js";
import { MINUTE_MS } from "./history.js";
import { ago, count } from "./text.js";

const $ = (id) => document.getElementById(id);

/** All of it. What has not changed is not touched. */
export function draw(scene) {
  const isKnown = scene.totals !== undefined;
  const isStale = isKnown && scene.isStale;
  putClass(document.body, "is-stale", isStale);
  putClass(document.body, "is-unknown", !isKnown);
  drawBanner(scene, isStale || scene.stage === "nobody");
  drawNote(scene);
  show($("totals"), isKnown);
  show($("headings"), isKnown && scene.services.length > 0);
  if (!isKnown) return;
  const mark = scene.warnings.length > 0 || isStale ? "! " : "";
  putText(document.querySelector("title"), `${mark}${scene.totals.ready}/${scene.totals.instances} · svcmap`);
  drawMapper(scene);
  drawTotals(scene);
  patch($("warnings"), scene.warnings.map((text) => ({ key: text })), () => make("li"), (node, { key }) => putText(node, key));
  show($("warnings"), scene.warnings.length > 0);
  patch($("services"), scene.services, makeService, (node, service) => drawService(node, service, scene));
  show($("legend"), scene.layout === "squares");
  drawWorst(scene);
  drawEvents(scene.events);
}

function drawMapper(scene) {
  const node = $("mapper");
  if (node.firstChild === null) {
    node.append(make("span", "glyph"), make("span", "word"), make("b"), make("span", "age"));
  }
  const [glyph, word, endpoint, age] = node.children;
  putText(glyph, scene.isStale ? "✗" : "●");
  putText(word, scene.isStale ? "silent mapper " : "mapper ");
  putText(endpoint, scene.mapper);
  putText(age, scene.isStale ? ` as it was ${ago(scene.ageMs)} ago` : "");
}

function drawBanner(scene, isSilent) {
  const banner = $("banner");
  show(banner, isSilent);
  if (!isSilent) return;
  if (banner.firstChild === null) {
    banner.append(make("b"), make("span"), make("span", "", "What to do: ", make("code", "", "svcmap doctor"), " on its machine; this page goes on by itself once it answers."));
  }
  const [what, why] = banner.children;
  const isNew = scene.silentMs < 1000;
  putText(what, isNew ? "The mapper does not answer." : `The mapper has not answered for ${ago(scene.silentMs)}.`);
  putText(why, scene.stage === "nobody" ? `${scene.silence}.` : `${scene.silence}. All figures are as they were ${ago(scene.ageMs)} ago.`);
}

/** What there is to say where there is nothing to show, each with what to do next. */
function drawNote(scene) {
  const said = {
    waiting: ["Asking the mapper …", ""],
    nobody: ["Nothing is known yet. Is it running?", "svcmap mapper --http 9100"],
    empty: ["Nobody serves anything yet. Start a worker:", "svcmap worker --service echo --builtin echo"],
    shown: ["Nobody serves anything any more. Start a worker:", "svcmap worker --service echo --builtin echo"],
  };
  const isFilteredOut = scene.stage === "shown" && scene.services.length === 0;
  const isNeeded = scene.stage !== "shown" || scene.isNothingServed || isFilteredOut;
  const note = $("note");
  show(note, isNeeded);
  if (!isNeeded) return;
  if (note.firstChild === null) note.append(make("p"), make("p", "", make("code")));
  const [what, next] = isFilteredOut ? [`Nothing has ${scene.filter} in its name.`, "Esc shows all again"] : said[scene.stage];
  putText(note.firstChild, what);
  putText(note.lastChild.firstChild, next);
  show(note.lastChild, next !== "");
}

function makeTotal({ key, label, minute }) {
  const node = make("div", minute === undefined ? "" : "with-minute", make("dt", "", label), make("dd", "", make("span"), make("small")));
  if (minute !== undefined) node.append(makeMinute());
  node.dataset.total = key;
  return node;
}

function drawTotals({ totals, filter, shown, now }) {
  const all = [
    { key: "jobs", label: "jobs/s", value: totals.jobs, minute: totals.minute },
    { key: "failed", label: "failed/s", value: totals.failed, tone: totals.isFailing ? "is-bad" : "" },
    { key: "rejected", label: "rejected/s", value: totals.rejected, tone: totals.isRejecting ? "is-warn" : "" },
    { key: "running", label: "running", value: totals.running },
    { key: "queued", label: "queued", value: totals.queued, small: totals.oldest === null ? "" : `oldest ${totals.oldest}` },
    { key: "ready", label: "ready", value: `${totals.ready}/${totals.instances}`, small: totals.instances === 1 ? "instance" : "instances" },
    { key: "services", label: totals.services === 1 ? "service" : "services", value: totals.services, small: filter === "" ? "" : `${count(shown, "instance")} shown` },
  ];
  patch($("totals"), all, makeTotal, (node, { label, value, small = "", tone = "", minute }) => {
    const [title, figure] = node.children;
    putText(title, label);
    putText(figure.firstChild, String(value));
    putText(figure.lastChild, small);
    putClass(node, "is-bad", tone === "is-bad");
    putClass(node, "is-warn", tone === "is-warn");
    if (minute !== undefined) drawMinute(node.lastChild, minute, now, MINUTE_MS);
  });
}

function makeLoad() {
  return make("div", "load", make("span", "bar", make("i")), make("span", "percent"));
}

function drawLoad(node, { load, percent }) {
  const width = `scaleX(${Math.min(Math.max(load, 0), 1).toFixed(3)})`;
  const bar = node.firstChild.firstChild;
  if (bar.shown !== width) bar.style.transform = bar.shown = width;
  putText(node.lastChild, percent);
}

function makeState(className = "state") {
  return make("span", className, make("span", "glyph"), make("span", "word"));
}

function drawState(node, { glyph, word, state }) {
  putText(node.firstChild, glyph);
  putText(node.lastChild, word ?? state);
}

function makeFigure(name, label) {
  return make("span", `figure ${name}`, make("span", "value"), make("span", "label", label));
}

const FIGURES = [["running", "running"], ["queued", "queued"], ["slots", "slots"], ["jobs", "jobs/s"], ["failed", "failed/s"], ["mean", "mean"], ["age", "age"]];

function makeService({ key, name }) {
  const figures = FIGURES.map(([figure, label]) => makeFigure(figure, label));
  const line = make("div", "service", make("h2", "", name), makeState(), makeFigure("ready", "ready"), makeLoad(), ...figures);
  const jobs = line.querySelector(".jobs");
  jobs.classList.add("with-minute");
  jobs.prepend(makeMinute());
  const cells = make("div", "cells");
  cells.setAttribute("role", "listbox");
  cells.setAttribute("aria-multiselectable", "true");
  cells.setAttribute("aria-label", `instances of ${name}`);
  const block = make("section", "block", line, make("p", "start", "start one: ", make("code")), cells, make("p", "hidden quiet"));
  block.setAttribute("aria-label", name);
  block.dataset.service = key;
  return block;
}

function drawService(block, service, { layout, pins, now }) {
  const [line, start, cells, hidden] = block.children;
  put(line, "data-state", service.state);
  drawState(line.children[1], service);
  drawLoad(line.children[3], service);
  for (const name of ["ready", ...FIGURES.map(([figure]) => figure)]) {
    putText(part(part(line, name), "value"), String(service[name]));
  }
  putClass(part(line, "failed"), "is-bad", service.isFailing);
  drawMinute(part(line, "minute"), service.minute, now, MINUTE_MS);
  show(start, service.start !== null);
  putText(start.lastChild, service.start ?? "");
  show(hidden, service.hidden > 0);
  putText(hidden, `and ${service.hidden} more: the filter finds them`);
  if (cells.layout !== layout) {
    cells.replaceChildren();
    [cells.nodes, cells.layout] = [undefined, layout];
    putClass(cells, "cards", layout === "cards");
    putClass(cells, "squares", layout === "squares");
  }
  const [create, update] = layout === "cards" ? [makeCard, drawCard] : [makeSquare, drawSquare];
  patch(cells, service.instances, create, (node, cell) => {
    put(node, "data-state", cell.state);
    put(node, "data-old", cell.isOld ? "yes" : null);
    put(node, "aria-selected", pins.includes(cell.key) ? "true" : "false");
    update(node, cell, now);
  });
}

function makeOption(node, key) {
  node.setAttribute("role", "option");
  node.tabIndex = -1;
  node.dataset.key = key;
  return node;
}

function makeSquare({ key }) {
  return makeOption(make("div", "square"), key);
}

function drawSquare(node, cell) {
  // None is empty that has work, and none is full that has room.
  put(node, "data-level", String(cell.load >= 1 ? 10 : Math.min(Math.ceil(cell.load * 10), 9)));
  put(node, "aria-label", `${cell.name}, ${cell.state}${cell.isOld ? ", silent" : ""}, load ${cell.percent}`);
}

function makeCard({ key, service, name }) {
  return makeOption(make(
    "div", "card",
    make("div", "top", make("span", "name", make("i", "", `${service}/`), name), makeState()),
    makeLoad(),
    make("div", "middle", make("span", "rate"), makeMinute()),
    make("div", "foot", make("span", "work"), make("span", "mean")),
    make("div", "foot", make("span", "age"), make("span", "pid"), make("span", "mono address")),
  ), key);
}

function drawCard(node, cell, now) {
  drawState(part(node, "state"), cell);
  drawLoad(part(node, "load"), { load: cell.load, percent: `${cell.percent} of ${cell.slots}` });
  putText(part(node, "rate"), `${cell.jobs} jobs/s${cell.isFailing ? ` · ${cell.failed} failed/s` : ""}`);
  putText(part(node, "work"), `${cell.running} running · ${cell.queued} queued`);
  putText(part(node, "mean"), `mean ${cell.mean}`);
  putText(part(node, "age"), `age ${cell.age}`);
  putText(part(node, "pid"), `pid ${cell.pid}`);
  putText(part(node, "address"), cell.address);
  drawMinute(part(node, "minute"), cell.minute, now, MINUTE_MS);
}

function drawWorst({ worst }) {
  show($("worst"), worst.length > 0);
  patch($("worst-rows"), worst, ({ key }) => {
    const name = make("button", "link mono", key);
    name.dataset.key = key;
    const title = make("th", "", name);
    title.scope = "row";
    const cells = ["running", "queued", "slots", "jobs", "failed", "mean", "age"].map((figure) => make("td", figure));
    return make("tr", "", title, make("td", "state", make("span", "glyph"), make("span", "word")), make("td", "", makeLoad()), ...cells);
  }, (node, cell) => {
    put(node, "data-state", cell.state);
    drawState(part(node, "state"), cell);
    drawLoad(part(node, "load"), cell);
    for (const name of ["running", "queued", "slots", "jobs", "failed", "mean", "age"]) {
      putText(part(node, name), String(cell[name]));
    }
    putClass(part(node, "failed"), "is-bad", cell.isFailing);
  });
}

const TONES = { left: ["bad", "−"], stuck: ["bad", "✗"], failing: ["bad", "✗"], draining: ["warn", "◐"], full: ["warn", "■"], ready: ["ok", "●"], drained: ["", "−"], again: ["ok", "+"], came: ["ok", "+"] };

function drawEvents(events) {
  show($("events-hint"), events.length === 0);
  patch($("events"), events.map((event) => ({ ...event, key: event.number })), ({ at, text, change }) => {
    const [tone, glyph] = TONES[change] ?? ["", ""];
    const mark = make("span", "glyph", glyph);
    mark.setAttribute("aria-hidden", "true");
    const line = make("li", "", make("time", "", at), mark, make("span", "", text));
    line.dataset.tone = tone;
    return line;
  }, () => {});
}

/** The instances that somebody looks at: their cards at the side, the one that is pointed at first. */
export function drawDetails(details, now) {
  show($("detail-hint"), details.length === 0);
  patch($("detail"), details, makeDetail, (node, detail) => {
    putClass(node, "is-gone", detail.gone !== null);
    put(node, "data-state", detail.gone === null ? detail.state : "ended");
    drawState(part(node, "state"), detail.gone === null ? detail : { glyph: "○", word: detail.gone });
    show(part(node, "close"), detail.isPinned);
    show(part(node, "why"), detail.why !== null && detail.gone === null);
    putText(part(node, "why"), detail.why ?? "");
    drawLoad(part(node, "load"), detail);
    drawMinute(part(node, "minute"), detail.minute, now, MINUTE_MS);
    putText(part(node, "rate"), `${detail.jobs} jobs/s`);
    const facts = [...detail.facts, ["mean", detail.mean], ["age", detail.age], ["pid", String(detail.pid)], ["address", detail.address]];
    patch(part(node, "facts"), facts.map(([key, value]) => ({ key, value })).flatMap(({ key, value }) => [{ key, value: null }, { key: `${key} `, value }]),
      ({ key, value }) => value === null ? make("dt", "", key) : make("dd", key === "address " ? "mono" : ""),
      (fact, { value }) => { if (value !== null) putText(fact, value); });
    patch(part(node, "commands"), detail.commands.map((key) => ({ key })), makeCommand, () => {});
  });
}

function makeDetail({ key }) {
  const close = make("button", "close", "×");
  close.dataset.close = key;
  close.setAttribute("aria-label", `close ${key}`);
  const node = make(
    "article", "pinned",
    make("div", "top", make("span", "name mono", key), makeState(), close),
    make("p", "why"),
    makeLoad(),
    make("div", "with-minute", makeMinute(), make("span", "rate")),
    make("dl", "facts"),
    make("div", "commands"),
  );
  node.setAttribute("aria-label", key);
  node.dataset.detail = key;
  return node;
}

function makeCommand({ key }) {
  const node = make("div", "command", make("code", "", key));
  // There is no clipboard for pages from elsewhere without TLS; the text can be selected all the same.
  if (navigator.clipboard !== undefined) {
    const copy = make("button", "", "copy");
    copy.dataset.copy = key;
    copy.setAttribute("aria-label", `copy ${key}`);
    node.append(copy);
  }
  return node;
}
