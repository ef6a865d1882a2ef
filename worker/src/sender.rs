//! The sending half of a process: jobs from the outbox, over links, to workers that the cache
//! knows.
//!
//! It puts [`Outbox`], [`Peers`], [`Link`](crate::link::Link)s and a [`Placement`] together.

mod answers;
mod asks;
mod concurrency_limit;
mod credit;
mod dispatch;
mod estimates;
mod links;
mod output;
mod placement;
mod services;
mod siblings;
mod standing;
mod subset;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use svcmap_proto::control::{Publication, SnapshotPart, Welcome};
use svcmap_proto::jobs::{AttemptId, FromWorker, Reason};
use svcmap_proto::names::{HostId, Name, SenderId};
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::time::{Timestamp, earliest};

use crate::choice::Choice;
use crate::config::OutboxConfig;
use crate::link::{Identity, Link, Timing};
use crate::observation::Observation;
use crate::outbox::{JobId, JobSpec, Lane, Outbox};
use crate::peers::{Peers, PeersOutput};
use crate::rep::Replied;
use crate::statistics::Statistics;
use asks::Asks;
use links::Links;
pub use output::SenderOutput;
use placement::{ByChoice, ByPromise, Placement};
use services::Services;
use standing::TROUBLE_FIRST;
pub use standing::Trouble;

/// See the module.
pub struct Sender {
    identity: Identity,
    host: HostId,
    timing: Timing,
    outbox: Outbox,
    peers: Peers,
    placement: Box<dyn Placement>,
    observe: bool,
    /// Links that jobs of a lane were just given to, and the size of the last one's payload.
    given: Vec<(u64, usize)>,
    /// When closed links of ended lives are forgotten next. Nobody waits for it.
    sweep_at: Timestamp,
    /// When waiting jobs are next looked at for what is wrong, and after which time again.
    trouble_at: Timestamp,
    trouble_pause: Duration,
    random: fastrand::Rng,
    links: Links,
    asks: Asks,
    services: Services,
    /// Most instances of a service that its jobs go to.
    active_peers_max: usize,
    statistics: Statistics,
    outputs: VecDeque<SenderOutput>,
}

