//! The registry under random sequences of messages and waiting, against a naive map, and against
//! caches that follow what it publishes.

use proptest::prelude::*;
use svcmap_proto::control::{Change, Entry, Registration, SnapshotPart, topic_service};
use svcmap_proto::load::Load;
use svcmap_proto::names::HostId;

use super::*;

const UNIX_US: u64 = 1_700_000_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    Register {
        who: usize,
        incarnation: u64,
        port: u16,
        load: u64,
    },
    Report {
        who: usize,
        incarnation: u64,
        load: u64,
        queued: u32,
    },
    Leave {
        who: usize,
        incarnation: u64,
    },
    /// A newcomer starts to follow.
    Sync {
        service: usize,
    },
    /// A cache that follows misses the next publication.
    Lose {
        cache: usize,
    },
    Wait {
        ms: u64,
    },
    /// The mapper does not run for a while.
    Sleep {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, incarnation, load) = (0..6_usize, 1..5_u64, 0..6_u64);
    prop_oneof![
        3 => (who.clone(), incarnation.clone(), 1..3_u16, load.clone()).prop_map(
            |(who, incarnation, port, load)| Step::Register { who, incarnation, port, load }
        ),
        8 => (who.clone(), incarnation.clone(), load, 0..9_u32).prop_map(
            |(who, incarnation, load, queued)| Step::Report { who, incarnation, load, queued }
        ),
        2 => (who, incarnation).prop_map(|(who, incarnation)| Step::Leave { who, incarnation }),
        2 => (0..2_usize).prop_map(|service| Step::Sync { service }),
        1 => any::<usize>().prop_map(|cache| Step::Lose { cache }),
        6 => prop_oneof![8 => 0..200_u64, 4 => 0..2000_u64, 1 => 50_000..70_000_u64]
            .prop_map(|ms| Step::Wait { ms }),
        1 => (1001..20_000_u64).prop_map(|ms| Step::Sleep { ms }),
    ]
}

fn key(who: usize) -> InstanceKey {
    InstanceKey {
        service: ["s", "t"][who % 2].parse().unwrap(),
        instance: ["a", "b", "c"][who / 2].parse().unwrap(),
    }
}

/// What a mapper is meant to know, written down as plainly as possible.
#[derive(Default)]
struct Model {
    listed: BTreeMap<InstanceKey, Listed>,
    left: BTreeMap<InstanceKey, (u64, Timestamp)>,
}

#[derive(Clone, Copy)]
struct Listed {
    incarnation: u64,
    heard_at: Timestamp,
    ends_at: Timestamp,
    extended: bool,
}

impl Model {
    fn heard(&mut self, now: Timestamp, key: InstanceKey, incarnation: u64) {
        let ends_at = now + Config::default().expiry();
        self.listed.insert(key, Listed { incarnation, heard_at: now, ends_at, extended: false });
    }

    fn incarnation(&self, key: &InstanceKey) -> Option<u64> {
        self.listed.get(key).map(|listed| listed.incarnation)
    }

    fn left(&self, now: Timestamp, key: &InstanceKey) -> Option<u64> {
        let recent = |(_, at): &&(u64, Timestamp)| now.since(*at) < Duration::from_secs(600);
        self.left.get(key).filter(recent).map(|(incarnation, _)| *incarnation)
    }

    fn handle_step(&mut self, now: Timestamp, step: &Step) {
        match *step {
            Step::Register { who, incarnation, .. } => {
                let key = key(who);
                if self.incarnation(&key).is_none_or(|listed| listed <= incarnation)
                    && self.left(now, &key).is_none_or(|left| left < incarnation)
                {
                    self.heard(now, key, incarnation);
                }
            }
            Step::Report { who, incarnation, .. }
                if self.incarnation(&key(who)) == Some(incarnation) =>
            {
                self.heard(now, key(who), incarnation);
            }
            Step::Leave { who, incarnation } => {
                let key = key(who);
                let news = match self.incarnation(&key) {
                    Some(listed) => listed == incarnation,
                    None => self.left(now, &key) < Some(incarnation),
                };
                if news {
                    self.listed.remove(&key);
                    self.left.insert(key, (incarnation, now));
                }
            }
            _ => {}
        }
    }

