//! From a lane's waiting jobs to links: whom a job may go to, and why it finds nobody.

use std::sync::Arc;

use svcmap_proto::jobs::{Claim, Reason};
use svcmap_proto::load::State;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::placement::{Placed, Unplaced};
use super::standing::wanted;
use super::{Sender, SenderOutput};
use crate::link::Attempt;
use crate::observation::Observation;
use crate::outbox::{Assigned, JobId, Lane, LaneId, Next};

/// So many jobs that wait for others than who could not start them are passed over in a lane: what
/// makes several wait makes more wait.
const PASSED_MAX: usize = 8;

/// What becomes of a job that looks for a worker.
enum Fate {
    /// It has one, or its outcome.
    Gone,
    Waits,
    /// It waits for others than those that could not start it: these may take what is behind it.
    WaitsForOthers,
}

impl Sender {
    /// Gives the jobs of a lane to workers, as long as one has room.
    pub(super) fn dispatch(&mut self, now: Timestamp, lane_id: LaneId) {
        let Some(lane) = self.outbox.lane(lane_id).cloned() else { return };
        if self.outbox.depth(lane_id) == 0 && self.asks.len(&lane) == 0 {
            return;
        }
        let instances = self.instances(&lane);
        self.send_waiting(now, (&lane, lane_id), &instances);
        if self.identity.takes_credits {
            self.tell_shares(now, &lane);
            self.ask(now, &lane, &instances);
        }
        self.given.clear();
    }

    /// Sends the jobs of a lane to where they are placed, until one is not. Those that wait for others
    /// than who could not start them hold up nobody.
    fn send_waiting(
        &mut self,
        now: Timestamp,
        (lane, lane_id): (&Lane, LaneId),
        instances: &[InstanceKey],
    ) {
        let (placement, situation) = self.placing(now);
        placement.begin(&situation, lane, instances);
        let mut passed = 0;
        while let Some(next) = self.outbox.next_after(lane_id, passed) {
            match self.try_to_send(now, lane, &next, instances) {
                Fate::Gone => {}
                Fate::WaitsForOthers if passed < PASSED_MAX => passed += 1,
                Fate::WaitsForOthers | Fate::Waits => return,
            }
        }
    }

    /// Jobs that wait for promises and will be held no longer: each is looked at once more, wherever it
    /// stands in its lane.
    pub(super) fn look_once_more(&mut self, now: Timestamp) {
        for (lane_id, next) in self.outbox.held_no_longer(now) {
            let Some(lane) = self.outbox.lane(lane_id).cloned() else { continue };
            let instances = self.instances(&lane);
            let (placement, situation) = self.placing(now);
            placement.begin(&situation, &lane, &instances);
            self.try_to_send(now, &lane, &next, &instances);
            self.tell_shares(now, &lane);
            self.given.clear();
        }
    }

    /// Sends a job to where it is placed, or refuses it if that can be nowhere.
    fn try_to_send(
        &mut self,
        now: Timestamp,
        lane: &Lane,
        next: &Next,
        instances: &[InstanceKey],
    ) -> Fate {
        let others = self.others(now, next, instances);
        let is_narrowed = others.is_some();
        let (placement, mut situation) = self.placing(now);
        let narrowed = others.as_deref().unwrap_or(instances);
        let job = Unplaced { lane, next, instances: narrowed, is_narrowed };
        if let Some(placed) = placement.place(&mut situation, &job) {
            return if self.send(now, next.id, placed) { Fate::Gone } else { Fate::Waits };
        }
        match self.hopeless(lane, next, instances) {
            Some(reason) => self.outbox.refuse(now, next.id, reason),
            None if is_narrowed => return Fate::WaitsForOthers,
            None => return Fate::Waits,
        }
        Fate::Gone
    }

    /// Why a job that found nobody will find nobody as long as these are all.
    fn hopeless(&self, lane: &Lane, next: &Next, instances: &[InstanceKey]) -> Option<Reason> {
        match () {
            () if self.is_misdirected(lane, next.id) => Some(Reason::NotJson),
            () if self.is_too_large(next, instances) => Some(Reason::TooLarge),
            () => None,
        }
    }

