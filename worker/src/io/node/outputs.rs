//! What the process wants done, on sockets, handlers and tickets.

use std::iter::once;

use slog::{info, warn};
use svcmap_proto::codec;
use svcmap_proto::io::{Clock, EventLoop, SendError};
use svcmap_proto::jobs::FromWorker;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::Endpoint;
use svcmap_proto::payload::{self, Frame};
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::time::Timestamp;

use super::State;
use crate::io::notice::LINGER;
use crate::io::{sockets, trouble};
use crate::process::ProcessOutput;
use crate::sender::SenderOutput;
use crate::senders::Connection;
use crate::server::ServerOutput;

impl State {
    /// Does what the process wants done, until it wants nothing more.
    pub(super) fn act(&mut self, mut now: Timestamp, event_loop: &mut EventLoop) {
        while let Some(output) = self.next_output(&mut now) {
            match output {
                ProcessOutput::Server(output) => self.act_server(now, output, event_loop),
                ProcessOutput::Sender(output) => self.act_sender(now, output, event_loop),
                ProcessOutput::ToMapper { mapper, message } => {
                    self.mappers.tell(mapper, &message, event_loop);
                }
                ProcessOutput::Welcomed { mapper, welcome, is_back } => {
                    self.report.handle_welcome(mapper, &welcome, is_back);
                    self.mappers.listen(mapper, &welcome.publish, event_loop);
                }
                ProcessOutput::Dial { mapper, at } => {
                    self.report.handle_dial(mapper, &at);
                    self.mappers.dial(mapper, at, event_loop);
                }
                ProcessOutput::HangUp { mapper } => self.mappers.hang_up(mapper, event_loop),
                ProcessOutput::LookUp(name) => self.mappers.look_up(name),
                ProcessOutput::Relisten { mapper } => self.mappers.subscribe(mapper, event_loop),
                ProcessOutput::Admit(keys) => {
                    event_loop.admit(keys.into_iter().map(|key| (key, Vec::new())).collect());
                }
                ProcessOutput::Event(event) => self.report.handle_event(event),
            }
        }
        self.settle();
    }

    /// What the process wants done, but for the jobs that are to start. These come together, and the
    /// handlers get them together: whoever is woken takes the place of this thread.
    fn next_output(&mut self, now: &mut Timestamp) -> Option<ProcessOutput> {
        // A handler that has finished gets its next job before anything else is done.
        if self.serving.as_mut().is_some_and(|serving| serving.look()) {
            *now = Clock.now();
            self.handle_completions(*now);
        }
        loop {
            let output = self.process.poll_output(*now);
            let Some(serving) = &mut self.serving else { return output };
            match output {
                Some(ProcessOutput::Server(ServerOutput::Start(task))) => serving.start(task),
                output => {
                    serving.hand_over();
                    return output;
                }
            }
        }
    }

    fn act_server(&mut self, now: Timestamp, output: ServerOutput, event_loop: &mut EventLoop) {
        let Some(serving) = &mut self.serving else { return };
        match output {
            ServerOutput::Cancel(task) => {
                if serving.cancel(task)
                    && let Some(server) = self.process.server()
                {
                    server.handle_withdrawn(now, task);
                }
            }
            ServerOutput::TakeBack => {
                if let Some(server) = self.process.server() {
                    server.handle_taken_back(now, serving.take_back());
                }
            }
            ServerOutput::TakeProgress => {
                if let Some(server) = self.process.server() {
                    server.handle_progress(now, serving.progress().take());
                }
            }
            ServerOutput::Reply { to, body } => serving.reply(event_loop, &to, &body),
            ServerOutput::Answer { to, message } => self.answer(now, &to, &message, event_loop),
            ServerOutput::Outcomes { to, sender, batch } => {
                let (number, is_granted) = (batch.first_number, batch.grant.is_some());
                let frames = payload::encode(FromWorker::Outcomes(batch));
                let sent =
                    serving.send(event_loop, once(Frame::Short(&to.id)).chain(frames.iter()));
                match (sent, self.process.server()) {
                    (Err(SendError::Full), Some(server)) => {
                        server.handle_blocked(now, sender, number, is_granted);
                    }
                    (Err(SendError::Unreachable), Some(server)) => {
                        server.handle_unreachable(now, sender, number);
                    }
                    _ => {}
                }
            }
            ServerOutput::SetAside { error, pause } => {
                warn!(self.report.log, "takes no jobs for a while: they fail here, or cannot be \
                    started"; "error" => error, "for_ms" => pause.as_millis());
            }
            ServerOutput::FailsAlike { error } => {
                warn!(self.report.log, "most of its last jobs failed, and nobody does better: it goes \
                    on"; "error" => error);
            }
            ServerOutput::Untold { sender, attempt, error } => {
                warn!(self.report.log, "not done, and nobody waits for it"; "error" => error,
                    "job" => attempt.job, "sender" => %sender);
            }
            ServerOutput::UntoldMore(jobs) => {
                warn!(self.report.log, "not done, and nobody waits for them"; "jobs" => jobs);
            }
            ServerOutput::Trusted => info!(self.report.log, "takes jobs again: one was done"),
            ServerOutput::Start(_) | ServerOutput::Offer { .. } => {}
        }
    }

