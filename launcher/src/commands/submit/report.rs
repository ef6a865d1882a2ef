//! What became of all jobs together: the exit code, the totals, the summary.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use svcmap_worker::{Outcome, Reason};

use super::record::{Ending, Record, Word, exit_of, is_nobody};
use crate::errors::Exit;
use crate::text::{printable_line, rate, time};

/// How much of an error tells it from others.
const KIND_CHARS: usize = 160;

/// All jobs together.
#[derive(Default)]
pub struct Report {
    /// For one JSON object at the end.
    records: Vec<(u64, Box<RawValue>)>,
    counts: BTreeMap<Word, u64>,
    /// What the joblog says of jobs that were not run again.
    before: BTreeMap<Word, u64>,
    /// Of those that are counted, how many ended because all of them were to end.
    interrupted: u64,
    nobody: u64,
    without_mapper: u64,
    /// What the jobs mean for the exit code.
    exits: BTreeSet<Exit>,
    longest: Option<(Duration, String)>,
}

impl Report {
    /// Counts a job, and keeps it if it is to be printed at the end.
    pub fn add(&mut self, record: &Record, keep: Option<Box<RawValue>>) {
        *self.counts.entry(record.word()).or_default() += 1;
        self.interrupted += u64::from(record.is_interrupted);
        if let Ending::Outcome(Outcome::Refused(refusal)) = &record.ending {
            self.nobody += u64::from(is_nobody(refusal.reason));
            self.without_mapper += u64::from(refusal.reason == Reason::NoMapper);
        }
        if !record.is_interrupted {
            self.exits.extend(exit(record));
        }
        let longest = self.longest.as_ref().map_or(Duration::ZERO, |(longest, _)| *longest);
        if let Some(ran) = record.ran().filter(|ran| *ran > longest) {
            self.longest = Some((ran, record.name.label(record.number)));
        }
        self.records.extend(keep.map(|json| (record.number, json)));
    }

    /// Counts a job that had ended so before, and was not run again.
    pub fn add_before(&mut self, word: Word) {
        *self.before.entry(word).or_default() += 1;
        if !matches!(word, Word::Done | Word::Accepted) {
            self.exits.insert(Exit::Failed);
        }
    }