impl Sender {
    /// A sender without jobs. `id` and `seed` are random numbers; whoever is to place jobs in place of
    /// promises is the `choice`.
    pub fn new(
        id: SenderId,
        host: HostId,
        mappers: usize,
        config: OutboxConfig,
        choice: Option<Box<dyn Choice>>,
        seed: u64,
    ) -> Self {
        let (beat, expiry) = (Duration::from_secs(1), Duration::from_secs(3));
        let placement: Box<dyn Placement> = match choice {
            None => Box::<ByPromise>::default(),
            Some(choice) => Box::new(ByChoice(choice)),
        };
        let result_bytes_max = u32::try_from(config.payload_bytes_max).unwrap_or(u32::MAX);
        Self {
            identity: Identity {
                sender: id,
                result_bytes_max,
                takes_credits: placement.takes_credits(),
            },
            host,
            timing: Timing { beat, expiry, idle: config.idle },
            outbox: Outbox::new(config.attempts_max, config.patience),
            peers: Peers::new(mappers, seed),
            placement,
            observe: false,
            given: Vec::new(),
            sweep_at: Timestamp::default(),
            trouble_at: Timestamp::default(),
            trouble_pause: TROUBLE_FIRST,
            random: fastrand::Rng::with_seed(seed),
            links: Links::default(),
            asks: Asks::default(),
            services: Services::default(),
            active_peers_max: config.active_peers_max,
            statistics: Statistics::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Tells of each decision from now on.
    pub fn observe(&mut self) {
        self.observe = true;
    }

    /// What this sender has counted. The ages of what it knows are missing.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The same, with how old what it knows is.
    pub fn statistics_at(&self, now: Timestamp) -> Statistics {
        let told = |name: &Name| Some((name.clone(), now.since(self.peers.told_at(name)?)));
        let told_ago = self.peers.services().filter_map(told).collect();
        Statistics { told_ago, ..self.statistics.clone() }
    }

    /// The cache.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Jobs without an outcome.
    pub fn jobs(&self) -> usize {
        self.outbox.len()
    }

    /// Whether every job has its outcome.
    pub fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// A job was submitted.
    pub fn handle_submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        self.statistics.submitted += 1;
        let followed = self.follow(now, &spec.service);
        let is_served = standing::is_served(&self.peers, &spec.service, spec.instance.as_ref());
        let unfollowed = (!followed).then(|| spec.service.clone());
        self.outbox.submit(now, id, spec);
        if !is_served {
            self.outbox.look_at(now, id);
        }
        if let Some(service) = unfollowed {
            self.outbox.refuse(now, id, Reason::TooManyServices);
            self.outbox.forget(&service);
        }
    }

    /// The user takes a job back.
    pub fn handle_cancel(&mut self, now: Timestamp, id: JobId) {
        self.withdraw(now, id, Link::cancel);
    }

    /// The user takes a job back, unless a handler has begun it.
    pub fn handle_take_back(&mut self, now: Timestamp, id: JobId) {
        self.withdraw(now, id, Link::take_back);
    }

    /// Takes a job back here, or tells its worker.
    fn withdraw(&mut self, now: Timestamp, id: JobId, tell: impl Fn(&mut Link, AttemptId)) {
        let Some((attempt, link)) = self.outbox.cancel(now, id) else { return };
        if let Some(state) = self.links.get_mut(link) {
            if state.link.withdraw(attempt) {
                self.outbox.refuse(now, id, Reason::Cancelled);
            } else {
                tell(&mut state.link, attempt);
            }
        }
    }

    /// A mapper dictates timing and epoch.
    pub fn handle_welcome(&mut self, now: Timestamp, mapper: usize, welcome: &Welcome) {
        let beat = Duration::from_millis(u64::from(welcome.beat_ms.max(1)));
        let expiry = Duration::from_millis(u64::from(welcome.expiry_ms)).max(beat);
        self.timing = Timing { beat, expiry, ..self.timing };
        self.links.iter_mut().for_each(|state| state.link.set_timing(self.timing));
        self.peers.handle_welcome(now, mapper, welcome.epoch, (beat, expiry));
    }

    /// A mapper's pulse came.
    pub fn handle_pulse(&mut self, mapper: usize) {
        self.peers.handle_pulse(mapper);
    }

    /// A mapper's pulses have ceased to come.
    pub fn handle_silence(&mut self, mapper: usize) {
        self.peers.handle_silence(mapper);
    }

    /// A mapper is away for good.
    pub fn handle_gone(&mut self, now: Timestamp, mapper: usize) {
        self.peers.handle_gone(now, mapper);
    }

    /// A mapper published something about a service.
    pub fn handle_publication(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        publication: &Publication,
    ) {
        let is_news = self.peers.handle_publication(now, mapper, service, publication);
        self.learn_members(now, service, is_news);
    }

    /// A mapper answered with a snapshot.
    pub fn handle_snapshot(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        part: &SnapshotPart,
    ) {
        let is_news = self.peers.handle_snapshot(now, mapper, service, part);
        self.learn_members(now, service, is_news);
    }

    /// A mapper has told of a service: of its load, or also news of who serves it.
    fn learn_members(&mut self, now: Timestamp, service: &Name, is_news: bool) {
        self.outbox.touch(service);
        if is_news {
            let peers = &self.peers;
            let is_served =
                |lane: &Lane| standing::is_served(peers, &lane.service, lane.instance.as_ref());
            self.outbox.look(now, service, is_served);
            self.links.leave_former_addresses(peers, service);
        }
    }

    /// The connection of a link is there.
    pub fn handle_link_writable(&mut self, now: Timestamp, link: u64) {
        if let Some(state) = self.links.get_mut(link) {
            state.link.handle_writable(now);
        }
    }

    /// The connection of a link is gone.
    pub fn handle_link_unwritable(&mut self, now: Timestamp, link: u64) {
        if let Some(state) = self.links.get_mut(link) {
            state.link.handle_unwritable(now);
            // Nothing comes of what was asked there: others are asked.
            let service = &state.link.key().service;
            self.asks.forget(service, link);
            self.outbox.touch(service);
        }
    }

    /// A worker said something.
    pub fn handle_link_message(&mut self, now: Timestamp, link: u64, message: FromWorker) {
        if let Some(state) = self.links.get_mut(link) {
            state.link.handle_message(now, message);
        }
    }

    /// A job for a worker of the JSON dialect could not be sent.
    pub fn handle_unsent(&mut self, now: Timestamp, link: u64, attempt: AttemptId) {
        if let Some(state) = self.links.get_mut(link)
            && let Some(rep) = &mut state.rep
        {
            rep.handle_unsent(attempt);
            state.link.handle_unsent(now, attempt);
        }
    }

    /// A worker of the JSON dialect replied, with that frame in front if it had one.
    ///
    /// # Errors
    /// What is wrong with it: a job of which nobody can say how it ended has failed all the same.
    pub fn handle_link_reply(
        &mut self,
        now: Timestamp,
        link: u64,
        tag: Option<&[u8]>,
        body: &[u8],
    ) -> Result<(), BadMessage> {
        let state = self.links.get_mut(link).ok_or(BadMessage::Unasked)?;
        let replied =
            state.rep.as_mut().and_then(|rep| rep.handle_reply(now, self.timing.beat, tag, body));
        let Replied { message, is_garbage } = replied.ok_or(BadMessage::Unasked)?;
        // Of all that its link hears, only this is the worker's own word.
        state.handle_answer();
        let (key, incarnation) = (state.link.key(), state.link.incarnation());
        self.peers.handle_answer(now, key, incarnation);
        self.outbox.touch(&key.service);
        state.link.handle_message(now, message);
        if is_garbage { Err(BadMessage::Json) } else { Ok(()) }
    }

    /// A message of so many bytes went to a worker, or came from one.
    pub fn count_message(&mut self, bytes: usize) {
        self.statistics.messages += 1;
        self.statistics.bytes += bytes as u64;
    }

    /// This process was suspended for so long.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.links.iter_mut().for_each(|state| state.link.handle_suspension(now, gap));
        self.outbox.handle_suspension(now, gap);
    }

