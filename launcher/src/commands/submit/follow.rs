//! What is shown of how far jobs are that run (`--follow`): below the bar on a terminal, else lines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use svcmap_proto::time::Timestamp;

use crate::text::printable_line;

/// Time between two looks where there is no terminal: a line on a job comes no sooner after another.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lines of one look, and those below the bar: as many as can be read.
const LINES_MAX: usize = 10;
const BELOW_MAX: usize = 5;

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The number of the job.
    pub number: u64,
    /// What its input is called.
    pub name: String,
    /// In the words of its handler.
    pub text: String,
}

impl Report {
    fn line(&self) -> String {
        format!("{}: {}", self.name, printable_line(&self.text))
    }
}

/// What was shown where there is no terminal, and when.
#[derive(Debug, Default)]
pub struct Follow {
    /// Not before then.
    look_at: Timestamp,
    /// Of each job that runs.
    shown: BTreeMap<u64, (Timestamp, String)>,
}

impl Follow {
    /// The lines to print now, of all jobs that have said something: of those with news the ones that
    /// have waited longest for a line.
    pub fn lines(&mut self, now: Timestamp, mut reports: Vec<Report>) -> Vec<String> {
        if now < self.look_at {
            return Vec::new();
        }
        let running: BTreeSet<_> = reports.iter().map(|report| report.number).collect();
        self.shown.retain(|number, _| running.contains(number));
        let shown = |report: &Report| self.shown.get(&report.number);
        reports.retain(|report| shown(report).is_none_or(|(_, text)| *text != report.text));
        reports.sort_by_key(|report| shown(report).map(|(at, _)| *at));
        reports.truncate(LINES_MAX);
        reports.sort_by_key(|report| report.number);
        if !reports.is_empty() {
            self.look_at = now + INTERVAL;
        }
        let lines = reports.iter().map(Report::line).collect();
        self.shown.extend(reports.into_iter().map(|report| (report.number, (now, report.text))));
        lines
    }
}

/// The lines below the bar, on a terminal of so many columns.
pub fn below(reports: &[Report], columns: usize) -> Vec<String> {
    let cut = |report: &Report| report.line().chars().take(columns.saturating_sub(1)).collect();
    let mut lines: Vec<String> = reports.iter().take(BELOW_MAX).map(cut).collect();
    let more = reports.len() - lines.len();
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1000)
    }

    fn report(number: u64, text: &str) -> Report {
        Report { number, name: format!("{number}.txt"), text: text.to_owned() }
    }

    #[test]
    fn a_job_gets_a_line_a_second_and_the_newest() {
        let mut follow = Follow::default();
        let mut lines = |ms, text| follow.lines(at(ms), vec![report(7, text)]);
        assert_eq!(lines(0, "10 %"), ["7.txt: 10 %"]);
        assert!(lines(400, "20 %").is_empty());
        assert!(lines(999, "30 %").is_empty());
        assert_eq!(lines(1000, "40\u{1b} %\n"), ["7.txt: 40\\u{1b} %"]);
        // What is no news is shown once, and news after that at once.
        assert!(lines(2000, "40\u{1b} %\n").is_empty());
        assert_eq!(lines(2200, "50 %"), ["7.txt: 50 %"]);
    }

    #[test]
    fn of_many_jobs_each_gets_its_turn() {
        let mut follow = Follow::default();
        let mut seen: Vec<u64> = Vec::new();
        for second in 0..3 {
            let all = (1..=25).map(|number| report(number, &second.to_string())).collect();
            let lines = follow.lines(at(second * 1000), all);
            assert!(lines.len() <= LINES_MAX);
            seen.extend(
                lines.iter().filter_map(|line| line.split('.').next()?.parse::<u64>().ok()),
            );
        }
        // Those that had none yet before any gets a second one.
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (1..=25).collect::<Vec<u64>>());
        assert_eq!(follow.lines(at(3000), vec![report(1, "3")]).len(), 1);
        assert_eq!(follow.shown.len(), 1, "those that have ended are forgotten");
    }

    #[test]
    fn below_the_bar_the_first_few_are_shown() {
        let all: Vec<_> = (1..=7).map(|number| report(number, "a long text")).collect();
        assert_eq!(below(&all[..1], 9), ["1.txt: a"]);
        assert_eq!(below(&all, 80)[4..], ["5.txt: a long text", "… and 2 more"]);
        assert!(below(&[], 80).is_empty());
    }
}
