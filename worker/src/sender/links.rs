//! A sender's links, one for each life of an instance that it uses, and when an unreachable one is
//! tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, Name};
use svcmap_proto::time::{Timestamp, earliest};

use super::subset::usable_endpoints;
use crate::link::{Closing, Identity, Link, LinkOutput, Timing};
use crate::peers::{Member, Peers};
use crate::rep::RepWorker;

/// A worker that could not be reached is left alone for this long, doubling with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest that an unreachable worker is left alone.
const RETRY_MAX: Duration = Duration::from_secs(16);

/// A link, and what the sender knows about reaching its worker.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) link: Link,
    /// Its worker, if that speaks the JSON dialect.
    pub(super) rep: Option<RepWorker>,
    /// Which of the worker's endpoints comes next.
    endpoint: usize,
    /// The one that was dialled last.
    dialled: Option<Endpoint>,
    /// How often in a row it could not be reached, or had no room for this sender.
    failures: u32,
    /// The last time it was reached, and had none.
    is_full: bool,
    retry_at: Option<Timestamp>,
    /// The sequence of the load that the link's count of unreflected jobs refers to.
    load_sequence: u64,
    /// The deadline that [`Links`] waits for.
    planned_at: Option<Timestamp>,
    /// Whether [`Links`] is to look at it.
    is_touched: bool,
    /// Whether [`Links`] knows it to have credits.
    is_credited: bool,
}

impl LinkState {
    fn new(link: Link, rep: Option<RepWorker>) -> Self {
        let (endpoint, dialled, failures, retry_at) = (0, None, 0, None);
        Self {
            link,
            rep,
            endpoint,
            dialled,
            failures,
            is_full: false,
            retry_at,
            load_sequence: 0,
            planned_at: None,
            is_touched: false,
            is_credited: false,
        }
    }

    /// Puts it among the `touched`, unless it is there.
    fn touch(&mut self, number: u64, touched: &mut Vec<u64>) {
        if !std::mem::replace(&mut self.is_touched, true) {
            touched.push(number);
        }
    }

    /// When the link has a deadline, or its unreachable worker may be tried again.
    fn poll_timeout(&self) -> Option<Timestamp> {
        let retry_at = self.retry_at.filter(|_| self.link.is_closed());
        let full_until = self.rep.as_ref().and_then(RepWorker::full_until);
        earliest(self.link.poll_timeout(), earliest(retry_at, full_until))
    }

    /// The worker answered.
    pub(super) fn handle_answer(&mut self) {
        self.failures = 0;
    }

    /// It told of its load, which counts the jobs up to that number.
    pub(super) fn handle_answered_load(&mut self, load_sequence: u64, received_jobs: u64) {
        self.load_sequence = load_sequence;
        self.link.reflect(received_jobs);
    }

    /// The link closed: an unreachable worker is tried at its next address, in a while, and one that
    /// has no room for this sender where it is. Returns how often in a row that has happened, and
    /// where, if it is time to say so: seldomer and seldomer.
    pub(super) fn handle_closed(
        &mut self,
        now: Timestamp,
        closing: Closing,
    ) -> Option<(u32, Endpoint)> {
        if matches!(closing, Closing::Idle | Closing::Gone) {
            return None;
        }
        let wait = RETRY_FIRST * 2u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.is_full = closing == Closing::TurnedAway;
        self.endpoint += usize::from(!self.is_full);
        self.retry_at = Some(now + wait.min(RETRY_MAX));
        // A lost connection comes back, or its worker is soon known to be gone.
        let is_news = closing != Closing::Lost && self.failures.is_power_of_two();
        Some((self.failures, self.dialled.clone()?)).filter(|_| is_news)
    }

    /// Acts on the link's deadlines. Returns whether its worker may be tried again from now on.
    fn handle_timeout(&mut self, now: Timestamp) -> bool {
        self.link.handle_timeout(now);
        let has_room = self.rep.as_mut().is_some_and(|rep| rep.handle_timeout(now));
        self.retry_at.take_if(|at| *at <= now).is_some() || has_room
    }

    /// Where to connect to now.
    pub(super) fn dial(&mut self, member: &Member, host: HostId) -> Option<Endpoint> {
        let usable = usable_endpoints(member, host);
        let endpoint = usable.get(self.endpoint % usable.len().max(1))?;
        self.dialled = Some((*endpoint).clone());
        self.dialled.clone()
    }