    /// Whether each worker has said that it does not take payloads as large as that job's.
    fn is_too_large(&self, next: &Next, instances: &[InstanceKey]) -> bool {
        let bytes = next.payload_bytes;
        let takes = |key: &InstanceKey| {
            let member = self.peers.member(key);
            let number = member.and_then(|member| self.links.number(key, member.life));
            number.and_then(|number| self.links.get(number)).is_none_or(|s| s.link.takes(bytes))
        };
        !instances.is_empty() && !instances.iter().any(takes)
    }

    /// The instances that a lane's jobs may go to.
    pub(super) fn instances(&mut self, lane: &Lane) -> Arc<[InstanceKey]> {
        let (peers, sender, most) = (&self.peers, self.identity.sender, self.active_peers_max);
        let state = self.services.get_mut(&lane.service);
        let all = state.subset.instances(peers, &lane.service, sender, most);
        match &lane.instance {
            None => all,
            Some(instance) => {
                let (service, instance) = (lane.service.clone(), instance.clone());
                Arc::new([InstanceKey { service, instance }])
            }
        }
    }

    /// The instances that a job is to go to, if these are not all: those that could not start it are left
    /// out as long as another one may take it.
    fn others(
        &mut self,
        now: Timestamp,
        next: &Next,
        instances: &[InstanceKey],
    ) -> Option<Vec<InstanceKey>> {
        if !next.met_unable {
            return None;
        }
        let unable = self.outbox.unable(next.id);
        let others = instances.iter().filter(|key| !unable.contains(&key.instance));
        let others: Vec<_> = others.cloned().collect();
        let mut known = self.situation(now).known;
        let mut may_take = |key| {
            let candidate = known.taker(key, next);
            candidate.is_some_and(|known| known.load.is_none_or(|l| l.state == State::Ready))
        };
        others.iter().any(&mut may_take).then_some(others)
    }

    /// A waiting job goes to a worker. `false` if that cannot be reached after all.
    pub(super) fn send(&mut self, now: Timestamp, id: JobId, placed: Placed<'_>) -> bool {
        let Placed { key, number, age, claim, claimed_until } = placed;
        let is_open = |number: &u64| self.links.get(*number).is_some_and(|s| !s.link.is_closed());
        let number = number.filter(is_open).or_else(|| self.link(now, &key));
        let Some(number) = number else { return false };
        let Some(assigned) = self.outbox.assign(id, number) else { return false };
        let Assigned { attempt, deadline, run_limit, submitted_at, redirects_left, .. } = assigned;
        let Assigned { payload_bytes, metadata_bytes, detachment, priority, .. } = assigned;
        let redirects_left = if self.identity.takes_credits { redirects_left } else { 0 };
        if matches!(claim, Claim::Offer(_)) {
            self.outbox.handle_passed_on(attempt);
        }
        self.given.push((number, payload_bytes));
        if let Some(state) = self.links.get_mut(number) {
            let attempt = Attempt {
                id: attempt,
                deadline,
                run_limit,
                payload_bytes,
                metadata_bytes,
                claim,
                claimed_until,
                redirects_left,
                submitted_at,
                detachment,
                priority,
            };
            state.link.assign(now, attempt);
        }
        if self.observe {
            let chosen = Observation::Chosen { attempt, key: key.into_owned(), age };
            self.outputs.push_back(SenderOutput::Observed(chosen));
        }
        true
    }

    /// Whether only workers serve a lane that can make nothing of that job.
    fn is_misdirected(&self, lane: &Lane, id: JobId) -> bool {
        let mut wanted = wanted(&self.peers, lane).peekable();
        wanted.peek().is_some()
            && wanted.all(|(_, member)| member.load.share.is_some())
            && !self.outbox.is_json(id)
    }

    /// Whom a link leads to.
    pub fn link_key(&self, link: u64) -> Option<&InstanceKey> {
        self.links.get(link).map(|state| state.link.key())
    }

    /// The link to an instance; opened if it is not.
    pub(super) fn link(&mut self, now: Timestamp, key: &InstanceKey) -> Option<u64> {
        let member = self.peers.member(key)?;
        let (number, connect) = self.links.open(now, key, member, self.identity, self.timing);
        if connect {
            let endpoint = self.links.get_mut(number)?.dial(member, self.host)?;
            let key = member.key;
            self.outputs.push_back(SenderOutput::Connect { link: number, endpoint, key });
        }
        Some(number)
    }
}
