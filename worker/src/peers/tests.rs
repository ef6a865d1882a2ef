mod gone;

use proptest::prelude::*;
use svcmap_proto::control::{Change, ChangesPart, Entry, ServiceStanding};
use svcmap_proto::names::HostId;

use super::*;
use crate::testing::*;

const BEAT: Duration = ms(1000);
const EXPIRY: Duration = ms(3000);
const FIRST: Epoch = Epoch(1);

fn service() -> Name {
    name("resize")
}

fn entry(instance: &str, incarnation: u64, sequence: u64) -> Entry {
    Entry {
        instance: name(instance),
        incarnation: Incarnation(incarnation),
        endpoints: vec!["tcp://10.0.0.1:1".parse().unwrap()],
        host: HostId(1),
        pid: 1,
        error: None,
        key: None,
        load: Load { sequence, slots: 4, ..Load::default() },
        age_ms: 0,
    }
}

fn snapshot(epoch: Epoch, revision: u64, entries: Vec<Entry>) -> SnapshotPart {
    SnapshotPart {
        epoch,
        revision,
        warming: false,
        standing: ServiceStanding::Heard,
        part: 0,
        parts: 1,
        entries,
    }
}

fn changes(epoch: Epoch, previous: u64, changes: Vec<Change>) -> Publication {
    let revision = previous + 1;
    Publication::Changes(ChangesPart { epoch, previous, revision, part: 0, parts: 1, changes })
}

/// A cache that follows the service and that so many mappers have welcomed.
fn peers(mappers: usize) -> Peers {
    let mut peers = Peers::new(mappers, 7);
    peers.follow(at(0), &service());
    for mapper in 0..mappers {
        peers.handle_welcome(at(0), mapper, FIRST, (BEAT, EXPIRY));
    }
    outputs(&mut peers);
    peers
}

fn outputs(peers: &mut Peers) -> Vec<PeersOutput> {
    std::iter::from_fn(|| peers.poll_output()).collect()
}

/// Who is a member: instance, life, and load sequence.
fn members(peers: &Peers) -> Vec<(String, u64, u64)> {
    peers
        .members(&service())
        .map(|(name, member)| (name.to_string(), member.incarnation.0, member.load.sequence))
        .collect()
}

