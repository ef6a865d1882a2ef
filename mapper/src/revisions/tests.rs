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
    Revisions::new(BEAT, Some(PUBLISH_INTERVAL))
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
        while let Some(due) = self.poll_due(at, |_| None) {
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
    let Some(Due::Changes { previous, revision, changes, .. }) =
        revisions.poll_due(ms(5), |_| None)
    else {
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
    assert!(matches!(revisions.poll_due(ms(60_000), |_| None), Some(Due::Snapshot { .. })));
    assert_eq!(revisions.poll_due(ms(60_000), |_| None), None);
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
    while revisions.poll_due(ms(5), |_| None).is_some() {}
    assert_eq!((revisions.revision(&name("s")), revisions.revision(&name("t"))), (2, 3));
    assert_eq!(revisions.revision(&name("unknown")), 3);
    assert_eq!(revisions.services(Some(&name("s"))).collect::<Vec<_>>(), [&name("t")]);
}

/// The interval of a topic of so many instances with that mean service time.
fn interval(beat: Duration, mean_us: Option<u64>, instances: usize) -> Duration {
    let mut revisions = Revisions::new(beat, None);
    let mut note = |now, happened, urgent| {
        revisions.handle_change(now, &name("s"), &name("a"), happened, instances, urgent);
        while revisions.poll_due(now + COALESCE, |_| mean_us.map(Duration::from_micros)).is_some() {
        }
        revisions.poll_timeout().unwrap()
    };
    note(ms(1000), Happened::Put, true);
    let due_at = note(ms(1001), Happened::Load, false);
    due_at.since(ms(1000) + COALESCE)
}

#[test]
fn ordinary_changes_follow_the_mean_service_time() {
    let minute = Duration::from_secs(60);
    let of = Duration::from_millis;
    assert_eq!(interval(minute, Some(40_000), 3), of(40));
    assert_eq!(interval(minute, Some(100), 3), PUBLISH_MIN);
    assert_eq!(interval(minute, Some(3_600_000_000), 3), PUBLISH_MAX);
    assert_eq!(interval(minute, None, 3), PUBLISH_UNKNOWN);
    assert_eq!(interval(of(20), Some(40_000), 3), of(20), "a beat, at most");
    // 10,000 changes of 64 bytes take 2.4 s.
    assert_eq!(interval(minute, Some(100), 10_000), of(2440));
}

#[test]
fn urgent_news_of_a_busy_topic_is_paced_and_a_burst_is_not() {
    let interval = Duration::from_secs(1);
    let mut revisions = Revisions::new(60 * BEAT, Some(interval));
    // Something crosses each millisecond; when that is told, from when on.
    let mut published = |from_ms: u64, times: usize| {
        let mut published = Vec::new();
        for now_ms in from_ms.. {
            revisions.note(now_ms, "a", Happened::Load, true);
            while let Some(due) = revisions.poll_due(ms(now_ms), |_| None) {
                if matches!(due, Due::Changes { .. }) {
                    published.push(now_ms - from_ms);
                }
            }
            if published.len() > times {
                break;
            }
        }
        published
    };
    let burst = |published: &[u64]| published.windows(2).filter(|w| w[1] - w[0] <= 6).count();
    let first = published(10_000, 100);
    assert_eq!(first[0], 5);
    assert!((32..42).contains(&burst(&first)), "{first:?}");
    let last = first[99] - first[68];
    assert!((950..=1050).contains(&last), "then 32 a second: {last}");
    // Peace for an interval, and all is as before.
    let second = published(10_000 + first[100] + 1100, 100);
    assert_eq!(burst(&second), burst(&first));
}

#[test]
fn a_large_topic_takes_a_quarter_of_a_megabyte_each_second() {
    let instances = 1000;
    let mut revisions = Revisions::new(BEAT, None);
    let mut told = 0;
    // All cross every 10 ms, one after the other, for ten seconds.
    for now_ms in 1000..11_000 {
        for i in (0..instances).filter(|i| i % 10 == now_ms as usize % 10) {
            let instance = name(&format!("i{i}"));
            let now = ms(now_ms);
            revisions.handle_change(now, &name("s"), &instance, Happened::Load, instances, true);
        }
        while let Some(due) = revisions.poll_due(ms(now_ms), |_| Some(ms(10).since(ms(0)))) {
            if let Due::Changes { changes, .. } = due {
                told += changes.len();
            }
        }
    }
    let rate = told * 64 / 10;
    assert!((200_000..320_000).contains(&rate), "{rate} bytes/s");
}
