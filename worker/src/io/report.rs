//! What the log and the user are told of the mappers, and of the jobs that wait for them.

use std::time::Duration;

use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec;
use svcmap_proto::control::Welcome;
use svcmap_proto::names::{Endpoint, MapperAddress, Name};

use super::notice::{Notice, Notify};
use crate::config::MAPPERS_MAX;
use crate::process::ProcessEvent;
use crate::session::OutageOutput;

/// See the module.
pub(super) struct Report {
    pub(super) log: Logger,
    notify: Notify,
    /// Where each was dialled last.
    mappers: Vec<MapperAddress>,
}

impl Report {
    pub(super) fn new(mappers: &[Endpoint], log: Logger, notify: Notify) -> Self {
        Self { log, notify, mappers: mappers.iter().map(MapperAddress::of).collect() }
    }

    /// What the process found out.
    pub(super) fn handle_event(&self, event: ProcessEvent) {
        let mapper = |index: usize| &self.mappers[index];
        let address = |index: usize| mapper(index).address.clone();
        let notice = match event {
            ProcessEvent::Registered { mapper: index } => {
                info!(self.log, "registered"; "mapper" => %mapper(index));
                Notice::Registered(address(index))
            }
            ProcessEvent::MapperLost { mapper: index } => {
                warn!(self.log, "mapper lost, going on without it"; "mapper" => %mapper(index));
                Notice::MapperLost(address(index))
            }
            ProcessEvent::MapperSilent { mapper: index, lasts, others_answer } => {
                if others_answer {
                    warn!(self.log, "no word from the mapper, connecting again";
                        "mapper" => %mapper(index), "for_s" => lasts.as_secs());
                }
                Notice::MapperLost(address(index))
            }
            ProcessEvent::Outage(outage) => return self.handle_outage(outage),
            ProcessEvent::MapperTwin { mapper: index } => {
                debug!(self.log, "a mapper that is known by another address";
                    "mapper" => %mapper(index));
                return;
            }
            ProcessEvent::MapperGone { mapper: index } => {
                info!(self.log, "the name means another address by now, leaving this one alone";
                    "mapper" => %mapper(index));
                return;
            }
            ProcessEvent::Unresolved(name, error) => {
                warn!(self.log, "the mappers' name leads nowhere, looking it up again: correct it, or \
                    name them by their addresses"; "mapper" => %name, "error" => error);
                return;
            }
            ProcessEvent::TooManyAddresses(name, addresses) => {
                warn!(self.log, "the mappers' name has more addresses than are used";
                    "mapper" => %name, "addresses" => addresses, "limit" => MAPPERS_MAX);
                return;
            }
            ProcessEvent::RegistrationRefused { mapper: index, error } => {
                error!(self.log, "not registered, trying again";
                    "mapper" => %mapper(index), "why" => %error);
                Notice::RegistrationRefused(address(index), error)
            }
            ProcessEvent::WrongVersion { mapper: index, oldest, newest } => {
                error!(self.log, "the mapper speaks other protocol versions";
                    "mapper" => %mapper(index), "oldest" => oldest, "newest" => newest,
                    "ours" => codec::VERSION);
                Notice::WrongVersion(address(index), oldest, newest)
            }
            ProcessEvent::Replaced(by) => {
                error!(self.log, "another process took this name"; "incarnation" => %by);
                Notice::Replaced(by)
            }
            ProcessEvent::DrainWanted => {
                info!(self.log, "an operator wants this instance to end");
                Notice::DrainWanted
            }
        };
        (self.notify)(notice);
    }

    /// A mapper is dialled there.
    pub(super) fn handle_dial(&mut self, index: usize, at: &MapperAddress) {
        match self.mappers.get_mut(index) {
            Some(known) if known == at => return,
            Some(known) => known.clone_from(at),
            None => self.mappers.push(at.clone()),
        }
        info!(self.log, "looking for a mapper"; "mapper" => %at);
    }

    /// No mapper answers, or one does again.
    fn handle_outage(&self, outage: OutageOutput) {
        let lasts = match outage {
            OutageOutput::NeverAnswered(lasts) => {
                warn!(self.log, "no mapper answers, waiting for one: start it there, or name \
                    another one with --mapper"; "mappers" => self.endpoints(", "),
                    "for_s" => lasts.as_secs());
                lasts
            }
            OutageOutput::Silent(lasts) => {
                warn!(self.log, "no word from any mapper, going on with what is known";
                    "mappers" => self.endpoints(", "), "for_s" => lasts.as_secs());
                lasts
            }
            OutageOutput::Over(lasted) => {
                info!(self.log, "a mapper answers"; "after_s" => lasted.as_secs());
                return;
            }
        };
        (self.notify)(Notice::NoMapper(lasts));
    }

    /// A mapper said WELCOME.
    pub(super) fn handle_welcome(&self, index: usize, welcome: &Welcome, is_back: bool) {
        let endpoint = &self.mappers[index];
        if is_back {
            info!(self.log, "the mapper answers again"; "mapper" => %endpoint);
        }
        debug!(self.log, "welcomed"; "mapper" => %endpoint, "epoch" => %welcome.epoch);
    }

    /// Jobs wait, and nobody says for whom.
    pub(super) fn handle_unheard(&self, service: &Name) {
        warn!(self.log, "no mapper has told who serves it, so jobs wait";
            "service" => %service, "mappers" => self.endpoints(","));
    }

    /// Jobs wait, as nobody serves that any more.
    pub(super) fn handle_unserved(&self, service: &Name, patience: Duration) {
        warn!(self.log, "nobody serves it any more, so jobs wait for whoever comes back";
            "service" => %service, "patience_s" => patience.as_secs());
    }

    /// Nothing comes from that mapper's PUB.
    pub(super) fn handle_silent(&self, index: usize) {
        warn!(self.log, "no publications arrive, so the mapper is asked each beat: is its PUB port \
            open?"; "mapper" => %self.mappers[index]);
    }

    fn endpoints(&self, separator: &str) -> String {
        self.mappers.iter().map(MapperAddress::to_string).collect::<Vec<_>>().join(separator)
    }
}
