//! What a sender that starts now does with its first job: the very type that senders run, told what the
//! mappers have told. Pure: nothing is dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::control::{Entry, ServiceStanding, SnapshotPart};
use svcmap_proto::jobs::{FromWorker, SenderHello, ToWorker};
use svcmap_proto::limits;
use svcmap_proto::names::{HostId, InstanceKey, Name, SenderId};
use svcmap_proto::time::Timestamp;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::pure::{JobSpec, Sender, SenderOutput};
use svcmap_worker::{JobId, Observation};

use crate::control::Listing;

/// When a trial begins: long after all that is known.
const START: Timestamp = Timestamp::from_micros(1 << 50);

/// A trial lasts so long: shorter than a beat, after which workers are missed that nobody plays here.
const HORIZON: Duration = Duration::from_millis(900);

/// Most deadlines of a sender that are met in one trial.
const DEADLINES_MAX: usize = 1000;

/// What the job carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// JSON, which every worker takes.
    Json,
    /// Other bytes.
    Bytes,
}

impl Payload {
    fn bytes(self) -> Bytes {
        Bytes::from_static(match self {
            Payload::Json => b"{}",
            Payload::Bytes => b"\xff",
        })
    }
}

/// What is known where the sender starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial<'a> {
    /// For which service the job is.
    pub(super) service: &'a Name,
    /// What each mapper has told.
    pub(super) listings: &'a [Listing],
    /// The newest of that: so a worker answers that is turned to.
    pub(super) newest: &'a BTreeMap<InstanceKey, Entry>,
    /// Which machine the sender is on.
    pub(super) host: HostId,
    /// What its chance begins with.
    pub(super) seed: u64,
    /// Whom nobody reaches from there.
    pub(super) unreachable: &'a BTreeSet<Name>,
}

/// The sender turns to an instance: it asks for a slot there, or sends the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// To which one.
    pub(super) instance: Name,
    /// How long after its start.
    pub(super) after: Duration,
}

impl Trial<'_> {
    /// To whom the sender turns, one after the other, until it comes to somebody who `takes` the job.
    /// It knows only those that are `known`.
    pub(super) fn turns(
        &self,
        payload: Payload,
        known: impl Fn(&Name) -> bool,
        takes: impl Fn(&Name) -> bool,
    ) -> Vec<Turn> {
        let mut sender = self.sender();
        let job = JobSpec::new(self.service.clone(), payload.bytes());
        sender.handle_submit(START, JobId(0), job);
        self.tell(&mut sender, known);
        let (mut now, mut turns) = (START, Vec::new());
        for _ in 0..DEADLINES_MAX {
            self.follow(&mut sender, now, &mut turns);
            if turns.iter().any(|turn: &Turn| takes(&turn.instance)) {
                break;
            }
            match sender.poll_timeout() {
                Some(at) if at <= START + HORIZON => now = at.max(now),
                _ => break,
            }
            sender.handle_timeout(now);
        }
        turns
    }

    /// A sender as programs start them, which has heard of nobody.
    fn sender(&self) -> Sender {
        let config = OutboxConfig::default();
        let (id, choice) = (SenderId(self.seed.into()), config.policy.choice());
        let mut sender = Sender::new(id, self.host, self.listings.len(), config, choice, self.seed);
        sender.observe();
        sender
    }

    /// The mappers greet, and tell of those.
    fn tell(&self, sender: &mut Sender, known: impl Fn(&Name) -> bool) {
        for (mapper, listing) in self.listings.iter().enumerate() {
            let Some(welcome) = &listing.welcome else { continue };
            sender.handle_welcome(START, mapper, welcome);
            let entries = listing.of(self.service).filter(|entry| known(&entry.instance));
            let part = SnapshotPart {
                epoch: welcome.epoch,
                revision: 1,
                warming: welcome.warming,
                standing: ServiceStanding::Heard,
                part: 0,
                parts: 1,
                entries: entries.cloned().collect::<Vec<Entry>>(),
            };
            sender.handle_snapshot(START, mapper, self.service, &part);
        }
    }

    /// Notes to whom the sender turns now. Who can be reached is connected and greets at once, and promises
    /// nothing.
    fn follow(&self, sender: &mut Sender, now: Timestamp, turns: &mut Vec<Turn>) {
        while let Some(output) = sender.poll_output(now) {
            let key: InstanceKey = match output {
                SenderOutput::Connect { link, .. } => {
                    let Some(key) = sender.link_key(link).cloned() else { continue };
                    if !self.unreachable.contains(&key.instance) {
                        sender.handle_link_writable(now, link);
                    }
                    key
                }
                SenderOutput::Send { link, message: ToWorker::Hello(hello) } => {
                    if let Some(welcome) = self.welcome(&hello) {
                        sender.handle_link_message(now, link, welcome);
                    }
                    continue;
                }
                SenderOutput::Observed(Observation::Chosen { key, .. }) => key,
                _ => continue,
            };
            if turns.iter().all(|turn| turn.instance != key.instance) {
                turns.push(Turn { instance: key.instance, after: now.since(START) });
            }
        }
    }

    /// How a worker greets that is as the mappers say.
    fn welcome(&self, hello: &SenderHello) -> Option<FromWorker> {
        let load = self.newest.get(&hello.key)?.load;
        let payload_bytes_max = u32::try_from(limits::PAYLOAD_BYTES_DEFAULT).unwrap_or(u32::MAX);
        let (connection, received_jobs, forgotten) = (hello.connection, 0, Vec::new());
        Some(FromWorker::Welcome { connection, received_jobs, payload_bytes_max, load, forgotten })
    }
}
