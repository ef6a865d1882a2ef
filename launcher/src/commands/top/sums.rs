//! The sums of a view, and the lines of them where there is no screen. Pure.

use svcmap_proto::status::Report;

use super::rates::{Rate, Rates, figure};
use crate::text::time_ms;

/// So many lines stand under one heading.
const LINES_MAX: usize = 25;

/// What all instances that are listed do together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub mappers: usize,
    pub answering: usize,
    pub instances: usize,
    pub ready: usize,
    pub running: u64,
    pub queued: u64,
    /// How long the job has waited that waits for longest; `None` if none waits.
    pub oldest_ms: Option<u32>,
    /// `None` at the first view.
    pub rate: Option<Rate>,
    pub done: u64,
    pub failed: u64,
    pub rejected: u64,
}

impl Sums {
    pub fn of(report: &Report, rates: &Rates) -> Self {
        let mut sums = Self {
            mappers: report.mappers.len(),
            answering: report.mappers.iter().filter(|mapper| mapper.is_complete()).count(),
            instances: report.instances.len(),
            rate: rates.sum(report.instances.iter()),
            ..Self::default()
        };
        for row in &report.services {
            sums.ready += row.ready;
            sums.running += row.running;
            sums.queued += row.queued;
            // Counters come from the wire: absurd ones must not overflow.
            sums.done = sums.done.saturating_add(row.done);
            sums.failed = sums.failed.saturating_add(row.failed);
            sums.rejected = sums.rejected.saturating_add(row.rejected);
        }
        let waiting = report.instances.iter().filter(|row| row.queued > 0);
        sums.oldest_ms = waiting.map(|row| row.oldest_queued_ms).max();
        sums
    }
}

const HEADING: [&str; 13] = [
    "TIME",
    "MAPPERS",
    "READY",
    "RUNNING",
    "QUEUED",
    "OLDEST",
    "DONE/s",
    "FAILED/s",
    "REJECTED/s",
    "DONE",
    "FAILED",
    "REJECTED",
    "",
];

/// Lines under headings, which come again and again.
#[derive(Debug, Default)]
pub(super) struct Lines {
    written: usize,
}

impl Lines {
    /// The next line, and a heading if it is due. Without sums nobody has answered.
    pub fn next(&mut self, clock: &str, mappers: usize, sums: Option<&Sums>) -> String {
        let is_due = self.written.is_multiple_of(LINES_MAX);
        self.written += 1;
        let heading = if is_due { line(HEADING.map(str::to_owned)) } else { String::new() };
        heading + &line(cells(clock, mappers, sums))
    }
}

fn cells(clock: &str, mappers: usize, sums: Option<&Sums>) -> [String; 13] {
    let Some(sums) = sums else {
        let mut cells = [(); 13].map(|()| "-".to_owned());
        cells[0] = clock.to_owned();
        cells[1] = format!("0/{mappers}");
        cells[12] = "no mapper answers".to_owned();
        return cells;
    };
    [
        clock.to_owned(),
        format!("{}/{}", sums.answering, sums.mappers),
        format!("{}/{}", sums.ready, sums.instances),
        sums.running.to_string(),
        sums.queued.to_string(),
        sums.oldest_ms.map_or_else(|| "-".to_owned(), |ms| time_ms(ms.into())),
        figure(sums.rate, |rate| rate.done),
        figure(sums.rate, |rate| rate.failed),
        figure(sums.rate, |rate| rate.rejected),
        sums.done.to_string(),
        sums.failed.to_string(),
        sums.rejected.to_string(),
        String::new(),
    ]
}

/// Cells as wide as their headings at least, so that lines stand under each other mostly.
fn line(cells: [String; 13]) -> String {
    const WIDTHS: [usize; 13] = [8, 7, 7, 7, 6, 6, 6, 8, 10, 8, 6, 8, 0];
    let cells = cells.iter().zip(WIDTHS).enumerate();
    let padded: Vec<String> = cells
        .map(|(place, (cell, width))| match place {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        })
        .collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// The time of day in UTC, as the log has it: `03:12:41`.
pub(super) fn clock(unix_us: u64) -> String {
    let seconds = unix_us / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::scene::{at, given, report};

    #[test]
    fn lines_have_a_heading_again_and_again() {
        let (mut lines, mut rates) = (Lines::default(), Rates::default());
        let view = |done| report(&[given("a/1").done(done).busy(2, 1), given("b/1").failed(3)]);
        rates.update(&view(0), at(0).now);
        let first = Sums::of(&view(0), &rates);
        rates.update(&view(2400), at(2000).now);
        let second = Sums::of(&view(2400), &rates);
        let text = [
            lines.next("03:12:41", 1, Some(&first)),
            lines.next("03:12:43", 1, Some(&second)),
            lines.next("03:12:45", 1, None),
        ]
        .concat();
        let expected = "\
TIME      MAPPERS    READY  RUNNING  QUEUED  OLDEST  DONE/s  FAILED/s  REJECTED/s      DONE  FAILED  REJECTED
03:12:41      1/1      2/2        2       1      0s       -         -           -         0       3         0
03:12:43      1/1      2/2        2       1      0s    1.2k         0           0      2400       3         0
03:12:45      0/1        -        -       -       -       -         -           -         -       -         -  no mapper answers
";
        assert_eq!(text, expected);
        let rest: Vec<String> = (3..60).map(|_| lines.next("", 1, None)).collect();
        let headed: Vec<usize> =
            (0..).zip(&rest).filter(|(_, it)| it.contains("TIME")).map(|(at, _)| at + 3).collect();
        assert_eq!(headed, [25, 50]);
    }
}