fn listed(instances: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    instances.iter().map(|(name, life, load)| ((*name).to_owned(), *life, *load)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Load(u8),
    Leave(u8),
    Expire(u8),
    /// What changed is published in so many parts, of which these arrive, each once or twice.
    Changes(usize, Vec<u8>),
    /// The whole state is.
    Snapshot(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let arrivals = || prop::collection::vec(prop_oneof![1 => Just(0u8), 12 => 1u8..3], 4);
    prop_oneof![
        3 => (0u8..6).prop_map(Step::Join),
        4 => (0u8..6).prop_map(Step::Load),
        2 => (0u8..6).prop_map(Step::Leave),
        1 => (0u8..6).prop_map(Step::Expire),
        4 => (1usize..4, arrivals()).prop_map(|(parts, times)| Step::Changes(parts, times)),
        2 => (1usize..4, arrivals()).prop_map(|(parts, times)| Step::Snapshot(parts, times)),
    ]
}

/// What a mapper holds and publishes of one service.
#[derive(Default)]
struct Model {
    listed: BTreeMap<String, Entry>,
    changed: BTreeMap<String, Change>,
    /// The last (life, sequence) of everybody that ever was.
    lives: BTreeMap<String, (u64, u64)>,
    revision: u64,
}

impl Model {
    fn put(&mut self, instance: String, life: u64, sequence: u64) {
        let put = entry(&instance, life, sequence);
        self.lives.insert(instance.clone(), (life, sequence));
        self.changed.insert(instance.clone(), Change::Put(put.clone()));
        self.listed.insert(instance, put);
    }

    fn change(&mut self, step: &Step) {
        match step {
            Step::Join(number) => {
                let instance = format!("i-{number}");
                if !self.listed.contains_key(&instance) {
                    let life = self.lives.get(&instance).map_or(1, |(life, _)| life + 1);
                    self.put(instance, life, 1);
                }
            }
            Step::Load(number) => {
                let instance = format!("i-{number}");
                if self.listed.contains_key(&instance) {
                    let (life, sequence) = self.lives[&instance];
                    self.put(instance, life, sequence + 1);
                }
            }
            Step::Leave(number) | Step::Expire(number) => {
                let instance = format!("i-{number}");
                if let Some(gone) = self.listed.remove(&instance) {
                    let (instance, incarnation) = (gone.instance, gone.incarnation);
                    let change = match step {
                        Step::Leave(_) => Change::Left { instance, incarnation },
                        _ => Change::Expired { instance, incarnation },
                    };
                    self.changed.insert(format!("i-{number}"), change);
                }
            }
            Step::Changes(..) | Step::Snapshot(..) => {}
        }
    }

    fn members(&self) -> Vec<(String, u64, u64)> {
        let listed = self.listed.iter();
        listed.map(|(name, e)| (name.clone(), e.incarnation.0, e.load.sequence)).collect()
    }
}

/// Deals items into parts, some of which may be empty.
fn deal<T: Clone>(items: &[T], parts: usize) -> Vec<Vec<T>> {
    let size = items.len().div_ceil(parts).max(1);
    let mut dealt: Vec<Vec<T>> = items.chunks(size).map(<[T]>::to_vec).collect();
    dealt.resize(parts, Vec::new());
    dealt
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn changes_folded_are_the_snapshot_and_a_gap_lasts_until_the_next(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut peers = peers(1);
        let mut model = Model::default();
        // Whether everything since a whole snapshot arrived.
        let mut in_step = false;
        for step in steps {
            model.change(&step);
            let mut publish = |publication, times: u8| {
                for _ in 0..times {
                    peers.handle_publication(at(1), 0, &service(), &publication);
                }
            };
            match step {
                Step::Changes(parts, times) => {
                    let changes: Vec<_> = std::mem::take(&mut model.changed).into_values().collect();
                    let (epoch, previous) = (FIRST, model.revision);
                    model.revision += 1;
                    let revision = model.revision;
                    let dealt = deal(&changes, parts);
                    for (part, changes) in dealt.into_iter().enumerate() {
                        let times = times[part];
                        in_step &= times == 1 || (times > 1 && parts == 1);
                        let (part, parts) = (part as u16, parts as u16);
                        let part =
                            ChangesPart { epoch, previous, revision, part, parts, changes };
                        publish(Publication::Changes(part), times);
                    }
                }
                Step::Snapshot(parts, times) => {
                    if !model.changed.is_empty() {
                        // A mapper counts these before it tells its state; they got lost.
                        model.changed.clear();
                        model.revision += 1;
                        in_step = false;
                    }
                    let entries: Vec<_> = model.listed.values().cloned().collect();
                    let whole = times.iter().take(parts).all(|times| *times == 1)
                        || (parts == 1 && times[0] > 1);
                    let (epoch, revision, warming) = (FIRST, model.revision, false);
                    for (part, entries) in deal(&entries, parts).into_iter().enumerate() {
                        let times = times[part];
                        let (part, parts) = (part as u16, parts as u16);
                        let part =
                            SnapshotPart { epoch, revision, warming, standing: ServiceStanding::Heard, part, parts, entries };
                        publish(Publication::Snapshot(part), times);
                    }
                    in_step |= whole;
                }
                _ => continue,
            }
            if in_step {
                prop_assert_eq!(members(&peers), model.members());
            }
        }
    }
}

#[test]
fn parts_of_one_revision_that_was_dealt_in_two_ways_do_not_fit_together() {
    let mut peers = peers(1);
    let part = |part, parts, instances: &[&str]| SnapshotPart {
        part,
        parts,
        ..snapshot(FIRST, 7, instances.iter().map(|instance| entry(instance, 1, 1)).collect())
    };
    let all = listed(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
    for part in [
        part(0, 1, &["a", "b", "c"]),
        // Of the second telling, all but the first part got lost; of the third, just the first.
        part(0, 3, &["a"]),
        part(1, 2, &["c"]),
    ] {
        peers.handle_publication(at(1), 0, &service(), &Publication::Snapshot(part));
        assert_eq!(members(&peers), all);
    }
}

#[test]
fn after_a_gap_nothing_is_believed_until_the_next_snapshot() {
    let mut peers = peers(1);
    let put = |instance, sequence| vec![Change::Put(entry(instance, 1, sequence))];
    let publish = |peers: &mut Peers, publication| {
        peers.handle_publication(at(1), 0, &service(), &publication);
    };
    publish(&mut peers, Publication::Snapshot(snapshot(FIRST, 7, vec![entry("a", 1, 1)])));
    // What led from 7 to 8 got lost.
    publish(&mut peers, changes(FIRST, 8, put("b", 1)));
    publish(&mut peers, changes(FIRST, 9, put("c", 1)));
    assert_eq!(members(&peers), listed(&[("a", 1, 1)]));
    assert_eq!(peers.knowledge(&service()), Knowledge::None);
    let all = ["a", "b", "c", "d"].map(|instance| entry(instance, 1, 1));
    publish(&mut peers, Publication::Snapshot(snapshot(FIRST, 10, all.to_vec())));
    assert_eq!(members(&peers).len(), 4);
    assert_eq!(peers.knowledge(&service()), Knowledge::Complete);
    publish(&mut peers, changes(FIRST, 10, put("d", 2)));
    assert_eq!(members(&peers)[3], ("d".to_owned(), 1, 2));
}

#[test]
fn a_new_life_of_the_mapper_empties_nothing() {
    let mut peers = peers(1);
    let all = snapshot(FIRST, 7, vec![entry("a", 1, 1), entry("b", 1, 1)]);
    peers.handle_snapshot(at(1), 0, &service(), &all);
    assert_eq!(peers.knowledge(&service()), Knowledge::Complete);
    let next = Epoch(2);
    peers.handle_welcome(at(2), 0, next, (BEAT, EXPIRY));
    assert_eq!(peers.knowledge(&service()), Knowledge::None);
    let warming = SnapshotPart { warming: true, ..snapshot(next, 1, vec![entry("b", 1, 2)]) };
    peers.handle_snapshot(at(3), 0, &service(), &warming);
    assert_eq!(members(&peers), listed(&[("a", 1, 1), ("b", 1, 2)]));
    // Words of the former life come late, and mean nothing.
    let late = changes(
        FIRST,
        7,
        vec![Change::Expired { instance: name("b"), incarnation: Incarnation(1) }],
    );
    peers.handle_publication(at(4), 0, &service(), &late);
    assert_eq!(members(&peers).len(), 2);
    // Once it knows everybody, who is not there is gone.
    peers.handle_snapshot(at(5), 0, &service(), &snapshot(next, 2, vec![entry("b", 1, 2)]));
    assert_eq!(members(&peers), listed(&[("b", 1, 2)]));
}

#[test]
fn a_new_life_of_the_mapper_waits_for_those_who_report_seldom() {
    let mut peers = peers(1);
    let mut json = entry("j", 1, 1);
    json.load.share = svcmap_proto::load::Share::new(0.5);
    let all = snapshot(FIRST, 7, vec![entry("a", 1, 1), json]);
    peers.handle_snapshot(at(1), 0, &service(), &all);
    let next = Epoch(2);
    peers.handle_welcome(at(100_000), 0, next, (BEAT, EXPIRY));
    for (revision, now, members_now) in [(1, 105_000, 1), (2, 129_999, 1), (3, 130_000, 0)] {
        peers.handle_snapshot(at(now), 0, &service(), &snapshot(next, revision, Vec::new()));
        assert_eq!(members(&peers).len(), members_now, "at {now}");
    }
}

#[test]
fn who_left_stays_away_whatever_another_mapper_says() {
    let mut peers = peers(2);
    for mapper in 0..2 {
        let all = snapshot(FIRST, 1, vec![entry("a", 5, 1)]);
        peers.handle_snapshot(at(1), mapper, &service(), &all);
    }
    let left = Change::Left { instance: name("a"), incarnation: Incarnation(5) };
    peers.handle_publication(at(2), 0, &service(), &changes(FIRST, 1, vec![left]));
    assert_eq!(members(&peers), []);
    let ended = PeersOutput::Ended {
        key: InstanceKey { service: service(), instance: name("a") },
        incarnation: Incarnation(5),
    };
    assert_eq!(outputs(&mut peers), [ended]);
    peers.handle_snapshot(at(3), 1, &service(), &snapshot(FIRST, 2, vec![entry("a", 5, 900)]));
    assert_eq!(members(&peers), []);
    // Its next life is another matter.
    peers.handle_snapshot(at(4), 1, &service(), &snapshot(FIRST, 3, vec![entry("a", 6, 1)]));
    assert_eq!(members(&peers), listed(&[("a", 6, 1)]));
}

/// A cache of so many members, which misses something at that time. When it asks about that.
fn asks_at(peers: &mut Peers, members: u64, missed_at: Timestamp) -> Timestamp {
    let entries = (0..members).map(|i| entry(&format!("i-{i}"), 1, 1)).collect();
    let all = Publication::Snapshot(snapshot(FIRST, missed_at.as_micros(), entries));
    peers.handle_publication(missed_at, 0, &service(), &all);
    assert_eq!((outputs(peers), peers.poll_timeout()), (vec![], None));
    let next = changes(FIRST, missed_at.as_micros() + 1, Vec::new());
    peers.handle_publication(missed_at, 0, &service(), &next);
    let asks_at = peers.poll_timeout().unwrap();
    peers.handle_timeout(asks_at);
    assert_eq!(outputs(peers), [PeersOutput::Sync { mapper: 0, service: service() }]);
    asks_at
}

#[test]
fn who_missed_something_asks_soon_but_not_all_together_nor_all_the_time() {
    let mut all = Vec::new();
    for seed in 0..100 {
        let mut peers = Peers::new(1, seed);
        peers.follow(at(0), &service());
        peers.handle_welcome(at(0), 0, FIRST, (BEAT, EXPIRY));
        outputs(&mut peers);
        let first = asks_at(&mut peers, 3, at(500));
        all.push(first.since(at(500)));
        // No answer: again, but after a beat.
        assert_eq!(peers.poll_timeout(), Some(first + BEAT));
        assert_eq!(asks_at(&mut peers, 3, first), first + ms(100), "missed something again");
        let many = asks_at(&mut peers, 1000, at(2000));
        assert_eq!(asks_at(&mut peers, 1000, many), many + ms(200), "that takes longer to tell");
    }
    all.sort();
    assert!(all[10] < ms(10) && all[90] > ms(40) && all[99] < ms(50), "{all:?}");
}

#[test]
fn the_answer_closes_a_gap() {
    let mut peers = peers(1);
    let asked_at = asks_at(&mut peers, 3, at(500));
    assert_eq!(peers.knowledge(&service()), Knowledge::None);
    let revision = asked_at.as_micros();
    let answer = snapshot(FIRST, revision, vec![entry("a", 5, 2)]);
    peers.handle_snapshot(asked_at, 0, &service(), &answer);
    assert_eq!((members(&peers), peers.poll_timeout()), (listed(&[("a", 5, 2)]), None));
    let put = vec![Change::Put(entry("b", 5, 1))];
    peers.handle_publication(asked_at, 0, &service(), &changes(FIRST, revision, put));
    assert_eq!(members(&peers), listed(&[("a", 5, 2), ("b", 5, 1)]));
}

#[test]
fn who_is_expired_at_one_mapper_is_still_listed_by_the_other() {
    let mut peers = peers(2);
    for mapper in 0..2 {
        let all = snapshot(FIRST, 1, vec![entry("a", 5, 1)]);
        peers.handle_snapshot(at(1), mapper, &service(), &all);
    }
    let expired = || Change::Expired { instance: name("a"), incarnation: Incarnation(5) };
    peers.handle_publication(at(2), 0, &service(), &changes(FIRST, 1, vec![expired()]));
    assert_eq!(members(&peers), listed(&[("a", 5, 1)]));
    peers.handle_publication(at(3), 1, &service(), &changes(FIRST, 1, vec![expired()]));
    assert_eq!(members(&peers), []);
}

#[test]
fn who_answers_is_not_dropped_because_a_mapper_expired_it() {
    let mut peers = peers(1);
    peers.handle_snapshot(at(1), 0, &service(), &snapshot(FIRST, 1, vec![entry("a", 5, 1)]));
    let key = InstanceKey { service: service(), instance: name("a") };
    let load = Load { sequence: 2, ..Load::default() };
    assert!(peers.handle_load(at(100), &key, Incarnation(5), &load));
    let expired = Change::Expired { instance: name("a"), incarnation: Incarnation(5) };
    peers.handle_publication(at(200), 0, &service(), &changes(FIRST, 1, vec![expired]));
    assert_eq!(members(&peers), listed(&[("a", 5, 2)]));
    // Until it is silent, too.
    let until = at(100) + EXPIRY;
    assert_eq!(peers.poll_timeout(), Some(until));
    peers.handle_timeout(until);
    assert_eq!(members(&peers), []);
}

#[test]
fn the_newest_load_wins_in_whatever_order_it_comes() {
    let mut peers = peers(1);
    peers.handle_snapshot(at(1), 0, &service(), &snapshot(FIRST, 1, vec![entry("a", 5, 10)]));
    let key = InstanceKey { service: service(), instance: name("a") };
    let load = |sequence, queued| Load { sequence, queued, ..Load::default() };
    assert!(peers.handle_load(at(2), &key, Incarnation(5), &load(12, 3)));
    let older = Change::Load {
        instance: name("a"),
        incarnation: Incarnation(5),
        load: load(11, 9),
        age_ms: 0,
    };
    peers.handle_publication(at(3), 0, &service(), &changes(FIRST, 1, vec![older]));
    assert!(!peers.handle_load(at(4), &key, Incarnation(4), &load(99, 1)), "a former life");
    assert_eq!(peers.member(&key).unwrap().load.queued, 3);
}

#[test]
fn a_mapper_whose_publications_do_not_come_is_asked_each_beat() {
    let mut peers = peers(1);
    let sync = PeersOutput::Sync { mapper: 0, service: service() };
    for beat in 1..=4 {
        let due = at(0) + BEAT * beat;
        assert_eq!(peers.poll_timeout(), Some(due));
        peers.handle_timeout(due);
        let silent = (beat == 3).then_some(PeersOutput::Silent { mapper: 0 });
        let wanted: Vec<_> = silent.into_iter().chain([sync.clone()]).collect();
        assert_eq!(outputs(&mut peers), wanted, "it is said once that nothing comes, not at once");
        let all = snapshot(FIRST, u64::from(beat), vec![entry("a", 1, 1)]);
        peers.handle_snapshot(due, 0, &service(), &all);
    }
    let published = Publication::Snapshot(snapshot(FIRST, 9, Vec::new()));
    peers.handle_publication(at(4000), 0, &service(), &published);
    assert_eq!(peers.poll_timeout(), None);
}

#[test]
fn a_mapper_whose_publications_cease_is_asked_each_beat_until_they_are_back() {
    let mut peers = peers(2);
    let all = |revision| Publication::Snapshot(snapshot(FIRST, revision, vec![entry("a", 1, 1)]));
    for mapper in [0, 1] {
        peers.handle_publication(at(1000), mapper, &service(), &all(1));
    }
    assert_eq!(peers.poll_timeout(), None);
    assert_eq!(peers.told_at(&service()), Some(at(1000)));
    // The other one still publishes.
    peers.handle_silence(1);
    let sync = PeersOutput::Sync { mapper: 1, service: service() };
    for beat in 0..4 {
        peers.handle_timeout(at(4000) + BEAT * beat);
        // It is said once, however often the subscription is made again.
        let silent = (beat == 2).then_some(PeersOutput::Silent { mapper: 1 });
        let wanted: Vec<_> = silent.into_iter().chain([sync.clone()]).collect();
        assert_eq!(outputs(&mut peers), wanted);
        peers.handle_silence(1);
        assert_eq!(peers.poll_timeout(), Some(at(4000) + BEAT * (beat + 1)));
    }
    peers.handle_snapshot(at(9001), 1, &service(), &snapshot(FIRST, 2, vec![entry("a", 1, 2)]));
    assert_eq!(members(&peers), listed(&[("a", 1, 2)]));
    assert_eq!(peers.told_at(&service()), Some(at(9001)));
    peers.handle_publication(at(9500), 1, &service(), &all(3));
    assert_eq!(peers.poll_timeout(), None);
}

#[test]
fn another_key_takes_the_place_of_an_instance_only_once_no_mapper_lists_that() {
    let key = |number| Some(svcmap_proto::keys::PublicKey([number; 32]));
    let keyed = |life, number| Entry { key: key(number), ..entry("a", life, 1) };
    let mut peers = peers(2);
    let told = |peers: &mut Peers, mapper, revision, entries| {
        let part = snapshot(FIRST, revision, entries);
        peers.handle_publication(at(1), mapper, &service(), &Publication::Snapshot(part));
    };
    let of = InstanceKey { service: service(), instance: "a".parse().unwrap() };
    told(&mut peers, 0, 1, vec![keyed(5, 1)]);
    // The other one does not know it, and somebody else has taken its name there.
    for life in [5, 9] {
        told(&mut peers, 1, life, vec![keyed(life, 2)]);
        let member = peers.member(&of).unwrap();
        assert_eq!((member.key, member.incarnation), (key(1), Incarnation(5)));
    }
    told(&mut peers, 0, 2, vec![keyed(9, 2)]);
    assert_eq!(peers.member(&of).unwrap().key, key(2));
}
