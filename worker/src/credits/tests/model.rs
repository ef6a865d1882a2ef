//! Whatever happens in whatever order, against a model that keeps plain lists.

use proptest::prelude::*;

use super::*;

const SENDERS: usize = 4;
const PAYLOAD_MAX: usize = 100;

#[derive(Clone, Debug)]
enum Step {
    Demand { sender: usize, share: u32, bytes: u32, pinned: bool },
    Job { sender: usize, bytes: usize, share: u32, waited: u64 },
    End { which: usize },
    Return { sender: usize },
    Void { sender: usize },
    Pass { ms: u64 },
    Suspended { ms: u64 },
    Offer,
    EndOffer { claimed: bool },
    Grant,
    Standing { sender: usize },
    TakeWaiter { bytes: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let sender = 0..SENDERS;
    let passed = prop_oneof![0u64..5, 1u64..300, 500u64..1500];
    prop_oneof![
        6 => (sender.clone(), 0u32..5, 0u32..120, any::<bool>()).prop_map(
            |(sender, share, bytes, pinned)| Step::Demand { sender, share, bytes, pinned }
        ),
        9 => (sender.clone(), 0usize..100, 0u32..3, 0u64..20)
            .prop_map(|(sender, bytes, share, waited)| Step::Job { sender, bytes, share, waited }),
        6 => (0usize..8).prop_map(|which| Step::End { which }),
        2 => sender.clone().prop_map(|sender| Step::Return { sender }),
        1 => sender.clone().prop_map(|sender| Step::Void { sender }),
        5 => passed.prop_map(|ms| Step::Pass { ms }),
        1 => (1u64..2000).prop_map(|ms| Step::Suspended { ms }),
        3 => Just(Step::Offer),
        2 => any::<bool>().prop_map(|claimed| Step::EndOffer { claimed }),
        8 => Just(Step::Grant),
        3 => sender.prop_map(|sender| Step::Standing { sender }),
        1 => (0u32..100).prop_map(|bytes| Step::TakeWaiter { bytes }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Unused {
    until: Timestamp,
    bytes: usize,
}

/// One sender, and what the worker holds for it.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// As the sender knows them, oldest first.
    known: Vec<Unused>,
    /// As the worker keeps them: longer, and never fewer.
    kept: Vec<Unused>,
    wanted: u32,
}

/// Takes the oldest that is enough.
fn take(unused: &mut Vec<Unused>, bytes: usize) -> bool {
    let oldest = unused.iter().position(|credit| credit.bytes >= bytes);
    oldest.map(|index| unused.remove(index)).is_some()
}

struct Model {
    now: Timestamp,
    mean: Duration,
    slots: u32,
    bytes_max: usize,
    credits: Credits,
    peers: Vec<Peer>,
    /// Whose job, and its size.
    jobs: Vec<(usize, usize)>,
    offer: Option<(OfferId, Timestamp)>,
}

impl Model {
    fn here(&self) -> Occupancy {
        let bytes = self.jobs.iter().map(|(_, bytes)| bytes).sum();
        Occupancy { jobs: self.jobs.len() as u32, bytes, mean_service: Some(self.mean) }
    }

    /// Half of the slots, or one that is large enough.
    fn most_wanted(&self, whose: usize, bytes: usize) -> u32 {
        let kept = &self.peers[whose].kept;
        let each = bytes.max(self.credits.slot_bytes() as usize).min(PAYLOAD_MAX);
        let of_bytes = self.bytes_max.div_ceil(2 * each.max(1)) as u32;
        match self.slots.div_ceil(2).min(of_bytes).saturating_sub(kept.len() as u32) {
            0 => u32::from(kept.iter().all(|credit| credit.bytes < bytes)),
            most => most,
        }
    }

    fn wanted(&self) -> u32 {
        self.peers.iter().map(|peer| peer.wanted).sum()
    }

    /// Every sender hears at once. Returns how many credits each got.
    fn tell(&mut self) -> Vec<u32> {
        let mut got = vec![0; SENDERS];
        for (to, grant) in told(&mut self.credits, self.now) {
            let peer = &mut self.peers[to.0 as usize];
            let (bytes, until) =
                (grant.payload_bytes_max as usize, self.now + ms(grant.lifetime_ms.into()));
            for _ in 0..grant.credits {
                peer.known.push(Unused { until, bytes });
                peer.kept.push(Unused { until: until + MARGIN, bytes });
            }
            got[to.0 as usize] += grant.credits;
        }
        got
    }

    fn admit(&mut self, whose: usize, bytes: usize) {
        let (here, promised) = (self.here(), self.credits.promised());
        if here.jobs + promised.slots < self.slots
            && here.bytes + promised.bytes + bytes <= self.bytes_max
        {
            self.jobs.push((whose, bytes));
            self.credits.handle_taken(sender(whose), 1);
        }
    }

    /// As a sender does that has one and no use for it, or is asked for it.
    fn give_back(&mut self, whose: usize) {
        let (now, peer) = (self.now, &mut self.peers[whose]);
        peer.known.retain(|credit| credit.until > now);
        if !peer.known.is_empty() {
            peer.known.remove(0);
            peer.kept.remove(0);
            self.credits.handle_return(sender(whose), Claim::Credit);
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let (now, here) = (self.now, self.here());
        match step {
            Step::Demand { sender: whose, share, bytes, pinned } => {
                let demand = Demand { share, payload_bytes: bytes, pinned, ..Demand::default() };
                self.credits.handle_demand(now, sender(whose), demand);
                self.peers[whose].wanted = share.min(self.most_wanted(whose, bytes as usize));
            }
            Step::Job { sender: whose, bytes, share, waited } => {
                let peer = &mut self.peers[whose];
                peer.known.retain(|credit| credit.until > now);
                let is_known = take(&mut peer.known, bytes);
                let is_kept = take(&mut peer.kept, bytes);
                let before = self.jobs.len();
                let claimed =
                    self.credits.claim(now, sender(whose), Claim::Credit, bytes, ms(waited));
                prop_assert_eq!(claimed, is_kept);
                prop_assert!(is_kept || !is_known, "a promise was broken");
                self.admit(whose, bytes);
                prop_assert!(
                    !claimed || self.jobs.len() > before,
                    "promised, but there is no room"
                );
                self.credits.handle_share(now, sender(whose), want(share));
                let wanted = share.saturating_sub(self.peers[whose].kept.len() as u32);
                self.peers[whose].wanted = wanted.min(self.most_wanted(whose, 0));
            }
            Step::End { which } => {
                if which < self.jobs.len() {
                    let (whose, _) = self.jobs.remove(which);
                    self.credits.handle_ended(sender(whose));
                }
            }
            Step::Return { sender: whose } => self.give_back(whose),
            Step::Void { sender: whose } => {
                self.credits.void(sender(whose));
                self.peers[whose] = Peer::default();
            }
            Step::Pass { ms: passed } => {
                self.now = now + ms(passed);
                self.credits.handle_timeout(self.now);
                let now = self.now;
                self.peers.iter_mut().for_each(|p| p.kept.retain(|credit| credit.until > now));
                self.offer.take_if(|(_, until)| *until <= now);
            }
            Step::Suspended { ms: gap } => {
                self.credits.handle_suspension(ms(gap));
                let kept = self.peers.iter_mut().flat_map(|peer| &mut peer.kept);
                kept.for_each(|credit| credit.until = credit.until + ms(gap));
                self.offer = self.offer.map(|(offer, until)| (offer, until + ms(gap)));
            }
            Step::Offer => {
                if let Some((offer, lifetime)) = self.credits.offer(now, here) {
                    prop_assert!(self.offer.is_none() && self.wanted() == 0);
                    prop_assert!(here.jobs < self.credits.concurrency);
                    self.offer = Some((offer, now + lifetime + MARGIN));
                }
            }
            Step::EndOffer { claimed } => {
                let Some((offer, _)) = self.offer.take() else { return Ok(()) };
                let (claim, bytes) = (Claim::Offer(offer), self.credits.slot_bytes() as usize);
                if claimed {
                    prop_assert!(self.credits.claim(now, sender(0), claim, bytes, Duration::ZERO));
                    let before = self.jobs.len();
                    self.admit(0, bytes);
                    prop_assert!(self.jobs.len() > before, "offered, but there is no room");
                } else {
                    self.credits.handle_return(sender(0), claim);
                }
            }
            Step::Grant => {
                self.credits.grant(now, here);
                for (whose, got) in self.tell().into_iter().enumerate() {
                    prop_assert!(got <= self.peers[whose].wanted, "more than it asked for");
                    self.peers[whose].wanted -= got;
                }
                let recalled = recalls(&mut self.credits);
                prop_assert!(recalled.len() <= self.wanted() as usize);
                for whose in recalled {
                    self.give_back(whose.0 as usize);
                }
            }
            Step::Standing { sender: whose } => {
                let is_due = self.wanted() == 0 && self.peers[whose].kept.is_empty();
                self.credits.grant_standing(now, here, sender(whose));
                let got = self.tell();
                prop_assert_eq!(got.iter().sum::<u32>(), got[whose]);
                prop_assert!(got[whose] <= u32::from(is_due));
            }
            Step::TakeWaiter { bytes } => {
                if let Some(to) = self.credits.take_waiter(bytes) {
                    let peer = &mut self.peers[to.0 as usize];
                    prop_assert!(peer.wanted > 0);
                    peer.wanted -= 1;
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (here, promised) = (self.here(), self.credits.promised());
        prop_assert!(here.jobs + promised.slots <= self.slots);
        prop_assert!(here.bytes + promised.bytes <= self.bytes_max);
        let kept = self.peers.iter().flat_map(|peer| &peer.kept);
        let (slots, bytes) = kept.fold((0, 0), |(n, bytes), credit| (n + 1, bytes + credit.bytes));
        let offered = usize::from(self.offer.is_some());
        prop_assert_eq!(promised.slots as usize, slots + offered);
        prop_assert_eq!(promised.bytes, bytes + offered * self.credits.slot_bytes() as usize);
        prop_assert_eq!(self.credits.accounts.wanted(), self.wanted());
        prop_assert_eq!(self.credits.has_offered(), self.offer.is_some());
        // Whoever acts on each deadline is not asked to act on it again.
        let due = self.credits.poll_timeout();
        let first = self.peers.iter().flat_map(|peer| &peer.kept).map(|credit| credit.until).min();
        let first = earliest(first, self.offer.map(|(_, until)| until));
        prop_assert!(first.is_none() || due.is_some_and(|due| Some(due) <= first));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn promises_are_kept_and_never_exceed_the_slots_or_the_bytes(
        concurrency in 1u32..4,
        queue in 0u32..8,
        mean in 0u64..60,
        bytes_max in PAYLOAD_MAX..600,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let config = IntakeConfig {
            payload_bytes_max: PAYLOAD_MAX,
            jobs_bytes_max: bytes_max,
            ..config(concurrency, queue)
        };
        let mut model = Model {
            now: at(0),
            mean: ms(mean),
            slots: config.slots(),
            bytes_max,
            credits: Credits::new(&config),
            peers: vec![Peer::default(); SENDERS],
            jobs: Vec::new(),
            offer: None,
        };
        for step in steps {
            model.apply(step)?;
            model.check()?;
        }
    }
}
