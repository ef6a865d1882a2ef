// What the page shows: from reports, silence and what somebody has chosen, each with its time. Pure.

import { Minutes, Rates, Watch, ended, keyOf } from "./history.js";
import * as text from "./text.js";

/** So many instances have a card each; more are squares. */
const CARDS_MAX = 24;

/** More squares tell nobody anything; a filter finds the others. */
const SQUARES_MAX = 4096;

/** The table has so many rows. */
const WORST_MAX = 20;

/** So many warnings are told; the others are counted. */
const WARNINGS_MAX = 4;

/** So many events are kept. */
const EVENTS_MAX = 100;

/** So many cards stay open; with one more, the oldest closes. */
const PINS_MAX = 6;

/** An instance that was not heard of for so long is marked; in the JSON dialect, reports are seldom. */
const OLD_MS = { native: 2_500, json: 30_000 };

/** Of how much a row is worse than the one above before they change places. */
const WORSE = 0.25;

/** What was bad a moment ago is still near the top: so much of it is left at the next report. */
const CALMING = 0.85;

export class Model {
  #report = null;
  #cameAt = 0;
  #silence = null;
  #silentAt = null;
  #rates = new Rates();
  #minutes = new Minutes();
  #watch = new Watch();
  #events = [];
  #numberOfEvents = 0;
  #badness = new Map();
  #services = [];
  #worst = [];
  #filter = "";
  #isFrozen = false;
  /** The last row of each pinned instance, and when it left, if it has. */
  #pins = new Map();

