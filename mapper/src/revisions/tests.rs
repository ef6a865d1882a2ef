use super::*;

const BEAT: Duration = Duration::from_secs(1);
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn revisions() -> Revisions {
    Revisions::new(BEAT, PUBLISH_INTERVAL)
}

impl Revisions {
    /// Service `s` has one instance more or less, or the same number as before.
    fn note(&mut self, now_ms: u64, instance: &str, happened: Happened, urgent: bool) {
        let instances = usize::from(matches!(happened, Happened::Put | Happened::Load));
        let instance = name(instance);
        self.handle_change(ms(now_ms), &name("s"), &instance, happened, instances, urgent);
    }

    /// What is due at the next time at which anything is: `(when, what)`, with `C` for changes
    /// and `S` for a snapshot, and the revision.
    fn step(&mut self) -> (u64, Vec<(char, u64)>) {
        let at = self.poll_timeout().unwrap();
        let mut all = Vec::new();
        while let Some(due) = self.poll_due(at) {
            all.push(match due {
                Due::Snapshot { revision, .. } => ('S', revision),
                Due::Changes { revision, .. } => ('C', revision),
            });
        }
        (at.as_micros() / 1000, all)
    }
}

#[test]
fn a_new_topic_starts_with_changes_and_a_snapshot_of_the_same_revision() {
    let mut revisions = revisions();
    revisions.note(1000, "a", Happened::Put, true);
    assert_eq!(revisions.revision(&name("s")), 1);
    assert_eq!(revisions.step(), (1005, vec![('C', 2), ('S', 2)]));
    assert_eq!(revisions.step(), (2005, vec![('S', 2)]));
}

#[test]
fn ordinary_changes_wait_for_the_publish_interval_and_crossings_do_not() {
    let mut revisions = revisions();
    revisions.note(0, "a", Happened::Put, true);
    assert_eq!(revisions.step().0, 5);
    revisions.note(20, "a", Happened::Load, false);
    assert_eq!(revisions.step(), (105, vec![('C', 3)]));
    revisions.note(110, "a", Happened::Load, false);
    revisions.note(120, "a", Happened::Load, true);
    revisions.note(121, "b", Happened::Put, true);
    assert_eq!(revisions.step(), (125, vec![('C', 4)]));
    revisions.note(700, "a", Happened::Load, false);
    assert_eq!(revisions.step(), (705, vec![('C', 5)]), "a quiet topic has nothing to wait for");
}

#[test]
fn what_happens_to_one_instance_is_told_once() {
    let mut revisions = revisions();
    revisions.note(0, "a", Happened::Put, true);
    revisions.note(0, "a", Happened::Load, true);
    revisions.note(0, "b", Happened::Load, true);
    revisions.note(0, "b", Happened::Left(Incarnation(7)), true);
    let Some(Due::Changes { previous, revision, changes, .. }) = revisions.poll_due(ms(5)) else {
        unreachable!("no changes");
    };
    assert_eq!((previous, revision), (1, 2));
    let left = Happened::Left(Incarnation(7));
    assert_eq!(changes, BTreeMap::from([(name("a"), Happened::Put), (name("b"), left)]));
}

#[test]
fn a_snapshot_never_overtakes_changes() {
    let mut revisions = revisions();
    revisions.note(0, "a", Happened::Put, true);
    revisions.step();
    revisions.note(950, "a", Happened::Load, false);
    assert_eq!(revisions.step(), (955, vec![('C', 3)]));
    // Regularly due at 1055, but the snapshot comes at 1005.
    revisions.note(960, "a", Happened::Load, false);
    assert_eq!(revisions.step(), (1005, vec![('C', 4), ('S', 4)]));
}

#[test]
fn large_topics_send_fewer_snapshots() {
    let mut revisions = revisions();
    revisions.handle_change(ms(0), &name("s"), &name("a"), Happened::Put, LARGE + 1, true);
    assert_eq!(revisions.step().0, 5);
    assert_eq!(revisions.step(), (5005, vec![('S', 2)]));
}

#[test]
fn after_a_pause_there_is_one_snapshot_and_not_all_that_were_missed() {
    let mut revisions = revisions();
    revisions.note(0, "a", Happened::Put, true);
    revisions.step();
    assert!(matches!(revisions.poll_due(ms(60_000)), Some(Due::Snapshot { .. })));
    assert_eq!(revisions.poll_due(ms(60_000)), None);
    assert_eq!(revisions.poll_timeout(), Some(ms(61_000)));
}

#[test]
fn an_empty_topic_goes_on_for_a_minute() {
    let mut revisions = revisions();
    revisions.note(0, "a", Happened::Put, true);
    revisions.step();
    revisions.note(500, "a", Happened::Expired(Incarnation(1)), true);
    assert_eq!(revisions.step(), (505, vec![('C', 3)]));
    let mut last = 0;
    while revisions.contains(&name("s")) {
        let (at, due) = revisions.step();
        assert_eq!(due, [('S', 3)], "the last word as well");
        last = at;
    }
    assert_eq!(last, 61_005);
    assert_eq!(revisions.poll_timeout(), None);
    // The name comes back at a revision of its own.
    revisions.note(70_000, "a", Happened::Put, true);
    assert_eq!(revisions.step().1, [('C', 4), ('S', 4)]);
}

#[test]
fn too_many_waiting_changes_are_told_at_once() {
    let mut revisions = revisions();
    for i in 0..WAITING_MAX {
        revisions.note(0, &format!("i{i}"), Happened::Put, false);
    }
    assert_eq!(revisions.poll_timeout(), Some(ms(0)));
}

#[test]
fn revisions_are_one_counter_for_all_topics() {
    let mut revisions = revisions();
    for service in ["s", "t"] {
        revisions.handle_change(ms(0), &name(service), &name("a"), Happened::Put, 1, true);
    }
    while revisions.poll_due(ms(5)).is_some() {}
    assert_eq!((revisions.revision(&name("s")), revisions.revision(&name("t"))), (2, 3));
    assert_eq!(revisions.revision(&name("unknown")), 3);
    assert_eq!(revisions.services(Some(&name("s"))).collect::<Vec<_>>(), [&name("t")]);
}