    fn answer(
        &mut self,
        now: Timestamp,
        to: &Connection,
        message: &FromWorker,
        event_loop: &mut EventLoop,
    ) {
        let Some(serving) = &self.serving else { return };
        if *message == FromWorker::TurnedAway {
            self.refusals.count(BadMessage::Senders);
        }
        let sent = serving.send(event_loop, [&to.id[..], &codec::encode(message)]);
        match (sent, self.process.server()) {
            (Err(SendError::Unreachable), Some(server)) => server.handle_gone(now, to),
            (Err(SendError::Full), Some(server)) => server.handle_unread(now, to, message),
            _ => {}
        }
    }

    fn act_sender(&mut self, now: Timestamp, output: SenderOutput, event_loop: &mut EventLoop) {
        match output {
            SenderOutput::Send { link, message } => {
                let Some(&socket) = self.links.get(&link) else { return };
                let frames = payload::encode(message);
                // What cannot be sent is found missing at the next HELLO.
                if event_loop.send(socket, frames.iter()).is_ok() {
                    self.process.sender().count_message(frames.bytes());
                }
            }
            SenderOutput::Request { link, attempt, tag, body } => {
                let tag = tag.as_deref().map(str::as_bytes);
                let frames = tag.into_iter().chain([&b""[..], &body]);
                let socket = self.links.get(&link);
                let sent = socket.map(|&socket| event_loop.send(socket, frames));
                if sent != Some(Ok(())) {
                    self.process.sender().handle_unsent(now, link, attempt);
                }
            }
            SenderOutput::Connect { link, endpoint, key } => {
                self.connect(link, (&endpoint, key), event_loop);
            }
            SenderOutput::Disconnect { link } => {
                if let Some(socket) = self.links.remove(&link) {
                    self.link_numbers.remove(&socket);
                    event_loop.remove(socket, LINGER);
                }
            }
            SenderOutput::Subscribe(service) => self.mappers.follow(&service, event_loop),
            SenderOutput::Unsubscribe(service) => self.mappers.unfollow(&service, event_loop),
            SenderOutput::Silent { mapper } => self.report.handle_silent(mapper),
            // That no mapper answers at all is said once for all services.
            SenderOutput::Unheard(service) if self.process.mapper_counts().0 > 0 => {
                self.report.handle_unheard(&service);
            }
            SenderOutput::Unheard(_) => {}
            SenderOutput::Unserved(service) => {
                self.report.handle_unserved(&service, self.shared.config.patience)
            }
            SenderOutput::Unreachable { key, endpoint, failures, trouble } => {
                trouble::warn(&self.report.log, &key, endpoint, failures, trouble);
            }
            SenderOutput::Observed(observation) => {
                if let Some(observer) = &self.observer {
                    observer(observation);
                }
            }
            SenderOutput::Progress { job, text } => {
                if let Some(completer) = self.tickets.get(&job) {
                    completer.set_progress(text);
                }
            }
            SenderOutput::Settled { job, outcome } => {
                let completer = self.tickets.remove(&job);
                self.settled.extend(completer.map(|completer| (completer, outcome)));
            }
            SenderOutput::Sync { .. } | SenderOutput::Declined(_) => {}
        }
    }

    fn connect(
        &mut self,
        link: u64,
        (endpoint, key): (&Endpoint, Option<PublicKey>),
        event_loop: &mut EventLoop,
    ) {
        let keys = self.mappers.keys();
        match sockets::dial_worker(event_loop, endpoint, key, &self.shared.config, keys) {
            Ok(socket) => {
                self.link_numbers.insert(socket, link);
                self.links.insert(link, socket);
            }
            // The link notices that no WELCOME comes, and tries again.
            Err(error) => {
                if let Some(times) = self.unconnected.admit(Clock.now()) {
                    warn!(self.report.log, "cannot connect"; "worker" => %endpoint,
                        "error" => %error, "times" => times);
                }
            }
        }
    }
}
