//! Mappers that are added, and those that are away for good.

use super::*;

const SECOND: Epoch = Epoch(2);

fn tell(peers: &mut Peers, ms: u64, mapper: usize, part: SnapshotPart) {
    let publication = Publication::Snapshot(part);
    peers.handle_publication(at(ms), mapper, &service(), &publication);
}

/// Two mappers, of which only the first lists `b`.
fn two() -> Peers {
    let mut peers = peers(1);
    peers.handle_welcome(at(0), 1, SECOND, (BEAT, EXPIRY));
    tell(&mut peers, 1, 0, snapshot(FIRST, 1, vec![entry("a", 1, 1), entry("b", 1, 1)]));
    peers
}

#[test]
fn one_more_mapper_is_believed_as_the_others_are() {
    let mut peers = peers(1);
    peers.handle_welcome(at(0), 1, SECOND, (BEAT, EXPIRY));
    let sync = PeersOutput::Sync { mapper: 1, service: service() };
    assert_eq!(outputs(&mut peers), [sync]);
    tell(&mut peers, 1, 1, snapshot(SECOND, 1, vec![entry("a", 1, 1)]));
    assert_eq!(members(&peers), listed(&[("a", 1, 1)]));
    // More than there may be is nobody.
    peers.handle_welcome(at(2), MAPPERS_MAX, Epoch(3), (BEAT, EXPIRY));
    assert_eq!(outputs(&mut peers), []);
}

#[test]
fn who_was_listed_by_a_mapper_that_is_gone_stays_until_another_knows_better() {
    let mut peers = two();
    peers.handle_gone(at(100), 0);
    assert_eq!(peers.knowledge(&service()), Knowledge::None);
    assert_eq!(members(&peers), listed(&[("a", 1, 1), ("b", 1, 1)]));
    let warming = snapshot(SECOND, 1, vec![entry("a", 1, 1)]);
    tell(&mut peers, 200, 1, SnapshotPart { warming: true, ..warming });
    assert_eq!(members(&peers).len(), 2);
    tell(&mut peers, 300, 1, snapshot(SECOND, 2, vec![entry("a", 1, 1)]));
    assert_eq!(members(&peers), listed(&[("a", 1, 1)]));
}

#[test]
fn who_answers_is_no_less_there_because_a_mapper_is_gone() {
    let mut peers = two();
    let b = InstanceKey { service: service(), instance: name("b") };
    peers.handle_gone(at(100), 0);
    peers.handle_answer(at(200), &b, Incarnation(1));
    tell(&mut peers, 300, 1, snapshot(SECOND, 1, vec![entry("a", 1, 1)]));
    assert_eq!(members(&peers).len(), 2);
    peers.handle_timeout(at(200) + EXPIRY);
    assert_eq!(members(&peers), listed(&[("a", 1, 1)]));
}

#[test]
fn who_speaks_json_has_the_time_to_register_with_another_mapper() {
    let mut peers = peers(1);
    peers.handle_welcome(at(0), 1, SECOND, (BEAT, EXPIRY));
    let mut json = entry("b", 1, 1);
    json.load.share = Some(Default::default());
    tell(&mut peers, 1, 0, snapshot(FIRST, 1, vec![json]));
    peers.handle_gone(at(100), 0);
    let lease_ms = svcmap_proto::json::LEASE.as_millis() as u64;
    for (ms, known) in [(200, 1), (lease_ms, 1), (lease_ms + 100, 0)] {
        tell(&mut peers, ms, 1, snapshot(SECOND, ms, vec![]));
        assert_eq!(members(&peers).len(), known, "after {ms} ms");
    }
}

#[test]
fn a_mapper_in_the_place_of_one_that_is_gone_is_believed() {
    let mut peers = two();
    peers.handle_gone(at(100), 0);
    peers.handle_welcome(at(200), 0, Epoch(3), (BEAT, EXPIRY));
    tell(&mut peers, 300, 1, snapshot(SECOND, 1, vec![]));
    assert_eq!(members(&peers).len(), 2, "it has not said yet whom it lists");
    tell(&mut peers, 400, 0, snapshot(Epoch(3), 1, vec![entry("b", 1, 2)]));
    assert_eq!(members(&peers), listed(&[("b", 1, 2)]));
}
