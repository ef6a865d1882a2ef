// The words and figures of the page: those of `svcmap top` and `svcmap status`. Pure.

/** What would turn text around, or is not seen, is shown as what it is. */
const UNSEEN = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** Text from elsewhere as one line. */
export function printable(text) {
  const escaped = (char) => `\\u{${char.codePointAt(0).toString(16)}}`;
  return String(text ?? "").trimEnd().replace(UNSEEN, escaped);
}

/** `1 service`, `4 services`. */
export function count(number, noun) {
  return number === 1 ? `1 ${noun}` : `${number} ${noun}s`;
}

/** A time in its best unit, with two or three digits: `380us`, `38ms`, `1.2s`, `41s`, `5m`, `3h`. */
export function time(ms) {
  if (ms === 0) return "0s";
  if (ms < 0.9995) return `${(ms * 1e3).toFixed(0)}us`;
  if (ms < 999.5) return `${ms.toFixed(0)}ms`;
  if (ms < 9_950) return `${(ms / 1e3).toFixed(1).replace(/\.0$/, "")}s`;
  if (ms < 119_500) return `${(ms / 1e3).toFixed(0)}s`;
  if (ms < 7_170_000) return `${(ms / 6e4).toFixed(0)}m`;
  return `${(ms / 3.6e6).toFixed(0)}h`;
}

/** An age: nobody needs it to the millisecond. */
export function age(ms) {
  return ms < 10_000 ? `${(ms / 1e3).toFixed(1)}s` : time(ms);
}

/** A time that goes on, in whole seconds. */
export function ago(ms) {
  return time(Math.floor(Math.max(ms, 0) / 1000) * 1000);
}

/** A figure that changes while it is looked at: `0`, `0.25`, `4.1`, `310`, `1.1k`, `9.9M`. */
export function compact(value) {
  if (value === 0) return "0";
  if (value < 0.995) return value.toFixed(2);
  if (value < 9.95) return value.toFixed(1);
  if (value < 999.5) return value.toFixed(0);
  if (value < 99_950) return `${(value / 1e3).toFixed(1)}k`;
  if (value < 999_500) return `${(value / 1e3).toFixed(0)}k`;
  if (value < 99.95e6) return `${(value / 1e6).toFixed(1)}M`;
  return `${(value / 1e6).toFixed(0)}M`;
}

/** So many in a second; unknown until it was seen for long enough. */
export function perSecond(rate) {
  return rate === null ? "-" : compact(rate);
}

/** Never 100 % while there is room, never 0 % while there is work. */
export function percent(load) {
  const exact = load * 100;
  if (exact > 0 && exact < 1) return "1%";
  if (exact > 99 && exact < 100) return "99%";
  return `${Math.round(exact)}%`;
}

/** The time of day in UTC, as the log has it: `03:12:41`. */
export function clock(unixMs) {
  return new Date(unixMs).toISOString().slice(11, 19);
}

/** What goes before the word of a state, so that colour is not all there is. */
export const GLYPHS = { stuck: "✗", failing: "✗", draining: "◐", full: "■", ready: "●" };

/** How an instance is that takes nothing, or should not. */
export function whyNotReady(row) {
  if (row.state === "stuck") {
    const finished = row.since_finish_ms === null
      ? "has ever finished"
      : `finished for ${time(row.since_finish_ms)}`;
    return `stuck: ${row.running} running, no handler ${finished}`;
  }
  if (row.state === "failing") return `failing: ${printable(row.error)}`;
  return `${row.state}, ${count(row.running + row.queued, "job")} left`;
}

/** Whether a new job finds no room anywhere, though somebody serves. */
export function isFull(service) {
  return service.full > 0 && service.full === service.ready;
}

/** How a service is: a state of its instances, or what there is to say of them together. */
export function standing(service) {
  if (service.instances === 0) return { state: "ended", glyph: "○", word: "no instance" };
  if (isFull(service)) return { state: "full", glyph: GLYPHS.full, word: "full" };
  if (service.ready === 0) return { state: "failing", glyph: GLYPHS.failing, word: "none ready" };
  if (service.ready < service.instances) {
    const missing = service.instances - service.ready;
    return { state: "draining", glyph: GLYPHS.draining, word: `${missing} not ready` };
  }
  return { state: "ready", glyph: GLYPHS.ready, word: "ready" };
}

/** What to say of mappers and services, then of those who are not ready: each in one line. */
export function warnings(report) {
  const notReady = report.instances.filter((row) => row.state !== "ready" && row.state !== "full");
  return [
    ...report.mappers.filter((mapper) => mapper.warming).map(warmingWarning),
    ...report.mappers.map(refusedWarning),
    ...report.services.flatMap((row) => [serviceWarning(row), failingWarning(row)]),
    ...notReady.map((row) => `${row.service}/${row.instance} is ${whyNotReady(row)}`),
  ].filter((warning) => warning !== null).map(printable);
}

function warmingWarning({ endpoint }) {
  return `the mapper ${endpoint} has just started: others may still register`;
}

function refusedWarning({ endpoint, refused }) {
  const { registrations = 0, messages = 0 } = refused ?? {};
  if (registrations + messages === 0) return null;
  return `the mapper ${endpoint} has refused ${registrations} registrations and ${messages} bad ` +
    "messages: its log says why";
}

/** What has found no room, if anything has not. */
function waiting({ waiting: jobs = 0, waiting_senders: senders = 0 }) {
  return jobs > 0 ? `${jobs} wait at ${count(senders, "sender")}` : null;
}

function serviceWarning(row) {
  const { service, running, queued, promised, slots } = row;
  const left = waiting(row);
  if (isFull(row)) {
    const taken = `${running + queued + promised} of ${slots} slots are taken`;
    return `${service} is full: ${taken}, ${left ?? "new jobs wait or are refused"}`;
  }
  if (row.instances === 0) {
    return left === null
      ? `${service} has no instance left`
      : `${service} has no instance, and of its jobs ${left}`;
  }
  if (row.ready === 0) {
    return left === null
      ? `${service} takes no jobs: no instance is ready`
      : `${service} takes no jobs, no instance is ready: ${left}`;
  }
  return left === null ? null : `of the jobs of ${service} ${left}: svcmap why ${service}`;
}

/** Jobs fail, and who takes them goes on, as nobody does better. */
function failingWarning({ service, ready, failing = 0 }) {
  if (failing === 0) return null;
  const some = failing === ready ? `each of the ${ready}` : `${failing} of the ${ready}`;
  const whose = ready === 1 ? "the only instance that takes them" : `${some} instances that take them`;
  return `of the last jobs of ${service} most failed at ${whose}`;
}

/** Where the mapper listens that a command asks by itself. */
const MAPPER_DEFAULT = "tcp://127.0.0.1:5555";

/** A command that a terminal on the mapper's machine takes as it is. */
export function command(words, mapper) {
  const isElsewhere = mapper !== MAPPER_DEFAULT && /^tcp:\/\/(127\.|\[::1\])/.test(mapper);
  return `svcmap ${words}${isElsewhere ? ` --mapper ${mapper}` : ""}`;
}