    /// Jobs that were counted, with those that had ended before.
    pub fn len(&self) -> usize {
        let all = self.counts.values().chain(self.before.values()).sum::<u64>();
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    fn count(&self, word: Word) -> u64 {
        self.counts.get(&word).copied().unwrap_or(0)
    }

    /// Whether nobody knows of some whether they ran.
    pub fn has_unknown(&self) -> bool {
        self.count(Word::Unknown) > 0
    }

    /// Adds what counts beside the jobs.
    pub fn add_exit(&mut self, exit: Exit) {
        self.exits.insert(exit);
    }

    /// 0 if all are done; else the worst of what became of the others: 1, then 75, then 69.
    pub fn exit(&self) -> ExitCode {
        self.exits.last().map_or(ExitCode::SUCCESS, |worst| (*worst).into())
    }

    /// Whether the exit code is 0.
    pub fn is_content(&self) -> bool {
        self.exits.is_empty()
    }

    /// Whether every job was refused for want of any worker.
    pub fn found_nobody(&self) -> bool {
        self.nobody > 0 && !self.found_anybody()
    }

    /// Whether that was so as no mapper answered.
    pub fn found_no_mapper(&self) -> bool {
        self.found_nobody() && self.without_mapper == self.nobody
    }

    /// Whether any job got further than that.
    pub fn found_anybody(&self) -> bool {
        self.len() as u64 > self.nobody
    }

    /// What people should know of jobs that ended without a result and without an error.
    pub fn note(&self, detach: bool) -> Option<String> {
        let accepted = self.count(Word::Accepted);
        let words = match (detach, accepted) {
            (true, 1) => "job is with a worker, which reports no more",
            (true, _) => "jobs are with workers, which report no more",
            (false, 1) => "job was accepted by a worker that reports no more",
            (false, _) => "jobs were accepted by workers that report no more",
        };
        (accepted > 0).then(|| format!("{accepted} {words}"))
    }

    /// What people want to know at the end of a batch that took so long: `300 jobs in 12s (25/s): …`,
    /// the commonest errors, and how many were not `hidden`.
    pub fn summary(&self, took: Duration, commonest: &[(&str, u64)], hidden: u64) -> String {
        let jobs: u64 = self.counts.values().sum();
        if jobs == 0 {
            return self.before();
        }
        let noun = if jobs == 1 { "job" } else { "jobs" };
        let mut text = format!("{jobs} {noun} in {}", time(took));
        let done = self.count(Word::Done) + self.count(Word::Accepted);
        if done > 0 {
            text += &format!(" ({})", rate(done as f64 / took.as_secs_f64().max(1e-3)));
        }
        text += ":";
        let words = [
            (Word::Done, "done"),
            (Word::Accepted, "accepted"),
            (Word::Failed, "failed"),
            (Word::Refused, "refused"),
            (Word::Unknown, "unknown"),
            (Word::NotSent, "not sent"),
            (Word::NotKept, "not kept"),
        ];
        let parts = words.iter().filter(|(word, _)| *word == Word::Done || self.count(*word) > 0);
        let parts: Vec<_> =
            parts.map(|(word, shown)| format!("{} {shown}", self.count(*word))).collect();
        text += &format!(" {}", parts.join(", "));
        if self.interrupted > 0 {
            text += &format!(" ({} of them interrupted)", self.interrupted);
        }
        if let Some((longest, label)) = &self.longest {
            text += &format!("; the longest ran {}: {label}", time(*longest));
        }
        for (kind, count) in commonest {
            text += &format!("\n  {count} x {}", cut(&printable_line(kind)));
        }
        if hidden > 0 {
            text += &format!(
                "\n  {hidden} more were not shown: --joblog and --json-lines tell of each"
            );
        }
        match self.before() {
            before if before.is_empty() => text,
            before => format!("{text}\n{before}"),
        }
    }

    /// What is to be said of those that had ended before.
    fn before(&self) -> String {
        let count = |word| self.before.get(&word).copied().unwrap_or(0);
        let (failed, unknown) = (count(Word::Failed), count(Word::Unknown));
        let all: u64 = self.before.values().sum();
        let mut text = match all {
            0 => return String::new(),
            1 => "1 job had ended before".to_owned(),
            all => format!("{all} jobs had ended before"),
        };
        if failed > 0 {
            text += &format!(", of which {failed} failed");
        }
        if unknown > 0 {
            let and = if failed > 0 { " and" } else { ", of which" };
            text += &format!("{and} {unknown} may have run or not (unknown)");
        }
        if failed + unknown > 0 {
            text += ": --resume-failed runs them again";
        }
        text
    }

    /// One object with `outcomes[]`, in the order of the input, and `totals`.
    pub fn take_json(&mut self) -> String {
        self.records.sort_by_key(|(number, _)| *number);
        let records = std::mem::take(&mut self.records);
        let outcomes: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        let totals = json!({
            "done": self.count(Word::Done),
            "failed": self.count(Word::Failed),
            "refused": self.count(Word::Refused),
            "unknown": self.count(Word::Unknown),
            "accepted": self.count(Word::Accepted),
            "not_sent": self.count(Word::NotSent),
            "not_kept": self.count(Word::NotKept),
        });
        let outcomes: Vec<_> = outcomes.iter().map(|record| record.get()).collect();
        format!("{{\"outcomes\":[{}],\"totals\":{totals}}}\n", outcomes.join(","))
    }
}

/// Its beginning, if it is long.
fn cut(line: &str) -> String {
    match line.char_indices().nth(KIND_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// What a job means for the exit code, if it is not done.
fn exit(record: &Record) -> Option<Exit> {
    match &record.ending {
        Ending::Outcome(Outcome::Done(_) | Outcome::Accepted) => None,
        Ending::Outcome(Outcome::Refused(refusal)) => Some(exit_of(refusal.reason)),
        Ending::Outcome(Outcome::Failed(_) | Outcome::Unknown(_))
        | Ending::NotSent(_)
        | Ending::NotKept(_) => Some(Exit::Failed),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