    /// Sends no more: what waits is refused, what is under way is unknown.
    pub fn stop(&mut self, now: Timestamp) {
        self.outbox.stop(now);
        self.links.iter_mut().for_each(|state| state.link.stop());
        self.settle();
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<SenderOutput> {
        if self.outputs.is_empty() {
            self.advance(now);
        }
        self.outputs.pop_front()
    }

    /// Services whose jobs have waited here for a while, and how many do.
    pub fn waiting(&self, now: Timestamp) -> BTreeMap<Name, u32> {
        self.outbox.waiting(now)
    }

    /// When [`Sender::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let links = earliest(self.links.poll_timeout(), self.asks.poll_timeout());
        earliest(links, earliest(self.outbox.poll_timeout(), self.peers.poll_timeout()))
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.peers.handle_timeout(now);
        self.links.handle_timeout(now, |service| self.outbox.touch(service));
        while let Some(lane) = self.asks.poll_due(now) {
            self.ask_another(now, &lane);
        }
        self.advance(now);
        // Policies that are measured beside promises are measured by one look, not by two at one moment.
        if self.identity.takes_credits {
            self.look_once_more(now);
        }
        let (peers, links, host) = (&self.peers, RefCell::new(&mut self.links), self.host);
        let no_room = if self.identity.takes_credits { Reason::NoCredit } else { Reason::Full };
        self.outbox.handle_timeout(
            now,
            |lane| standing::standing(peers, &links.borrow(), host, lane, no_room),
            |attempt, link| {
                let mut links = links.borrow_mut();
                links.get_mut(link).is_some_and(|state| state.link.withdraw(attempt))
            },
        );
        if self.sweep_at <= now {
            self.sweep_at = now + self.timing.beat;
            self.links.forget_ended(&self.peers);
        }
        if self.trouble_at <= now {
            self.look_for_trouble(now);
        }
    }

    /// Lets everything that is known take its effect, until nothing changes any more.
    fn advance(&mut self, now: Timestamp) {
        if self.peers.has_output() || self.links.are_touched() || self.outbox.has_news() {
            self.take_effect(now);
        }
    }

    fn take_effect(&mut self, now: Timestamp) {
        loop {
            self.drain_peers(now);
            while let Some((number, output)) = self.links.poll_output() {
                self.handle_link_output(now, number, output);
            }
            match self.outbox.next_dirty() {
                Some(lane) => self.dispatch(now, lane),
                None => break,
            }
        }
        self.outbox.plan();
        self.settle();
    }

    fn drain_peers(&mut self, now: Timestamp) {
        while let Some(output) = self.peers.poll_output() {
            match output {
                PeersOutput::Subscribe(service) => {
                    self.outputs.push_back(SenderOutput::Subscribe(service));
                }
                PeersOutput::Unsubscribe(service) => {
                    self.outputs.push_back(SenderOutput::Unsubscribe(service));
                }
                PeersOutput::Sync { mapper, service } => {
                    self.outputs.push_back(SenderOutput::Sync { mapper, service });
                }
                PeersOutput::Silent { mapper } => {
                    self.outputs.push_back(SenderOutput::Silent { mapper });
                }
                PeersOutput::Ended { key, incarnation } => {
                    for number in self.links.until(&key, incarnation) {
                        if let Some(state) = self.links.get_mut(number) {
                            state.link.handle_ended(now);
                        }
                    }
                }
            }
        }
    }

    fn settle(&mut self) {
        while let Some((job, text)) = self.outbox.poll_progress() {
            self.outputs.push_back(SenderOutput::Progress { job, text });
        }
        while let Some((job, outcome)) = self.outbox.poll_settled() {
            self.statistics.count(&outcome);
            if self.observe {
                let settled = Observation::Settled(job);
                self.outputs.push_back(SenderOutput::Observed(settled));
            }
            self.outputs.push_back(SenderOutput::Settled { job, outcome });
        }
    }
}

#[cfg(test)]
mod credit_tests;
#[cfg(test)]
mod guess_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod placement_tests;
#[cfg(test)]
mod progress_tests;
#[cfg(test)]
mod services_tests;
#[cfg(test)]
mod unable_tests;
#[cfg(test)]
mod waiting_tests;