  /** The mapper has told what it knows. */
  handleReport(now, unixMs, report) {
    const was = this.#report?.mappers[0];
    this.#hear(unixMs);
    if (was !== undefined && !was.warming && report.mappers[0]?.warming) {
      this.#tell(unixMs, { text: "the mapper has started again", change: "again" });
    }
    const events = this.#watch.update(report, now);
    for (const event of events.reverse()) this.#tell(unixMs, event);
    this.#rates.update(report, now);
    this.#report = report;
    this.#cameAt = now;
    const all = ended(this.#rates.sum(report.instances));
    const byService = Map.groupBy(report.instances, (row) => row.service);
    this.#minutes.update(now, [
      ["", all],
      ...[...byService].map(([name, rows]) => [name, ended(this.#rates.sum(rows))]),
      ...report.instances.map((row) => [keyOf(row), ended(this.#rates.of(row))]),
    ]);
    this.#followPins(now);
    this.#judge();
    this.#arrange();
  }

  /** The mapper has answered that all is as it has told. It makes a report once in a second. */
  handleUnchanged(now, unixMs) {
    this.#hear(unixMs);
    this.#cameAt = Math.max(this.#cameAt, now - 1000);
  }

  /** The mapper has not answered, for this reason. */
  handleSilence(now, unixMs, why) {
    if (this.#silentAt === null) {
      this.#silentAt = now;
      if (this.#report !== null) {
        this.#tell(unixMs, { text: "the mapper does not answer", change: "left" });
      }
    }
    this.#silence = text.printable(why);
  }

  #hear(unixMs) {
    if (this.#silentAt !== null && this.#report !== null) {
      this.#tell(unixMs, { text: "the mapper answers again", change: "ready" });
    }
    this.#silence = null;
    this.#silentAt = null;
  }

  #tell(unixMs, { text: what, change }) {
    this.#numberOfEvents += 1;
    const at = text.clock(unixMs);
    this.#events.unshift({ number: this.#numberOfEvents, at, text: what, change });
    this.#events.length = Math.min(this.#events.length, EVENTS_MAX);
  }

  /** Only what has this in its `service/instance`. */
  setFilter(filter) {
    this.#filter = filter;
    this.#arrange();
  }

  /** While somebody points at rows, or is among them, they stay where they are. */
  setFrozen(isFrozen) {
    this.#isFrozen = isFrozen;
  }

  /** Opens the card of an instance, or closes it. */
  turnPin(key) {
    if (this.#pins.delete(key)) return;
    const row = this.#find(key);
    if (row === undefined) return;
    this.#pins.set(key, { row, leftAt: null });
    if (this.#pins.size > PINS_MAX) this.#pins.delete(this.#pins.keys().next().value);
  }

  /** Closes the card that was opened last. Returns whether there was one. */
  unpinLast() {
    const last = [...this.#pins.keys()].at(-1);
    return last !== undefined && this.#pins.delete(last);
  }

  #followPins(now) {
    for (const [key, pin] of this.#pins) {
      const row = this.#find(key);
      if (row !== undefined) this.#pins.set(key, { row, leftAt: null });
      else pin.leftAt ??= now;
    }
  }

  #find(key) {
    return this.#report?.instances.find((row) => keyOf(row) === key);
  }

  #isWanted(name) {
    return name.toLowerCase().includes(this.#filter.toLowerCase());
  }

  /** How bad each of them is, or was a moment ago. */
  #judge() {
    const before = this.#badness;
    this.#badness = new Map();
    const judge = (name, bad) => {
      this.#badness.set(name, Math.max(bad, (before.get(name) ?? -1) * CALMING));
    };
    for (const row of this.#report.services) judge(row.service, badnessOfService(row));
    for (const row of this.#report.instances) judge(keyOf(row), badnessOfInstance(row));
  }

  /** Puts services and the worst instances in their order. */
  #arrange() {
    if (this.#report === null) return;
    const { services, instances } = this.#report;
    const arrange = this.#isFrozen ? inPlace : settled;
    const badness = (name) => this.#badness.get(name) ?? 0;
    this.#services = arrange(this.#services, services.map((row) => row.service), badness);
    const wanted = instances.map(keyOf).filter((key) => this.#isWanted(key));
    const candidates = wanted.length <= WORST_MAX || this.#isFrozen && this.#worst.length > 0
      ? wanted
      : wanted.sort((one, other) => badness(other) - badness(one)).slice(0, WORST_MAX);
    this.#worst = arrange(this.#worst, candidates, badness).slice(0, WORST_MAX);
  }

  /** All that is to be seen at this time. */
  scene(now) {
    const report = this.#report;
    if (report === null) {
      const silence = this.#silence;
      const silentMs = silence === null ? 0 : Math.max(now - this.#silentAt, 0);
      return { stage: silence === null ? "waiting" : "nobody", silence, silentMs };
    }
    const services = this.#shownServices();
    const shown = services.reduce((sum, service) => sum + service.instances.length, 0);
    const layout = shown <= CARDS_MAX ? "cards" : "squares";
    const isStale = this.#silence !== null;
    const ageMs = Math.max(now - this.#cameAt, 0);
    let left = SQUARES_MAX;
    for (const service of services) {
      service.hidden = Math.max(service.instances.length - left, 0);
      service.instances.length = Math.min(service.instances.length, left);
      left -= service.instances.length;
    }
    const endpoint = report.mappers[0]?.endpoint ?? "";
    return {
      stage: report.services.length === 0 ? "empty" : "shown",
      mapper: text.printable(endpoint),
      isStale,
      ageMs,
      silence: this.#silence,
      silentMs: isStale ? Math.max(now - this.#silentAt, 0) : 0,
      totals: this.#totals(),
      warnings: this.#warnings(),
      layout,
      services,
      filter: this.#filter,
      shown,
      listed: report.instances.length,
      isNothingServed: report.instances.length === 0,
      worst: layout === "squares" ? this.#worst.map((key) => this.#cell(this.#find(key))) : [],
      events: this.#events,
      pins: [...this.#pins.keys()],
      now: this.#cameAt,
    };
  }

  #totals() {
    const { services, instances } = this.#report;
    const rate = this.#rates.sum(instances);
    const sum = (figure) => services.reduce((all, row) => all + row[figure], 0);
    const waiting = instances.filter((row) => row.queued > 0).map((row) => row.oldest_queued_ms);
    return {
      jobs: text.perSecond(ended(rate)),
      minute: this.#minutes.of(""),
      failed: text.perSecond(rate && rate.failed),
      rejected: text.perSecond(rate && rate.rejected),
      isFailing: rate !== null && rate.failed > 0,
      isRejecting: rate !== null && rate.rejected > 0,
      running: sum("running"),
      queued: sum("queued"),
      oldest: waiting.length > 0 ? text.time(waiting.reduce((one, ms) => Math.max(one, ms))) : null,
      ready: sum("ready"),
      instances: instances.length,
      services: services.length,
    };
  }

  #warnings() {
    const all = text.warnings(this.#report);
    if (all.length <= WARNINGS_MAX) return all;
    const hidden = all.length - (WARNINGS_MAX - 1);
    return [...all.slice(0, WARNINGS_MAX - 1), `${hidden} more: svcmap status`];
  }

  #shownServices() {
    const rows = new Map(this.#report.services.map((row) => [row.service, row]));
    const byService = Map.groupBy(this.#report.instances, (row) => row.service);
    const shown = [];
    for (const name of this.#services) {
      const all = byService.get(name) ?? [];
      const wanted = all.filter((row) => this.#isWanted(keyOf(row)));
      if (wanted.length === 0 && !this.#isWanted(name)) continue;
      // Where somebody is on the map does not change as he gets better or worse.
      wanted.sort((one, other) => byName(one.instance, other.instance));
      shown.push(this.#service(rows.get(name), all, wanted));
    }
    return shown;
  }

  #service(row, all, wanted) {
    const rate = this.#rates.sum(all);
    const mean = meanMs(all);
    return {
      key: row.service,
      name: text.printable(row.service),
      ...text.standing(row),
      ready: `${row.ready}/${row.instances}`,
      load: row.load,
      percent: text.percent(row.load),
      running: row.running,
      queued: row.queued,
      slots: row.slots,
      jobs: text.perSecond(ended(rate)),
      minute: this.#minutes.of(row.service),
      failed: text.perSecond(rate && rate.failed),
      isFailing: rate !== null && rate.failed > 0,
      mean: mean === null ? "-" : text.time(mean),
      age: text.age(row.age_ms),
      start: row.instances === 0 ? text.command(`worker --service ${row.service} …`, this.#mapper()) : null,
      instances: wanted.map((one) => this.#cell(one)),
    };
  }

  /** An instance, as a card, a square or a row of the table tells it. */
  #cell(row) {
    const rate = this.#rates.of(row);
    const isKnown = row.dialect === "native" || row.done + row.failed > 0;
    return {
      key: keyOf(row),
      service: row.service,
      name: text.printable(row.instance),
      state: row.state,
      glyph: text.GLYPHS[row.state] ?? "?",
      isOld: row.age_ms > (OLD_MS[row.dialect] ?? OLD_MS.native),
      load: row.load,
      percent: text.percent(row.load),
      running: row.running,
      queued: row.queued,
      slots: row.slots,
      jobs: isKnown ? text.perSecond(ended(rate)) : "-",
      failed: isKnown ? text.perSecond(rate && rate.failed) : "-",
      isFailing: rate !== null && rate.failed > 0,
      minute: this.#minutes.of(keyOf(row)),
      mean: row.mean_service_ms === 0 && row.done === 0 ? "-" : text.time(row.mean_service_ms),
      age: text.age(row.age_ms),
      pid: row.pid,
      address: text.printable((row.endpoint ?? "-").replace(/^tcp:\/\//, "")),
    };
  }

  /** All of an instance, or of one that has left and whose card is open. */
  detail(key, now) {
    const pin = this.#pins.get(key);
    const row = this.#find(key) ?? pin?.row;
    if (row === undefined) return null;
    const isGone = this.#find(key) === undefined;
    const { service, instance } = row;
    const rate = this.#rates.of(row);
    const commands = [`why ${service}`, `status ${service}`];
    if (!isGone && row.state !== "draining") commands.push(`drain ${service}/${instance}`);
    return {
      ...this.#cell(row),
      isPinned: pin !== undefined,
      gone: isGone ? `left ${text.ago(now - (pin.leftAt ?? now))} ago` : null,
      why: row.state === "ready" || row.state === "full" ? null : text.printable(text.whyNotReady(row)),
      facts: facts(row, rate),
      commands: commands.map((words) => text.command(words, this.#mapper())),
    };
  }

  #mapper() {
    return this.#report.mappers[0]?.endpoint ?? "";
  }
}

function facts(row, rate) {
  const classes = row.queued_high + row.queued_low > 0
    ? ` (${row.queued_high} high, ${row.queued_low} low)` : "";
  const each = (total, figure) => rate === null ? `${total}` : `${total} · ${text.compact(rate[figure])}/s`;
  const oldest = row.queued > 0 ? `, oldest ${text.time(row.oldest_queued_ms)}` : "";
  const finished = row.since_finish_ms === null ? "-" : `${text.time(row.since_finish_ms)} ago`;
  return [
    ["running", `${row.running} of ${row.concurrency} at once`],
    ["queued", `${row.queued}${classes}${oldest}`],
    ["promised", `${row.promised}`],
    ["slots", `${row.slots}`],
    ["done", each(row.done, "done")],
    ["failed", each(row.failed, "failed")],
    ["rejected", each(row.rejected, "rejected")],
    ["last finish", finished],
  ];
}

/** Of all jobs that were done, as far as each instance's average tells. What fails teaches none. */
function meanMs(rows) {
  const known = rows.filter((row) => row.mean_service_ms > 0);
  const all = known.reduce((sum, row) => sum + row.done, 0);
  const sum = known.reduce((sum, row) => sum + row.mean_service_ms * row.done, 0);
  return all > 0 ? sum / all : null;
}

const COLLATOR = new Intl.Collator("en", { numeric: true });

/** `w-2` before `w-10`. */
function byName(one, other) {
  return COLLATOR.compare(one, other) || (one < other ? -1 : 1);
}

/** How much attention a service needs: as `svcmap status` has it, then by load. */
function badnessOfService(row) {
  if (row.instances === 0 && !row.waiting) return -1;
  if (text.isFull(row)) return 4;
  if (row.ready === 0) return 3;
  return row.ready < row.instances || row.failing > 0 ? 2 : row.load;
}

function badnessOfInstance(row) {
  return { stuck: 4, failing: 3, draining: 2 }[row.state] ?? row.load;
}

/** Those that are still there stay in place, and new ones come last. */
function inPlace(before, names) {
  const there = new Set(names);
  const stayed = before.filter((name) => there.has(name));
  const known = new Set(stayed);
  return [...stayed, ...names.filter((name) => !known.has(name))];
}

/** The worst first; but who is only a little worse than the one above stays below. */
function settled(before, names, badness) {
  const order = [];
  for (const name of inPlace(before, names)) {
    let place = order.length;
    while (place > 0 && badness(name) > badness(order[place - 1]) + WORSE) place -= 1;
    order.splice(place, 0, name);
  }
  return order;
}
