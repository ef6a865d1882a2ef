//! The order of a turn: what the halves and the conversations want done, and what they have to say to
//! each other.

use svcmap_proto::control::ToMapper;
use svcmap_proto::time::Timestamp;

use super::serving::Serving;
use super::{Process, ProcessEvent, ProcessOutput};
use crate::sender::SenderOutput;
use crate::server::ServerOutput;
use crate::session::SessionOutput;
use crate::whereabouts::WhereaboutsOutput;

/// Who is asked what it wants done: a round in this order, and another one if there was anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A round is over.
    Idle,
    Server,
    Mappers,
    Sender,
}

impl Process {
    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<ProcessOutput> {
        loop {
            let output = self.poll_stage(now);
            if output.is_some() {
                self.is_quiet = false;
                return output;
            }
            self.advance(now);
            if self.stage == Stage::Idle {
                return None;
            }
        }
    }

    fn poll_stage(&mut self, now: Timestamp) -> Option<ProcessOutput> {
        if !self.outputs.is_empty() {
            return self.outputs.pop_front();
        }
        match self.stage {
            Stage::Idle => None,
            Stage::Server => self.poll_server(now),
            Stage::Mappers => self.poll_mappers(now),
            Stage::Sender => self.poll_sender(now),
        }
    }

    /// Goes on to the next stage.
    fn advance(&mut self, now: Timestamp) {
        self.stage = match self.stage {
            Stage::Sender if self.is_quiet => Stage::Idle,
            Stage::Idle | Stage::Sender => {
                self.is_quiet = true;
                self.hand_back(now);
                Stage::Server
            }
            Stage::Server => {
                self.report_load(now);
                Stage::Mappers
            }
            Stage::Mappers => Stage::Sender,
        };
    }

    /// A drain leaves what waits to others, as soon as one is known.
    fn hand_back(&mut self, now: Timestamp) {
        if let Some((own, server)) = self.serving.as_mut().and_then(Serving::key_and_server)
            && server.is_draining()
        {
            self.sender.follow(now, &own.service);
            if self.sender.has_ready_peer(now, own) {
                server.handle_peer_ready(now);
            }
        }
    }

    fn report_load(&mut self, now: Timestamp) {
        let Some(server) = self.serving.as_mut().and_then(Serving::server) else { return };
        self.mappers.handle_load(now, &server.load(now));
        self.mappers.handle_error(server.error());
    }

    fn poll_server(&mut self, now: Timestamp) -> Option<ProcessOutput> {
        let (own, server) = self.serving.as_mut()?.key_and_server()?;
        loop {
            // What has just failed here is compared with how peers fare.
            if server.wants_verdict(now) {
                let verdict = self.sender.judge(now, own, &server.load(now));
                server.handle_verdict(now, verdict);
            }
            match server.poll_output(now)? {
                ServerOutput::Offer { slot, blind, way } => {
                    self.is_quiet = false;
                    let offer = slot.offer;
                    if !self.sender.offer(now, own, slot, (blind, way)) {
                        server.handle_no_taker(offer);
                    }
                }
                output => return Some(ProcessOutput::Server(output)),
            }
        }
    }

    fn poll_sender(&mut self, now: Timestamp) -> Option<ProcessOutput> {
        loop {
            match self.sender.poll_output(now)? {
                SenderOutput::Declined(offer) => {
                    self.is_quiet = false;
                    if let Some(server) = self.server() {
                        server.handle_no_taker(offer);
                    }
                }
                SenderOutput::Sync { mapper, service } => {
                    self.resyncs += 1;
                    let message = ToMapper::Sync { service };
                    return Some(ProcessOutput::ToMapper { mapper, message });
                }
                output => return Some(ProcessOutput::Sender(output)),
            }
        }
    }

    fn poll_mappers(&mut self, now: Timestamp) -> Option<ProcessOutput> {
        if let Some(output) = self.mappers.poll_whereabouts(now) {
            return Some(self.take_whereabouts(now, output));
        }
        let (mapper, output) = self.mappers.poll_output()?;
        Some(match output {
            SessionOutput::Send(message) => ProcessOutput::ToMapper { mapper, message },
            SessionOutput::Reconnect => match self.mappers.handle_reconnect(now, mapper) {
                Some(at) => ProcessOutput::Dial { mapper, at },
                // It is once its name leads somewhere.
                None => ProcessOutput::HangUp { mapper },
            },
            SessionOutput::Resubscribe => {
                self.sender.handle_silence(mapper);
                ProcessOutput::Relisten { mapper }
            }
            SessionOutput::Welcomed(welcome) => {
                self.handle_welcome(now, mapper, &welcome);
                let is_back = self.mappers.handle_welcome(now, mapper);
                ProcessOutput::Welcomed { mapper, welcome, is_back }
            }
            SessionOutput::Registered => {
                if let Some(serving) = &mut self.serving {
                    serving.handle_registered();
                }
                ProcessOutput::Event(ProcessEvent::Registered { mapper })
            }
            SessionOutput::Silent(lasts) => {
                ProcessOutput::Event(self.mappers.handle_silent(mapper, lasts))
            }
            SessionOutput::RegistrationRefused(error) => {
                ProcessOutput::Event(ProcessEvent::RegistrationRefused { mapper, error })
            }
            SessionOutput::Replaced(by) => ProcessOutput::Event(ProcessEvent::Replaced(by)),
            SessionOutput::DrainWanted => ProcessOutput::Event(ProcessEvent::DrainWanted),
            SessionOutput::WrongVersion { oldest, newest } => {
                ProcessOutput::Event(ProcessEvent::WrongVersion { mapper, oldest, newest })
            }
        })
    }

    /// Does to the halves what has become of a mapper. Returns what is to become of its connections.
    fn take_whereabouts(&mut self, now: Timestamp, output: WhereaboutsOutput) -> ProcessOutput {
        match output {
            WhereaboutsOutput::LookUp(name) => ProcessOutput::LookUp(name),
            WhereaboutsOutput::Dial { mapper, at } => ProcessOutput::Dial { mapper, at },
            WhereaboutsOutput::Rest { mapper } => {
                self.sender.handle_gone(now, mapper);
                let gone = ProcessEvent::MapperGone { mapper };
                self.outputs.push_back(ProcessOutput::Event(gone));
                ProcessOutput::HangUp { mapper }
            }
            WhereaboutsOutput::Unresolved(name, error) => {
                ProcessOutput::Event(ProcessEvent::Unresolved(name, error))
            }
            WhereaboutsOutput::TooMany(name, addresses) => {
                ProcessOutput::Event(ProcessEvent::TooManyAddresses(name, addresses))
            }
        }
    }
}
