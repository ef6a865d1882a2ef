//! What must not be in a history: a promise that was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use svcmap_proto::time::Timestamp;

use super::history::{Disturbances, Event, Line, Spec, Told};

/// How much later than its deadline an outcome may come: a tick, and a busy machine.
const TICK: Duration = Duration::from_secs(1);

/// How much earlier than its deadline it may be over: on the wire that has whole milliseconds.
const EARLY: Duration = Duration::from_millis(1);

/// How much later than promised a worker may take a dead sender for dead.
const LATE: Duration = Duration::from_secs(1);

/// How far around a job its story goes.
const AROUND: Duration = Duration::from_secs(5);

/// What the mapper dictated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub beat: Duration,
    /// Silence that means death.
    pub expiry: Duration,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// To which job.
    pub job: String,
    /// Which.
    pub broken: Broken,
}

/// What is promised and was not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// Two outcomes, or settled twice.
    OutcomeTwice,
    /// Its sender lived, and it has none.
    NoOutcome,
    /// So long after its deadline.
    OutcomeLate(Duration),
    /// It was refused and ran.
    RefusedAndRan,
    /// It must not run twice and was started so often.
    RanTwice(usize),
    /// No worker that had it was disturbed, and its time was not over.
    UnknownUnexplained(String),
    /// For a reason that cannot be.
    RefusedUnexplained(String),
    /// Nobody whom it names has finished it before.
    DoneAndNotRun,
    /// It has the result of another job, or one that no worker gives.
    Mistaken,
    /// It was started so long after its sender had ended.
    ForNobody(Duration),
    /// It ran, and nobody has submitted it.
    FromNowhere,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.job)?;
        match &self.broken {
            Broken::OutcomeTwice => f.write_str("it has two outcomes"),
            Broken::NoOutcome => f.write_str("its sender lived, and it has no outcome"),
            Broken::OutcomeLate(late) => write!(f, "its outcome came {late:?} after its deadline"),
            Broken::RefusedAndRan => f.write_str("it was refused, and it ran"),
            Broken::RanTwice(often) => {
                write!(f, "it must not run twice, and was started {often} times")
            }
            Broken::UnknownUnexplained(cause) => {
                write!(f, "unknown ({cause}), but nothing happened to a worker that had it")
            }
            Broken::RefusedUnexplained(reason) => write!(f, "refused ({reason}), which cannot be"),
            Broken::DoneAndNotRun => f.write_str("done, but nobody had finished it"),
            Broken::Mistaken => f.write_str("it has an outcome that is not its own"),
            Broken::ForNobody(late) => write!(f, "started {late:?} after its sender had ended"),
            Broken::FromNowhere => f.write_str("it ran, and nobody has submitted it"),
        }
    }
}

