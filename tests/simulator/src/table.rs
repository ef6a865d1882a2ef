//! The table that a sweep fills: one row for each point, as CSV. Times are in mean service times.

use std::collections::BTreeMap;

use svcmap::measurement::Report;

use super::sweep::Point;

/// What came of a point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What was changed.
    pub axis: String,
    /// To what.
    pub value: String,
    /// How senders learnt of load.
    pub feed: String,
    /// How workers were chosen.
    pub policy: String,
    /// Jobs.
    pub submitted: f64,
    /// See [`Report`].
    pub far: f64,
    /// See [`Report`].
    pub far_ci95: f64,
    /// See [`Report`].
    pub far_stale: f64,
    /// See [`Report`].
    pub far_race: f64,
    /// See [`Report`].
    pub frr: f64,
    /// Share of jobs that were done.
    pub done: f64,
    /// Mean wait.
    pub wait_mean: f64,
    /// What 99 % of waits did not exceed.
    pub wait_p99: f64,
    /// The same for 99.9 %.
    pub wait_p999: f64,
    /// The same as a share of the oracle's at this point; 0 if there is none.
    pub wait_p99_to_oracle: f64,
    /// What 99 % of responses did not exceed.
    pub response_p99: f64,
    /// What half of the ages of knowledge did not exceed.
    pub age_p50: f64,
    /// The same for 99 %.
    pub age_p99: f64,
    /// See [`Report`].
    pub herd_index: f64,
    /// See [`Report`].
    pub jain: f64,
    /// See [`Report`].
    pub messages_per_job: f64,
}

/// The columns behind the four that name a point.
const COLUMNS: [&str; 17] = [
    "submitted",
    "far",
    "far_ci95",
    "far_stale",
    "far_race",
    "frr",
    "done",
    "wait_mean",
    "wait_p99",
    "wait_p999",
    "wait_p99_to_oracle",
    "response_p99",
    "age_p50",
    "age_p99",
    "herd_index",
    "jain",
    "messages_per_job",
];

impl Row {
    /// The row of a point.
    pub fn new(point: &Point, report: &Report) -> Self {
        let means = |ms: f64| ms / report.setting.service_time_ms;
        Self {
            axis: point.axis.to_owned(),
            value: point.value.clone(),
            feed: point.scenario.feed.as_str().to_owned(),
            policy: report.setting.policy.clone(),
            submitted: report.submitted as f64,
            far: report.far,
            far_ci95: report.far_ci95,
            far_stale: report.far_stale,
            far_race: report.far_race,
            frr: report.frr,
            done: report.outcomes.done as f64 / report.submitted.max(1) as f64,
            wait_mean: means(report.wait_ms.mean),
            wait_p99: means(report.wait_ms.p99),
            wait_p999: means(report.wait_ms.p999),
            wait_p99_to_oracle: 0.0,
            response_p99: means(report.response_ms.p99),
            age_p50: means(report.age_ms.p50),
            age_p99: means(report.age_ms.p99),
            herd_index: report.balance.herd_index,
            jain: report.balance.jain,
            messages_per_job: report.messages_per_job,
        }
    }

    fn figures(&mut self) -> [&mut f64; COLUMNS.len()] {
        [
            &mut self.submitted,
            &mut self.far,
            &mut self.far_ci95,
            &mut self.far_stale,
            &mut self.far_race,
            &mut self.frr,
            &mut self.done,
            &mut self.wait_mean,
            &mut self.wait_p99,
            &mut self.wait_p999,
            &mut self.wait_p99_to_oracle,
            &mut self.response_p99,
            &mut self.age_p50,
            &mut self.age_p99,
            &mut self.herd_index,
            &mut self.jain,
            &mut self.messages_per_job,
        ]
    }

    fn point(&self) -> (String, String, String) {
        (self.axis.clone(), self.value.clone(), self.feed.clone())
    }
}

/// Fills in how each row's waits compare with the oracle's at the same point.
pub fn compare_with_oracle(rows: &mut [Row]) {
    let oracles = rows.iter().filter(|row| row.policy == "oracle");
    let oracles: BTreeMap<_, f64> = oracles.map(|row| (row.point(), row.wait_p99)).collect();
    for row in rows {
        row.wait_p99_to_oracle = match oracles.get(&row.point()) {
            Some(oracle) if *oracle > 0.0 => row.wait_p99 / oracle,
            _ => 0.0,
        };
    }
}

/// Rows as CSV.
pub fn to_csv(rows: &[Row]) -> String {
    let mut text = format!("axis,value,feed,policy,{}\n", COLUMNS.join(","));
    for row in rows {
        let mut row = row.clone();
        let figures: Vec<String> = row.figures().into_iter().map(|figure| short(*figure)).collect();
        let Row { axis, value, feed, policy, .. } = &row;
        text += &format!("{axis},{value},{feed},{policy},{}\n", figures.join(","));
    }
    text
}

/// A figure with as many digits as mean something.
fn short(figure: f64) -> String {
    match figure {
        0.0 => "0".to_owned(),
        figure if figure.abs() < 0.01 => format!("{figure:.3e}"),
        figure if figure.abs() >= 1e4 => format!("{figure:.0}"),
        figure => format!("{figure:.4}"),
    }
}

/// Rows from CSV.
///
/// # Errors
/// Says which line is none.
pub fn from_csv(text: &str) -> Result<Vec<Row>, String> {
    let row = |line: &str| {
        let mut cells = line.split(',');
        let mut next = || cells.next().map(str::to_owned);
        let (axis, value, feed, policy) = (next()?, next()?, next()?, next()?);
        let mut row = Row { axis, value, feed, policy, ..Row::default() };
        for figure in row.figures() {
            *figure = cells.next()?.parse().ok()?;
        }
        Some(row)
    };
    let lines = text.lines().skip(1);
    lines.map(|line| row(line).ok_or_else(|| format!("this is no row: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let mut row = Row { axis: "interval".into(), value: "0.1".into(), ..Row::default() };
        (row.feed, row.policy) = ("board".into(), "p2c".into());
        for (index, figure) in row.figures().into_iter().enumerate() {
            *figure = index as f64 / 8.0;
        }
        let rows = vec![row.clone(), Row { far: 1.5e-7, submitted: 200_000.0, ..row }];
        assert_eq!(from_csv(&to_csv(&rows)), Ok(rows));
        assert!(from_csv("axis\na,b,c,d,e").unwrap_err().contains("a,b,c,d,e"));
    }
}