    fn handle_suspension(&mut self, gap: Duration) {
        for listed in self.listed.values_mut().filter(|listed| !listed.extended) {
            listed.ends_at = listed.ends_at + gap;
            listed.extended = true;
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.listed.retain(|_, listed| listed.ends_at > now);
    }
}

/// A cache that follows one service: it believes what it can prove, and is stale otherwise.
struct Cache {
    service: Name,
    revision: u64,
    stale: bool,
    loses_next: bool,
    entries: BTreeMap<Name, Entry>,
}

/// An entry without its age, which goes on by itself.
fn ageless(entries: impl IntoIterator<Item = Entry>) -> BTreeMap<Name, Entry> {
    let entries = entries.into_iter().map(|entry| Entry { age_ms: 0, ..entry });
    entries.map(|entry| (entry.instance.clone(), entry)).collect()
}

impl Cache {
    fn new(service: &Name, snapshot: SnapshotPart) -> Self {
        Self {
            service: service.clone(),
            revision: snapshot.revision,
            stale: false,
            loses_next: false,
            entries: ageless(snapshot.entries),
        }
    }

    fn handle_publication(&mut self, message: &Publication) {
        if std::mem::take(&mut self.loses_next) {
            return;
        }
        match message.clone() {
            Publication::Snapshot(part) => {
                assert!(part.revision >= self.revision, "the revision went back");
                let entries = ageless(part.entries);
                if !self.stale && part.revision == self.revision {
                    // The heart of it: changes folded = snapshot at the same revision.
                    assert_eq!(self.entries, entries);
                }
                (self.revision, self.stale, self.entries) = (part.revision, false, entries);
            }
            Publication::Changes(part) if part.revision <= self.revision => {
                unreachable!("told again: {part:?}");
            }
            Publication::Changes(part) => {
                self.stale |= part.previous != self.revision;
                if !self.stale {
                    self.revision = part.revision;
                    part.changes.into_iter().for_each(|change| self.apply(change));
                }
            }
            Publication::Pulse { .. } => {}
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(entry) => self.entries.extend(ageless([entry])),
            Change::Load { instance, incarnation, load, .. } => {
                let entry = self.entries.get_mut(&instance).expect("known before its load");
                assert_eq!(entry.incarnation, incarnation);
                entry.load = load;
            }
            Change::Left { instance, .. } | Change::Expired { instance, .. } => {
                self.entries.remove(&instance);
            }
        }
    }
}

/// A registry, its model, and those who follow it, on one virtual clock.
struct Scene {
    now: Timestamp,
    registry: Registry,
    model: Model,
    asked: u64,
    caches: Vec<Cache>,
    revision: u64,
}

impl Scene {
    fn new() -> Self {
        let now = Timestamp::from_micros(1_000_000);
        Self {
            now,
            registry: Registry::new(Config::default(), super::tests::identity(), now),
            model: Model::default(),
            asked: 0,
            caches: Vec::new(),
            revision: 0,
        }
    }

    fn handle_step(&mut self, step: Step) {
        self.model.handle_step(self.now, &step);
        match step {
            Step::Register { who, incarnation, port, load } => {
                self.say(ToMapper::Register(Registration {
                    key: key(who),
                    incarnation: Incarnation(incarnation),
                    endpoints: vec![Endpoint::tcp("h", port).unwrap()],
                    host: HostId(1),
                    pid: 1,
                    error: None,
                    load: Load { sequence: load, slots: 8, ..Load::default() },
                }));
            }
            Step::Report { who, incarnation, load, queued } => {
                let load = Load { sequence: load, queued, slots: 8, ..Load::default() };
                let incarnation = Incarnation(incarnation);
                self.say(ToMapper::Report { key: key(who), incarnation, load });
            }
            Step::Leave { who, incarnation } => {
                self.say(ToMapper::Leave { key: key(who), incarnation: Incarnation(incarnation) });
            }
            Step::Sync { service } => {
                let service = key(service).service;
                let snapshot = self.sync(&service);
                self.caches.push(Cache::new(&service, snapshot));
            }
            Step::Lose { cache } => {
                let count = self.caches.len();
                if let Some(cache) = self.caches.get_mut(cache % count.max(1)) {
                    cache.loses_next = true;
                }
            }
            Step::Wait { ms } => self.wait(Duration::from_millis(ms)),
            Step::Sleep { ms } => {
                let gap = Duration::from_millis(ms);
                self.now = self.now + gap;
                self.registry.handle_suspension(self.now, gap);
                self.model.handle_suspension(gap);
                self.turn();
            }
        }
        self.compare();
    }

