// What is known from several moments: rates, the minute behind, and what happened. Pure.

import { count, printable, whyNotReady } from "./text.js";

/** A rate is over at least so long: over less, it says when reports came and not what was done. */
const WINDOW_MIN_MS = 500;

/** How far a sparkline goes back. */
export const MINUTE_MS = 60_000;

/** The points of a minute are at most so many, however often somebody looks. */
const POINTS_MAX = 90;

/** A busy service is full again and again: that is told once in so long. */
const FULL_AGAIN_MS = 60_000;

/** What an instance is known by. */
export function keyOf(row) {
  return `${row.service}/${row.instance}`;
}

/** Jobs in a second, of each instance: from its counters in two reports of one life. */
export class Rates {
  #known = new Map();

  update(report, now) {
    const before = this.#known;
    this.#known = new Map();
    for (const row of report.instances) {
      this.#known.set(keyOf(row), next(before.get(keyOf(row)), row, now));
    }
  }

  /** `null` until it was seen for long enough. */
  of(row) {
    return this.#known.get(keyOf(row))?.rate ?? null;
  }

  /** The sum over those that have one. */
  sum(rows) {
    const known = rows.map((row) => this.of(row)).filter((rate) => rate !== null);
    if (known.length === 0) return null;
    const sum = (figure) => known.reduce((all, rate) => all + rate[figure], 0);
    return { done: sum("done"), failed: sum("failed"), rejected: sum("rejected") };
  }
}

function next(last, row, now) {
  const { incarnation, done, failed, rejected } = row;
  const counted = { incarnation, done, failed, rejected, saidAt: now - row.age_ms, rate: null };
  // Another life counts from 0.
  if (last === undefined || last.incarnation !== incarnation) return counted;
  const elapsedMs = counted.saidAt - last.saidAt;
  if (elapsedMs < WINDOW_MIN_MS) return last;
  // A counter that has shrunk is a lie, and no rate is below 0.
  const rate = (figure) => Math.max(counted[figure] - last[figure], 0) / (elapsedMs / 1000);
  counted.rate = { done: rate("done"), failed: rate("failed"), rejected: rate("rejected") };
  return counted;
}

/** All jobs that ended in a second, whichever way; `null` where that is not known. */
export function ended(rate) {
  return rate === null ? null : rate.done + rate.failed;
}

/** The last minute of some figures, each under its name. Who is named no more is forgotten. */
export class Minutes {
  #points = new Map();

  update(now, figures) {
    const before = this.#points;
    this.#points = new Map();
    for (const [name, value] of figures) {
      const points = before.get(name) ?? [];
      if (value !== null) points.push({ at: now, value });
      while (points.length > POINTS_MAX || (points.length > 0 && points[0].at < now - MINUTE_MS)) {
        points.shift();
      }
      this.#points.set(name, points);
    }
  }

  of(name) {
    return this.#points.get(name) ?? [];
  }
}

/** What can happen to an instance, what matters most first. */
const CHANGES = ["left", "stuck", "failing", "draining", "full", "ready", "drained", "again", "came"];

/** What happens between two reports: who came, who left, and who is no longer as before. */
export class Watch {
  #seen = null;
  #fullAt = new Map();

  /** Says what happened, what matters most first. The same of several instances of a service is one line. */
  update(report, now) {
    const alike = new Map();
    for (const { row, change } of this.#changes(report)) {
      const name = `${CHANGES.indexOf(change)} ${row.service}`;
      alike.set(name, [...(alike.get(name) ?? []), { row, change }]);
    }
    for (const [service, at] of this.#fullAt) {
      if (now - at >= FULL_AGAIN_MS) this.#fullAt.delete(service);
    }
    const isNews = ([{ row, change }]) => change !== "full" || !this.#fullAt.has(row.service);
    const news = [...alike].sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([, all]) => all).filter(isNews);
    for (const [{ row, change }] of news) {
      if (change === "full") this.#fullAt.set(row.service, now);
    }
    return news.map(told);
  }

  #changes(report) {
    const before = this.#seen;
    this.#seen = new Map(report.instances.map((row) => [keyOf(row), row]));
    // At first nothing has happened yet.
    if (before === null) return [];
    const changes = [];
    for (const row of report.instances) {
      const then = before.get(keyOf(row));
      const change = changed(then, row);
      if (change !== null) changes.push({ row, change });
      before.delete(keyOf(row));
    }
    // A mapper that has just started does not know everybody yet: nobody has left for that.
    const knowsAll = report.mappers.some((mapper) => !mapper.warming);
    for (const [key, row] of before) {
      if (!knowsAll) this.#seen.set(key, row);
      else changes.push({ row, change: row.state === "draining" ? "drained" : "left" });
    }
    return changes;
  }
}

function changed(then, now) {
  if (then === undefined) return "came";
  if (then.incarnation !== now.incarnation) return "again";
  const isEased = then.state === "full" && now.state === "ready";
  return then.state === now.state || isEased ? null : now.state;
}

function told(all) {
  const [{ row, change }] = all;
  const isOne = all.length === 1;
  const who = isOne ? keyOf(row) : `${count(all.length, "instance")} of ${row.service}`;
  return { text: printable(`${who} ${what(change, row, isOne)}`), change };
}

function what(change, row, isOne) {
  const be = isOne ? "is" : "are";
  switch (change) {
    case "left": return "left";
    case "drained": return "left, after draining";
    case "again": return "came again, as a new process";
    case "came": return "came";
    case "ready": return `${be} ready again`;
    case "full": return `${be} full`;
    default: return `${be} ${isOne ? whyNotReady(row) : change}`;
  }
}
