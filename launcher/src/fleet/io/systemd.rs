//! What a service manager is told of a running `svcmap up`.

use std::time::Duration;

use svcmap_proto::time::Timestamp;

use super::Keeper;
use crate::errors::Failure;
use crate::fleet::{Fleet, GOODBYE, MAPPER_GRACE};
use crate::systemd::io::{Manager, reloading};
use crate::systemd::{Pulse, State};
use crate::text::count;

/// What it was told, if there is one.
pub(super) struct Told {
    manager: Option<(Manager, Pulse)>,
    is_ready: bool,
    /// Whether the file that a SIGHUP was to apply is of no use.
    pub(super) is_refused: bool,
}

impl Told {
    pub(super) fn of_environment() -> Result<Self, Failure> {
        let with_pulse = |manager: Manager| {
            let pulse = manager.pulse();
            (manager, pulse)
        };
        let manager = Manager::of_environment()?.map(with_pulse);
        Ok(Self { manager, is_ready: false, is_refused: false })
    }

    /// When it is to be told how all are.
    pub(super) fn poll_timeout(&self) -> Timestamp {
        let pulse = self.manager.as_ref().map(|(_, pulse)| pulse);
        let never = Timestamp::from_micros(u64::MAX);
        pulse.map_or(never, |pulse| pulse.poll_timeout().unwrap_or_default())
    }
}

impl Keeper<'_> {
    /// All have come to where they stay, for the first time: some may have failed.
    pub(super) fn tell_ready(&mut self) {
        if !std::mem::replace(&mut self.told.is_ready, true) {
            self.tell(&[State::Ready]);
        }
    }

    /// Its thread turns.
    pub(super) fn tell_turn(&mut self, now: Timestamp) {
        if now < self.told.poll_timeout() {
            return;
        }
        let status = status(&self.fleet, self.told.is_refused);
        let pulse = self.told.manager.as_mut().map(|(_, pulse)| pulse);
        let states = pulse.map(|pulse| pulse.handle_turn(now, status));
        self.tell(&states.unwrap_or_default());
    }

    /// It reads the file again. While it starts there is nobody who waits for that.
    pub(super) fn tell_reloading(&mut self) {
        if self.told.is_ready && self.closing_at.is_none() {
            self.tell(&[reloading()]);
        }
    }

    /// It has: the file counts, or not. Instances are replaced after that.
    pub(super) fn tell_reloaded(&mut self) {
        if self.told.is_ready && self.closing_at.is_none() {
            let status = status(&self.fleet, self.told.is_refused);
            self.tell(&[State::Ready, State::Status(status)]);
        }
    }

    pub(super) fn tell_stopping(&mut self) {
        let services = self.fleet.topology().services.values();
        let drains = services.map(|service| service.worker.grace + service.worker.kill_after);
        let drain = drains.max().unwrap_or_default() + GOODBYE;
        self.tell(&[State::Stopping { within: drain + MAPPER_GRACE + MARGIN }]);
    }

    fn tell(&mut self, states: &[State]) {
        let trouble = self.told.manager.as_ref().and_then(|(manager, _)| manager.tell(states));
        if let Some(trouble) = trouble {
            self.own_line(&trouble, true);
        }
    }
}

/// For all that is done around it.
const MARGIN: Duration = Duration::from_secs(5);

/// How all are, in a line.
fn status(fleet: &Fleet, is_refused: bool) -> String {
    let instances = || fleet.members().filter(|(who, _)| who.service().is_some());
    let ready = instances().filter(|(_, member)| member.state.is_ready()).count();
    let (all, services) = (instances().count(), fleet.topology().services.len());
    let refused = if is_refused { "; the file of the last SIGHUP is not applied" } else { "" };
    format!(
        "{ready} of {} of {} ready{refused}",
        count(all, "instance"),
        count(services, "service")
    )
}