    /// How many jobs its load does not count yet, and how many there are in all; `None` if it
    /// cannot be used now.
    fn jobs(&mut self, member: &Member) -> Option<(u32, u32)> {
        if self.retry_at.is_some() || self.link.is_closing() || self.link.is_draining() {
            return None;
        }
        if member.load.sequence > self.load_sequence {
            self.load_sequence = member.load.sequence;
            self.link.reflect_until(member.load_at);
        }
        let mut accepted = 0;
        if let Some(rep) = &mut self.rep {
            rep.handle_load(&member.load);
            // One that has not replied to as many takes no other, whatever a policy thinks.
            if rep.full_until().is_some() || self.link.open() >= rep.load().open_max() {
                return None;
            }
            accepted = rep.accepted();
        }
        let usable = self.link.is_closed() || self.link.is_usable();
        usable.then(|| (self.link.unreflected().saturating_add(accepted), self.link.open()))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_number: BTreeMap<u64, LinkState>,
    by_peer: BTreeMap<InstanceKey, BTreeMap<Incarnation, u64>>,
    next: u64,
    /// Links that may have something to say, or another deadline; each once.
    touched: Vec<u64>,
    /// The deadlines of all links that were not touched since.
    by_deadline: BTreeSet<(Timestamp, u64)>,
    /// The links that have credits, by service, and some that had.
    credited: BTreeMap<Name, BTreeSet<u64>>,
}

impl Links {
    /// The link of that number.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut LinkState> {
        let state = self.by_number.get_mut(&number)?;
        state.touch(number, &mut self.touched);
        Some(state)
    }

    /// The same, to look at.
    pub(super) fn get(&self, number: u64) -> Option<&LinkState> {
        self.by_number.get(&number)
    }