/// All that is known of one job.
#[derive(Default)]
struct Job<'a> {
    submitted: Option<(&'a Line, &'a Spec)>,
    is_cancelled: bool,
    sent: Vec<(Timestamp, &'a str)>,
    settled: usize,
    outcomes: Vec<(Timestamp, &'a Told)>,
    starts: Vec<(Timestamp, &'a str)>,
    /// Where it was finished, and when.
    finished: Vec<(Timestamp, &'a str)>,
}

/// How a life of a sender ended.
#[derive(Clone, Copy)]
struct End {
    at: Timestamp,
    is_killed: bool,
}

struct Checker<'a> {
    timing: Timing,
    disturbances: Disturbances,
    jobs: BTreeMap<&'a str, Job<'a>>,
    ends: BTreeMap<(&'a str, u64), End>,
    asked: BTreeSet<(&'a str, u64)>,
    found: Vec<Violation>,
}

/// Looks for broken promises in a history that is over, with its lines in the order of time.
pub fn violations(lines: &[Line], timing: Timing) -> Vec<Violation> {
    let mut checker = Checker {
        timing,
        disturbances: Disturbances::of(lines),
        jobs: BTreeMap::new(),
        ends: BTreeMap::new(),
        asked: BTreeSet::new(),
        found: Vec::new(),
    };
    lines.iter().for_each(|line| checker.note(line));
    for (name, job) in std::mem::take(&mut checker.jobs) {
        checker.check(name, &job);
    }
    checker.found
}

impl<'a> Checker<'a> {
    fn note(&mut self, line: &'a Line) {
        let (at, who) = (line.at(), line.who.as_str());
        if let Some(job) = line.event.job() {
            let job = self.jobs.entry(job).or_default();
            match &line.event {
                Event::Submit { spec, .. } => job.submitted = Some((line, spec)),
                Event::Cancel { .. } => job.is_cancelled = true,
                Event::Sent { to, .. } => job.sent.push((at, to)),
                Event::Settled { .. } => job.settled += 1,
                Event::Outcome { told, .. } => job.outcomes.push((at, told)),
                Event::Start { .. } => job.starts.push((at, who)),
                Event::End { is_done: true, .. } => job.finished.push((at, who)),
                _ => {}
            }
            return;
        }
        let life = (who, line.life);
        match line.event {
            // The first of two counts: a process that is killed also ends.
            Event::Killed => _ = self.ends.entry(life).or_insert(End { at, is_killed: true }),
            Event::Ended => _ = self.ends.entry(life).or_insert(End { at, is_killed: false }),
            Event::Asked => _ = self.asked.insert(life),
            _ => {}
        }
    }

    fn check(&mut self, name: &str, job: &Job<'_>) {
        let mut broken = Vec::new();
        let Some((line, spec)) = job.submitted else {
            return self
                .found
                .push(Violation { job: name.to_owned(), broken: Broken::FromNowhere });
        };
        let sender = (line.who.as_str(), line.life);
        if job.outcomes.len() > 1 || job.settled > 1 {
            broken.push(Broken::OutcomeTwice);
        }
        if !spec.idempotent && job.starts.len() > 1 {
            broken.push(Broken::RanTwice(job.starts.len()));
        }
        broken.extend(self.is_late(job, line, spec));
        broken.extend(self.for_nobody(job, spec, sender));
        for (at, told) in &job.outcomes {
            broken.extend(self.is_wrong(job, *at, told, line, spec));
        }
        let violation = |broken| Violation { job: name.to_owned(), broken };
        self.found.extend(broken.into_iter().map(violation));
    }

    /// No outcome, or one after its deadline. Whoever was killed by then owes none.
    fn is_late(&self, job: &Job<'_>, submit: &Line, spec: &Spec) -> Option<Broken> {
        let sender = (submit.who.as_str(), submit.life);
        let end = self.ends.get(&sender);
        let killed_at = end.filter(|end| end.is_killed).map(|end| end.at);
        let due = spec.deadline_us.map(|us| submit.at() + Duration::from_micros(us));
        let limit = due.map(|due| self.disturbances.over(sender.0, due, TICK));
        let Some((at, _)) = job.outcomes.first() else {
            let is_owed = killed_at.is_none_or(|killed| limit.is_some_and(|limit| killed > limit));
            return is_owed.then_some(Broken::NoOutcome);
        };
        let (due, limit) = (due?, limit?);
        (*at > limit).then(|| Broken::OutcomeLate(at.since(due)))
    }

    /// Started when its sender had ended so long ago that the worker must have known.
    fn for_nobody(&self, job: &Job<'_>, spec: &Spec, sender: (&str, u64)) -> Option<Broken> {
        let end = self.ends.get(&sender).filter(|_| !spec.detached)?;
        let known_within = self.timing.expiry + self.timing.beat + LATE;
        job.starts.iter().find_map(|(at, worker)| {
            let known_at = self.disturbances.over(worker, end.at, known_within);
            (*at > known_at).then(|| Broken::ForNobody(at.since(end.at)))
        })
    }

    fn is_wrong(
        &self,
        job: &Job<'_>,
        at: Timestamp,
        told: &Told,
        submit: &Line,
        spec: &Spec,
    ) -> Option<Broken> {
        let is_over =
            spec.deadline_us.is_some_and(|us| (at + EARLY).as_micros() >= submit.at_us + us);
        let is_asked = self.asked.contains(&(submit.who.as_str(), submit.life));
        match told {
            Told::Done { by } => {
                let is_finished = job.finished.iter().any(|(end, who)| who == by && *end <= at);
                (!is_finished).then_some(Broken::DoneAndNotRun)
            }
            Told::Failed { .. } => None,
            Told::Refused { .. } if !job.starts.is_empty() => Some(Broken::RefusedAndRan),
            Told::Refused { reason } => {
                let can_be = match reason.as_str() {
                    "Cancelled" => job.is_cancelled || is_asked,
                    "Expired" => is_over,
                    "NoCredit" => is_over || spec.hold_us.is_some(),
                    "NotHere" => spec.instance.is_some(),
                    // Then nobody was there, or no longer.
                    "Draining" | "Full" | "NoMapper" | "Unreachable" => true,
                    // The service is always served, by programs that are there.
                    _ => false,
                };
                (!can_be).then(|| Broken::RefusedUnexplained(reason.clone()))
            }
            Told::Unknown { cause } => {
                let can_be = match cause.as_str() {
                    "Deadline" => is_over && !job.sent.is_empty(),
                    "Stopped" => is_asked,
                    _ => job.sent.iter().any(|sent| self.is_disturbed(*sent, at, &submit.who)),
                };
                (!can_be).then(|| Broken::UnknownUnexplained(cause.clone()))
            }
            Told::Mistaken { .. } | Told::Accepted => Some(Broken::Mistaken),
        }
    }

    /// Whether something happened to a worker while it had a job, or so shortly before that its
    /// sender could not know.
    fn is_disturbed(&self, sent: (Timestamp, &str), until: Timestamp, sender: &str) -> bool {
        let (sent_at, worker) = sent;
        let unknown_for = self.timing.expiry + self.timing.beat;
        // Who stood still learns of nothing.
        let pauses = self.disturbances.by(sender).filter(|span| span.is_pause);
        let stood_still =
            pauses.filter(|span| span.from <= sent_at && span.to + unknown_for >= sent_at);
        let known_at = stood_still.fold(sent_at, |known, span| known.min(span.from));
        let from = known_at.before(unknown_for);
        self.disturbances.by(worker).any(|span| span.from <= until && span.to >= from)
    }
}

/// What happened to a job, and meanwhile to all that had to do with it.
pub fn story(lines: &[Line], job: &str) -> String {
    let own = || lines.iter().filter(|line| line.event.job() == Some(job));
    let (Some(first), Some(last)) = (own().next(), own().next_back()) else { return String::new() };
    let (from, to) = (first.at().before(AROUND), last.at() + AROUND);
    let mut involved: BTreeSet<&str> = own().map(|line| line.who.as_str()).collect();
    involved.extend(own().filter_map(|line| match &line.event {
        Event::Sent { to, .. } => Some(to.as_str()),
        _ => None,
    }));
    let mut text = String::new();
    for line in lines.iter().filter(|line| line.at() >= from && line.at() <= to) {
        let is_of_one = involved.contains(line.who.as_str()) || line.who.starts_with('m');
        let happened = line.event.job().is_none() && (is_of_one || line.who == super::EVERYBODY);
        if happened || line.event.job() == Some(job) {
            let ms = (line.at_us as f64 - first.at_us as f64) / 1000.0;
            // A String takes everything.
            let _ = writeln!(text, "  {ms:>10.1} ms  {}.{}  {:?}", line.who, line.life, line.event);
        }
    }
    text
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
