//! What a service manager is told of a process, in the notification protocol of systemd, `sd_notify(3)`:
//! that it is ready, how it is, that it ends, and that it still turns.

pub mod io;

use std::time::Duration;

use svcmap_proto::time::Timestamp;

/// Where it is told. It is for this process alone.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// After how many microseconds without a sign of life it ends this process.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";

/// Which process that is about.
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";

/// What no process inherits that this one starts: it would speak for this one.
pub const NOT_INHERITED: [&str; 3] = [SOCKET_VARIABLE, WATCHDOG_VARIABLE, WATCHDOG_PID_VARIABLE];

/// How often a status is told at most.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// What can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does what it is there for; after [`State::Reloading`]: again.
    Ready,
    /// It reads its settings again.
    Reloading {
        /// Since when, on the system's monotonic clock.
        monotonic_us: u64,
    },
    /// It has begun to end.
    Stopping {
        /// How long that may take.
        within: Duration,
    },
    /// A line for people.
    Status(String),
    /// It turns.
    Alive,
}

/// As the protocol has it: a line for each.
fn to_text(states: &[State]) -> String {
    let line = |state: &State| match state {
        State::Ready => "READY=1\n".to_owned(),
        State::Reloading { monotonic_us } => {
            format!("RELOADING=1\nMONOTONIC_USEC={monotonic_us}\n")
        }
        // It makes the time longer that there is, and never shorter.
        State::Stopping { within } => {
            format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", within.as_micros())
        }
        State::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
        State::Alive => "WATCHDOG=1\n".to_owned(),
    };
    states.iter().map(line).collect()
}

/// How often a sign of life is due, by the environment: twice in the time after which one is missed.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let usec: u64 = usec.filter(|_| is_for_us)?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec) / 2)
}

/// When to tell what, of a process that turns.
#[derive(Debug)]
pub struct Pulse {
    watchdog: Option<Duration>,
    alive_at: Option<Timestamp>,
    looked_at: Option<Timestamp>,
    status: String,
}

impl Pulse {
    /// One with a sign of life so often, if at all.
    pub fn new(watchdog: Option<Duration>) -> Self {
        Self { watchdog, alive_at: None, looked_at: None, status: String::new() }
    }

    /// When [`Pulse::handle_turn`] is due; `None`: at once.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let status_at = self.looked_at? + STATUS_INTERVAL;
        match self.watchdog {
            Some(interval) => Some(status_at.min(self.alive_at? + interval)),
            None => Some(status_at),
        }
    }

    /// It turns, and is like that: what to tell.
    pub fn handle_turn(&mut self, now: Timestamp, status: String) -> Vec<State> {
        let mut states = Vec::new();
        self.looked_at = Some(now);
        if self.status != status {
            states.push(State::Status(status.clone()));
            self.status = status;
        }
        let is_due = |interval: &Duration| self.alive_at.is_none_or(|at| at + *interval <= now);
        if self.watchdog.as_ref().is_some_and(is_due) {
            states.push(State::Alive);
            self.alive_at = Some(now);
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_and_none_within_another() {
        let (monotonic_us, within) = (7, Duration::from_millis(1500));
        let text = to_text(&[
            State::Reloading { monotonic_us },
            State::Ready,
            State::Status("a\nREADY=1".to_owned()),
            State::Stopping { within },
            State::Alive,
        ]);
        let lines = "RELOADING=1\nMONOTONIC_USEC=7\nREADY=1\nSTATUS=a READY=1\n\
            STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nWATCHDOG=1\n";
        assert_eq!(text, lines);
    }

    #[test]
    fn a_sign_of_life_is_due_twice_in_the_time_and_of_the_process_that_is_meant() {
        let second = Some(Duration::from_millis(500));
        assert_eq!(watchdog(Some("1000000"), None, 5), second);
        assert_eq!(watchdog(Some("1000000"), Some("5"), 5), second);
        for (usec, pid) in
            [(None, None), (Some("1000000"), Some("6")), (Some("0"), None), (Some("x"), None)]
        {
            assert_eq!(watchdog(usec, pid, 5), None);
        }
    }

    #[test]
    fn what_changed_is_told_and_life_is_as_often_as_it_is_due() {
        let at = |ms: u64| Timestamp::from_micros(1_000_000 + ms * 1000);
        let status = |text: &str| State::Status(text.to_owned());
        let mut pulse = Pulse::new(Some(Duration::from_millis(1500)));
        assert_eq!(pulse.poll_timeout(), None);
        assert_eq!(pulse.handle_turn(at(0), "a".to_owned()), [status("a"), State::Alive]);
        assert_eq!(pulse.poll_timeout(), Some(at(1000)));
        assert_eq!(pulse.handle_turn(at(1000), "a".to_owned()), []);
        assert_eq!(pulse.poll_timeout(), Some(at(1500)));
        assert_eq!(pulse.handle_turn(at(1500), "b".to_owned()), [status("b"), State::Alive]);
        let mut without = Pulse::new(None);
        assert_eq!(without.handle_turn(at(0), "a".to_owned()), [status("a")]);
        assert_eq!(without.poll_timeout(), Some(at(1000)));
    }
}