    /// Every link.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut LinkState> {
        let touched = &mut self.touched;
        self.by_number.iter_mut().map(|(number, state)| {
            state.touch(*number, touched);
            state
        })
    }

    /// Whether a link may want something done.
    pub(super) fn are_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What a link wants done next, and its number; ask until there is nothing.
    pub(super) fn poll_output(&mut self) -> Option<(u64, LinkOutput)> {
        while let Some(&number) = self.touched.last() {
            if let Some(state) = self.by_number.get_mut(&number) {
                if let Some(output) = state.link.poll_output() {
                    return Some((number, output));
                }
                state.is_touched = false;
                let has_credits = state.link.has_credits();
                if state.is_credited != has_credits {
                    state.is_credited = has_credits;
                    let service = &state.link.key().service;
                    let credited = match self.credited.get_mut(service) {
                        Some(credited) => credited,
                        None => self.credited.entry(service.clone()).or_default(),
                    };
                    match has_credits {
                        true => credited.insert(number),
                        false => credited.remove(&number),
                    };
                }
                let deadline = state.poll_timeout();
                if state.planned_at != deadline {
                    let planned_at = std::mem::replace(&mut state.planned_at, deadline);
                    planned_at.map(|at| self.by_deadline.remove(&(at, number)));
                    deadline.map(|at| self.by_deadline.insert((at, number)));
                }
            }
            self.touched.pop();
        }
        None
    }

    /// The links to that life of that instance and to all earlier ones.
    pub(super) fn until(&mut self, key: &InstanceKey, incarnation: Incarnation) -> Vec<u64> {
        let lives = self.by_peer.get(key).into_iter().flat_map(|lives| lives.range(..=incarnation));
        lives.map(|(_, number)| *number).collect()
    }

    /// Members of a service may have other addresses than before: nothing new goes to one that its
    /// member has no more.
    pub(super) fn leave_former_addresses(&mut self, peers: &Peers, service: &Name) {
        for (name, member) in peers.members(service) {
            let key = InstanceKey { service: service.clone(), instance: name.clone() };
            let number = self.number(&key, member.life);
            let Some(state) = number.and_then(|number| self.get_mut(number)) else { continue };
            if state.dialled.as_ref().is_some_and(|at| !member.endpoints.contains(at)) {
                state.link.handle_moved();
            }
        }
    }

    /// The link to an instance, as it is listed. The flag says whether it is to be connected: it is
    /// new, or was closed.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        member: &Member,
        identity: Identity,
        timing: Timing,
    ) -> (u64, bool) {
        if let Some(number) = self.number(key, member.life)
            && let Some(state) = self.get_mut(number)
        {
            let closed = state.link.is_closed();
            state.link.reopen(now);
            return (number, closed);
        }
        let number = self.next;
        self.next += 1;
        let link = Link::new(now, identity, key.clone(), member.life, timing);
        let mut state = LinkState::new(link, RepWorker::new(member.load));
        state.touch(number, &mut self.touched);
        self.by_number.insert(number, state);
        self.by_peer.entry(key.clone()).or_default().insert(member.life, number);
        (number, true)
    }

    /// How many jobs the load of a member does not count yet, and how many of this sender there are in
    /// all; `None` if it cannot be used now, or takes no payload of so many bytes. The link of that number
    /// leads to it, if there is one.
    pub(super) fn jobs(
        &mut self,
        number: Option<u64>,
        member: &Member,
        bytes: usize,
        host: HostId,
    ) -> Option<(u32, u32)> {
        match number.and_then(|number| self.by_number.get_mut(&number)) {
            Some(state) if !state.link.takes(bytes) => None,
            Some(state) => state.jobs(member),
            None if usable_endpoints(member, host).is_empty() => None,
            None => Some((0, 0)),
        }
    }

    /// Whether a member could not be reached when that was last tried, or has no address for others.
    pub(super) fn is_unreachable(
        &self,
        service: &Name,
        instance: &Name,
        member: &Member,
        host: HostId,
    ) -> bool {
        let key = InstanceKey { service: service.clone(), instance: instance.clone() };
        match self.number(&key, member.life).and_then(|number| self.by_number.get(&number)) {
            Some(state) => state.failures > 0 && !state.is_full,
            None => usable_endpoints(member, host).is_empty(),
        }
    }

    /// The links of a service that have credits.
    pub(super) fn credited(&self, service: &Name) -> impl Iterator<Item = (u64, &LinkState)> {
        let numbers = self.credited.get(service).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, self.by_number.get(number)?)))
    }

    /// The same, from a random one on.
    pub(super) fn credited_from(
        &self,
        service: &Name,
        random: &mut fastrand::Rng,
    ) -> impl Iterator<Item = (u64, &LinkState)> {
        let credited = self.credited.get(service);
        let ends = credited.and_then(|credited| Some((*credited.first()?, *credited.last()?)));
        let start = ends.map_or(0, |(first, last)| random.u64(first..=last));
        let ranges = credited.map(|all| all.range(start..).chain(all.range(..start)));
        let numbers = ranges.into_iter().flatten();
        numbers.filter_map(|number| Some((*number, self.by_number.get(number)?)))
    }

    /// The next deadline of a link.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let touched = self.touched.iter().filter_map(|number| self.by_number.get(number));
        let first = self.by_deadline.first().map(|(at, _)| *at);
        earliest(first, touched.filter_map(LinkState::poll_timeout).min())
    }

    /// Acts on every deadline that has passed. Tells the services of workers that may be tried again
    /// from now on.
    pub(super) fn handle_timeout(&mut self, now: Timestamp, mut tell: impl FnMut(&Name)) {
        let is_due = self.by_deadline.first().is_some_and(|(at, _)| *at <= now);
        if !is_due && self.touched.is_empty() {
            return;
        }
        let due = self.by_deadline.range(..=(now, u64::MAX)).map(|(_, number)| *number);
        let due: Vec<u64> = due.chain(self.touched.iter().copied()).collect();
        for number in due {
            if let Some(state) = self.get_mut(number)
                && state.handle_timeout(now)
            {
                tell(&state.link.key().service);
            }
        }
    }

    /// Forgets closed links to lives that are over.
    pub(super) fn forget_ended(&mut self, peers: &Peers) {
        let (by_number, by_deadline) = (&mut self.by_number, &mut self.by_deadline);
        let credited = &mut self.credited;
        self.by_peer.retain(|key, lives| {
            lives.retain(|incarnation, number| {
                let is_open = by_number.get(number).is_some_and(|s| !s.link.is_closed());
                let keep = peers.is_member(key, *incarnation) || is_open;
                if !keep && let Some(state) = by_number.remove(number) {
                    state.planned_at.map(|at| by_deadline.remove(&(at, *number)));
                    credited.get_mut(&key.service).map(|credited| credited.remove(number));
                }
                keep
            });
            !lives.is_empty()
        });
    }

    pub(super) fn number(&self, key: &InstanceKey, incarnation: Incarnation) -> Option<u64> {
        self.by_peer.get(key)?.get(&incarnation).copied()
    }
}