    fn say(&mut self, message: ToMapper) {
        let from = Connection::new(b"w");
        self.registry.handle_message(self.now, UNIX_US, &from, "", message);
        self.listen();
    }

    fn sync(&mut self, service: &Name) -> SnapshotPart {
        let message = ToMapper::Sync { service: service.clone() };
        // A cache of its own for each question: one that asks again at once is not answered.
        self.asked += 1;
        let from = Connection::new(&self.asked.to_be_bytes());
        self.registry.handle_message(self.now, UNIX_US, &from, "", message);
        match self.registry.drain().last().and_then(Output::answer) {
            Some(FromMapper::Snapshot { part, .. }) => part,
            other => unreachable!("{other:?}"),
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.registry.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
    }

    fn turn(&mut self) {
        self.registry.handle_timeout(self.now);
        self.listen();
        self.model.handle_timeout(self.now);
        assert!(self.registry.poll_timeout().is_some_and(|at| at > self.now), "a busy loop");
    }

    fn listen(&mut self) {
        for output in self.registry.drain() {
            match output {
                Output::Event(Event::Expired { key, .. }) => {
                    let heard_at = self.model.listed[&key].heard_at;
                    let silence = self.now.since(heard_at);
                    assert!(silence >= Config::default().expiry(), "expired after {silence:?}");
                }
                Output::Publish { ref topic, .. } => {
                    let Some(message) = output.publication() else { continue };
                    if let Publication::Changes(part) = &message {
                        assert!(part.previous < part.revision && part.revision > self.revision);
                        self.revision = part.revision;
                    }
                    let service = topic_service(topic);
                    let caches = self.caches.iter_mut();
                    caches
                        .filter(|cache| service.as_ref() == Some(&cache.service))
                        .for_each(|cache| cache.handle_publication(&message));
                }
                _ => {}
            }
        }
    }

    /// Whether each cache has what a newcomer would be given now.
    fn agrees(&mut self) -> bool {
        [0, 1].map(|who| key(who).service).iter().all(|service| {
            let snapshot = self.sync(service);
            let entries = ageless(snapshot.entries);
            let known = self.registry.revisions.contains(service);
            let mut caches = self.caches.iter().filter(|cache| cache.service == *service);
            caches.all(|cache| {
                // A forgotten topic is not published any more, and was empty. Who saw a gap before and
                // missed the last word asks, as after every gap.
                let newest = cache.revision == snapshot.revision || !known;
                let asks = cache.stale && !known;
                asks || (newest && !cache.stale && cache.entries == entries)
            })
        })
    }

    fn compare(&self) {
        let mut listed: Vec<_> = self
            .registry
            .services
            .iter()
            .map(|i| (i.registration.key.clone(), i.registration.incarnation.0))
            .collect();
        listed.sort();
        let model: Vec<_> =
            self.model.listed.iter().map(|(key, i)| (key.clone(), i.incarnation)).collect();
        assert_eq!(listed, model);
        assert_eq!(self.registry.services.len(), listed.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_is_the_naive_map_and_caches_follow_it(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut scene = Scene::new();
        steps.into_iter().for_each(|step| scene.handle_step(step));

        // Left alone for a beat, every cache agrees with the registry, but for what is on its way.
        scene.caches.iter_mut().for_each(|cache| cache.loses_next = false);
        scene.wait(Duration::from_millis(1100));
        let agrees = |scene: &mut Scene| {
            scene.wait(Duration::from_millis(1));
            scene.agrees()
        };
        prop_assert!((0..20).any(|_| agrees(&mut scene)));
    }
}
