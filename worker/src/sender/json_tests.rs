//! A sender and workers of the JSON dialect.

use svcmap_proto::control::{Change, ChangesPart, Entry, ServiceStanding};
use svcmap_proto::load::{Load, Share};
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey};

use super::*;
use crate::choice::{Policy, PowerOfTwo, Random};
use crate::outcome::Cause;
use crate::outcome::Outcome;
use crate::testing::*;
use bytes::Bytes;
use svcmap_proto::jobs::ToWorker;

/// A worker as a mapper lists it: of the JSON dialect with a share, else native and idle.
fn entry(instance: &str, sequence: u64, share: Option<f64>) -> Entry {
    let load = Load { sequence, slots: 4, concurrency: 4, ..Load::default() };
    Entry {
        instance: name(instance),
        incarnation: Incarnation(5),
        endpoints: vec!["tcp://10.0.0.1:6001".parse().unwrap()],
        host: HostId(9),
        pid: 7,
        error: None,
        key: None,
        load: match share {
            Some(share) => Load { slots: 0, share: Share::new(share), ..load },
            None => load,
        },
        age_ms: 0,
    }
}

/// What became of the jobs: what was sent, and the outcomes.
#[derive(Debug, Default)]
struct Seen {
    requests: Vec<(u64, String)>,
    natives: Vec<(u64, ToWorker)>,
    outcomes: Vec<(u64, Outcome)>,
    /// Whose connections were closed.
    disconnects: Vec<u64>,
}

struct Scene(Sender);

impl Scene {
    fn new(now: Timestamp, entries: Vec<Entry>) -> Self {
        Self::with(Some(Box::new(PowerOfTwo::default())), now, entries)
    }

    fn with(choice: Option<Box<dyn Choice>>, now: Timestamp, entries: Vec<Entry>) -> Self {
        let mut sender = Sender::new(SENDER, HostId(1), 1, OutboxConfig::default(), choice, 3);
        sender.handle_welcome(now, 0, &welcome());
        sender.follow(now, &name("resize"));
        let mut scene = Self(sender);
        scene.list(now, 1, entries);
        scene
    }

    fn list(&mut self, now: Timestamp, revision: u64, entries: Vec<Entry>) {
        let part = SnapshotPart {
            epoch: Epoch(1),
            revision,
            warming: false,
            standing: ServiceStanding::Heard,
            part: 0,
            parts: 1,
            entries,
        };
        self.0.handle_snapshot(now, 0, &name("resize"), &part);
    }

    fn change(&mut self, now: Timestamp, revision: u64, change: Change) {
        let (previous, changes) = (revision - 1, vec![change]);
        let part = ChangesPart { epoch: Epoch(1), previous, revision, part: 0, parts: 1, changes };
        self.0.handle_publication(now, 0, &name("resize"), &Publication::Changes(part));
    }

    fn submit(&mut self, now: Timestamp, job: u64, payload: &[u8]) {
        let spec = JobSpec {
            deadline: Some(ms(2000)),
            hold: Some(ms(500)),
            ..JobSpec::new(name("resize"), Bytes::copy_from_slice(payload))
        };
        self.0.handle_submit(now, JobId(job), spec);
    }

    /// A worker replies without a word in front.
    fn reply(&mut self, now: Timestamp, link: u64, body: &[u8]) {
        let _ = self.0.handle_link_reply(now, link, None, body);
    }

    /// Everything that is wanted now; whoever is to be connected is.
    fn step(&mut self, now: Timestamp) -> Seen {
        let mut seen = Seen::default();
        self.0.handle_timeout(now);
        while let Some(output) = self.0.poll_output(now) {
            match output {
                SenderOutput::Connect { link, .. } => self.0.handle_link_writable(now, link),
                SenderOutput::Request { link, body, .. } => {
                    seen.requests.push((link, String::from_utf8(body.to_vec()).unwrap()));
                }
                SenderOutput::Send { link, message, .. } => seen.natives.push((link, message)),
                SenderOutput::Settled { job, outcome } => seen.outcomes.push((job.0, outcome)),
                SenderOutput::Disconnect { link } => seen.disconnects.push(link),
                _ => {}
            }
        }
        seen
    }
}

/// Everything that happens between two points in time, looked at each 100 ms.
fn steps(scene: &mut Scene, from: u64, until: u64) -> Seen {
    let mut seen = Seen::default();
    for now in (from..until).step_by(100) {
        let Seen { requests, natives, outcomes, disconnects } = scene.step(at(now));
        seen.requests.extend(requests);
        seen.natives.extend(natives);
        seen.outcomes.extend(outcomes);
        seen.disconnects.extend(disconnects);
    }
    seen
}

fn is_member(scene: &Scene) -> bool {
    let key = InstanceKey { service: name("resize"), instance: name("j") };
    scene.0.peers().member(&key).is_some()
}

const OK: &[u8] = br#"{"status":"ok","message":"job accepted"}"#;
const FULL: &[u8] = br#"{"status":"error","message":"queue full"}"#;

#[test]
fn one_job_at_a_time_and_each_is_accepted() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.5))]);
    scene.submit(at(0), 1, b"{\"task\":1}");
    scene.submit(at(0), 2, b"{\"task\":2}");
    let seen = scene.step(at(0));
    assert_eq!(seen.requests, [(0, "{\"task\":1}".to_owned())]);
    assert!(seen.natives.is_empty(), "no native word to a REP socket: {seen:?}");
    scene.reply(at(1), 0, OK);
    let seen = scene.step(at(1));
    assert_eq!(seen.outcomes, [(1, Outcome::Accepted)]);
    assert_eq!(seen.requests, [(0, "{\"task\":2}".to_owned())]);
    scene.reply(at(2), 0, br#"{"status":"error","message":"no such task"}"#);
    let seen = scene.step(at(2));
    assert!(matches!(&seen.outcomes[..], [(2, Outcome::Failed(f))] if f.error == "no such task"));
    let tally = scene.0.statistics().instances.values().next().unwrap();
    assert_eq!((tally.sent, tally.accepted, tally.failed), (2, 1, 1));
}

#[test]
fn one_job_at_a_time_whatever_the_policy() {
    let mut scene = Scene::with(Some(Box::new(Random)), at(0), vec![entry("j", 1, Some(0.5))]);
    (1..=3).for_each(|job| scene.submit(at(0), job, b"1"));
    for job in 1..=3 {
        scene.list(at(job), job + 1, vec![entry("j", 1, Some(0.5))]);
        assert_eq!(scene.step(at(job)).requests.len(), 1);
        scene.list(at(job), job + 1, vec![entry("j", 1, Some(0.5))]);
        assert!(scene.step(at(job)).requests.is_empty(), "it has not replied");
        scene.reply(at(job), 0, OK);
    }
    let seen = scene.step(at(4));
    assert_eq!((seen.requests.len(), seen.outcomes), (0, vec![(3, Outcome::Accepted)]));
}

#[test]
fn its_load_counts_however_old_and_from_nine_tenths_on_it_is_full() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.89))]);
    scene.submit(at(20_000), 1, b"1");
    assert_eq!(scene.step(at(20_000)).requests.len(), 1);
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.9))]);
    scene.submit(at(0), 1, b"1");
    assert!(scene.step(at(0)).requests.is_empty());
    let refused = scene.step(at(500)).outcomes;
    assert!(matches!(&refused[..], [(1, Outcome::Refused(r))] if r.reason == Reason::Full));
}

#[test]
fn its_load_counts_as_long_as_a_mapper_speaks_of_it() {
    for (mapper_until, requests) in [(31_000, 0), (0, 1)] {
        let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.95))]);
        for revision in 1..=mapper_until / 1000 {
            scene.list(at(revision * 1000), revision + 1, vec![entry("j", 1, Some(0.95))]);
        }
        scene.submit(at(29_000), 1, b"1");
        assert!(scene.step(at(29_000)).requests.is_empty());
        // Unknown is not full: it gets one job.
        scene.submit(at(31_000), 2, b"2");
        scene.submit(at(31_000), 3, b"3");
        assert_eq!(scene.step(at(31_000)).requests.len(), requests);
    }
}

#[test]
fn queue_full_sends_the_job_elsewhere_and_counts_as_stale() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    scene.reply(at(1), 0, FULL);
    assert!(scene.step(at(1)).requests.is_empty(), "it is full until a mapper knows better");
    assert_eq!(scene.0.statistics().stale(), 1);
    scene.list(at(100), 2, vec![entry("j", 1, Some(0.0))]);
    assert!(scene.step(at(100)).requests.is_empty(), "that is what the mapper knew before");
    scene.list(at(200), 3, vec![entry("j", 2, Some(0.2))]);
    assert_eq!(scene.step(at(200)).requests.len(), 1);
}

#[test]
fn a_beat_after_queue_full_it_is_tried_again_and_what_it_takes_it_takes() {
    // No mapper says a word after the first.
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    scene.reply(at(1), 0, FULL);
    scene.step(at(1));
    scene.submit(at(900), 2, b"2");
    scene.submit(at(900), 3, b"3");
    let again = at(1) + ms(1000);
    assert!(steps(&mut scene, 900, 1001).requests.is_empty());
    assert_eq!(scene.step(again).requests, [(0, "2".to_owned())]);
    scene.reply(again, 0, OK);
    assert_eq!(scene.step(again).requests, [(0, "3".to_owned())]);
}

#[test]
fn what_queue_full_means_ends_in_time_and_with_a_new_registration() {
    let mut scene = Scene::new(at(0), vec![entry("j", 9, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    scene.reply(at(1), 0, FULL);
    // Publications come, so no mapper needs to be asked, and the job is over.
    let unknown = Change::Expired { instance: name("x"), incarnation: Incarnation(5) };
    scene.change(at(2), 2, unknown);
    assert_eq!(steps(&mut scene, 2, 600).outcomes.len(), 1);
    scene.0.handle_link_unwritable(at(600), 0);
    scene.step(at(600));
    assert_eq!(scene.0.poll_timeout(), Some(at(1001)));

    let mut scene = Scene::new(at(0), vec![entry("j", 9, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    scene.reply(at(1), 0, FULL);
    let again = Entry { incarnation: Incarnation(6), ..entry("j", 1, Some(0.0)) };
    scene.list(at(100), 2, vec![again]);
    assert_eq!(scene.step(at(100)).requests.len(), 1);
}

#[test]
fn one_that_does_not_answer_holds_nothing_else_up() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    assert_eq!(scene.step(at(0)).requests.len(), 1);
    scene.list(at(1), 2, vec![entry("j", 1, Some(0.0)), entry("n", 1, None)]);
    scene.submit(at(2), 2, b"2");
    let seen = scene.step(at(2));
    assert!(matches!(seen.natives[..], [(1, ToWorker::Hello(_))]), "{seen:?}");
    // No ping reaches it, and it is not given up while it has time.
    assert!(!steps(&mut scene, 100, 2000).disconnects.contains(&0));
    let Seen { outcomes, .. } = steps(&mut scene, 2000, 2300);
    assert!(outcomes.contains(&(1, Outcome::Unknown(Cause::Deadline))), "{outcomes:?}");
    // What it says after all is nobody's business any more, but it is free again.
    scene.reply(at(2300), 0, OK);
    assert!(scene.step(at(2300)).outcomes.is_empty());
    scene.list(at(2301), 3, vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(2301), 3, b"3");
    assert_eq!(scene.step(at(2301)).requests, [(0, "3".to_owned())]);
}

#[test]
fn one_that_never_answers_is_given_up_and_asked_anew() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    let seen = steps(&mut scene, 0, 3900);
    assert_eq!(seen.outcomes, [(1, Outcome::Unknown(Cause::Deadline))]);
    assert!(seen.disconnects.is_empty(), "{seen:?}");
    // Its deadline was at two seconds, and the last that was known of it is a second older.
    assert_eq!(steps(&mut scene, 3900, 4100).disconnects, [0]);
    scene.list(at(5100), 2, vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(5100), 2, b"2");
    assert_eq!(scene.step(at(5100)).requests, [(0, "2".to_owned())]);
    scene.reply(at(5101), 0, OK);
    assert_eq!(scene.step(at(5101)).outcomes, [(2, Outcome::Accepted)]);
}

#[test]
fn who_is_not_listed_lives_by_its_own_replies_only() {
    for replies in [false, true] {
        let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
        scene.submit(at(0), 1, b"1");
        scene.step(at(0));
        if replies {
            scene.reply(at(1), 0, OK);
        }
        let expired = Change::Expired { instance: name("j"), incarnation: Incarnation(5) };
        scene.change(at(1000), 2, expired);
        assert_eq!(is_member(&scene), replies, "the benefit of the doubt is for one expiry");
        // With the deadline far away, a ping would keep its link for long.
        assert_eq!(steps(&mut scene, 1000, 3200).disconnects.len(), usize::from(!replies));
        assert!(!is_member(&scene));
    }
}

#[test]
fn a_lost_connection_loses_the_job_that_was_on_it() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    scene.0.handle_link_unwritable(at(100), 0);
    assert!(scene.step(at(100)).outcomes.is_empty());
    scene.0.handle_link_writable(at(200), 0);
    let seen = scene.step(at(200));
    assert_eq!(seen.outcomes, [(1, Outcome::Unknown(Cause::Forgotten))]);
    scene.submit(at(201), 2, b"2");
    assert_eq!(scene.step(at(201)).requests.len(), 1);
}

#[test]
fn the_same_process_lives_on_when_a_mapper_gives_it_another_incarnation() {
    let again = Entry { incarnation: Incarnation(6), ..entry("j", 1, Some(0.2)) };
    let mut other_process = again.clone();
    other_process.pid += 1;
    let mut other_address = again.clone();
    other_address.endpoints = vec!["tcp://10.0.0.1:6002".parse().unwrap()];
    let lost = vec![(1, Outcome::Unknown(Cause::PeerEnded))];
    for (entry_now, outcomes) in
        [(again, vec![]), (other_process, lost.clone()), (other_address, lost)]
    {
        let mut scene = Scene::new(at(0), vec![entry("j", 9, Some(0.0))]);
        scene.submit(at(0), 1, b"1");
        scene.step(at(0));
        scene.list(at(100), 2, vec![entry_now]);
        let lives_on = outcomes.is_empty();
        assert_eq!(steps(&mut scene, 100, 1500).outcomes, outcomes);
        if lives_on {
            scene.reply(at(1500), 0, OK);
            assert_eq!(scene.step(at(1500)).outcomes, [(1, Outcome::Accepted)]);
            scene.submit(at(1500), 2, b"2");
            assert_eq!(scene.step(at(1500)).requests, [(0, "2".to_owned())], "over the same link");
        }
    }
}

#[test]
fn when_it_leaves_its_link_ends_whatever_its_incarnation_was_at_first() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    scene.step(at(0));
    let again = Entry { incarnation: Incarnation(6), ..entry("j", 1, Some(0.2)) };
    scene.list(at(100), 2, vec![again]);
    let change = Change::Left { instance: name("j"), incarnation: Incarnation(6) };
    scene.change(at(200), 3, change);
    let outcomes = steps(&mut scene, 200, 1500).outcomes;
    assert_eq!(outcomes, [(1, Outcome::Unknown(Cause::PeerEnded))]);
}

#[test]
fn what_could_not_be_sent_goes_elsewhere() {
    let mut scene = Scene::new(at(0), vec![entry("j", 1, Some(0.0))]);
    scene.submit(at(0), 1, b"1");
    assert_eq!(scene.step(at(0)).requests.len(), 1);
    scene.list(at(1), 2, vec![entry("j", 1, Some(0.0)), entry("k", 1, Some(0.5))]);
    scene.0.handle_unsent(at(1), 0, attempt(1));
    let seen = scene.step(at(1));
    assert_eq!((seen.requests, seen.disconnects), (vec![(1, "1".to_owned())], vec![0]));
    scene.reply(at(2), 1, OK);
    assert_eq!(scene.step(at(2)).outcomes, [(1, Outcome::Accepted)]);
}

#[test]
fn one_that_a_job_is_meant_for_gets_it_however_many_there_are() {
    let all = (0..99).map(|number| entry(&format!("j-{number}"), 1, Some(0.0))).collect();
    let mut scene = Scene::with(Policy::Svcmap.choice(), at(0), all);
    for number in 0..99 {
        let spec = JobSpec {
            instance: Some(name(&format!("j-{number}"))),
            deadline: Some(ms(2000)),
            ..JobSpec::new(name("resize"), b"{}"[..].into())
        };
        scene.0.handle_submit(at(0), JobId(number), spec);
    }
    assert_eq!(scene.step(at(0)).requests.len(), 99);
}

#[test]
fn what_is_no_json_goes_to_native_workers_only() {
    let json = || entry("j", 1, Some(0.0));
    let mut scene = Scene::new(at(0), vec![json()]);
    scene.submit(at(0), 1, b"\xff");
    scene.submit(at(0), 2, b"{}");
    let seen = scene.step(at(0));
    assert!(
        matches!(&seen.outcomes[..], [(1, Outcome::Refused(r))] if r.reason == Reason::NotJson)
    );
    assert_eq!(seen.requests, [(0, "{}".to_owned())], "and holds up none that is");
    let mut scene = Scene::new(at(0), vec![json(), entry("n", 1, None)]);
    (0..4).for_each(|job| scene.submit(at(0), job, b"\xff"));
    let seen = scene.step(at(0));
    assert!(seen.requests.is_empty() && seen.outcomes.is_empty(), "{seen:?}");
    assert_eq!(seen.natives.len(), 1);
}

/// One that gives results and has room for so many jobs.
fn with_results(instance: &str, sequence: u64, slots: u32) -> Entry {
    let plain = entry(instance, sequence, Some(0.0));
    let share = plain.load.share.map(|share| share.giving_results(true));
    Entry { load: Load { share, slots, ..plain.load }, ..plain }
}

/// The reply to a job in its first attempt.
fn answer(scene: &mut Scene, now: Timestamp, job: u64, body: &str) -> Result<(), BadMessage> {
    let tag = attempt(job).to_string();
    scene.0.handle_link_reply(now, 0, Some(tag.as_bytes()), body.as_bytes())
}

#[test]
fn one_that_gives_results_has_as_many_jobs_as_it_has_room_for() {
    for choice in [Policy::Svcmap.choice(), Policy::NoCredits.choice()] {
        let mut scene = Scene::with(choice, at(0), vec![with_results("j", 1, 3)]);
        (1..=5).for_each(|job| scene.submit(at(0), job, b"[1]"));
        let seen = scene.step(at(0));
        assert_eq!(seen.requests.len(), 3, "{seen:?}");
        assert!(seen.requests[0].1.starts_with(r#"{"command":"SUBMIT","payload":{"job":1,"#));
        assert!(seen.requests[0].1.ends_with(r#""body":[1]}}"#), "{seen:?}");
        let failed = r#"{"status":"failed","message":"no","code":4}"#;
        assert_eq!(answer(&mut scene, at(7), 2, failed), Ok(()));
        assert_eq!(answer(&mut scene, at(9), 1, r#"{"status":"done","result":[2]}"#), Ok(()));
        let seen = scene.step(at(9));
        assert_eq!(seen.requests.len(), 2);
        let [(2, Outcome::Failed(failure)), (1, Outcome::Done(reply))] = &seen.outcomes[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((&*failure.error, failure.code, failure.attempts), ("no", Some(4), 1));
        assert_eq!((&reply[..], reply.attempts, reply.ran), (&b"[2]"[..], 1, ms(9)));
        assert_eq!(reply.by.instance, name("j"));
        let tally = scene.0.statistics().instances.values().next().unwrap();
        assert_eq!((tally.sent, tally.done, tally.failed), (5, 1, 1));
    }
}

#[test]
fn what_it_rejects_is_tried_elsewhere_and_it_is_not_asked_for_that_again() {
    let both = vec![with_results("j", 1, 3), entry("n", 1, None)];
    let mut scene = Scene::with(Some(Box::new(Random)), at(0), both[..1].to_vec());
    scene.submit(at(0), 1, b"1");
    assert_eq!(scene.step(at(0)).requests.len(), 1);
    scene.list(at(1), 2, both);
    let rejected = r#"{"status":"rejected","message":"no camera"}"#;
    assert_eq!(answer(&mut scene, at(1), 1, rejected), Ok(()));
    let seen = scene.step(at(1));
    assert!(matches!(seen.natives[..], [(1, ToWorker::Hello(_))]), "{seen:?}");
    assert!(seen.requests.is_empty() && seen.outcomes.is_empty(), "{seen:?}");
}

#[test]
fn one_that_rejects_all_is_asked_five_times_and_one_that_drains_once() {
    let mut scene = Scene::new(at(0), vec![with_results("j", 1, 3)]);
    scene.submit(at(0), 1, b"1");
    let rejected = br#"{"status":"rejected","message":"no camera"}"#;
    for _ in 0..5 {
        assert_eq!(scene.step(at(0)).requests.len(), 1);
        scene.reply(at(0), 0, rejected);
    }
    let outcomes = scene.step(at(0)).outcomes;
    assert!(matches!(&outcomes[..], [(1, Outcome::Refused(r))] if r.reason == Reason::CannotStart));
    scene.submit(at(1), 2, b"1");
    assert_eq!(scene.step(at(1)).requests.len(), 1);
    scene.reply(at(1), 0, br#"{"status":"refused","reason":"draining"}"#);
    let seen = steps(&mut scene, 100, 1000);
    assert!(seen.requests.is_empty(), "{seen:?}");
}

#[test]
fn nonsense_counts_and_loses_nothing_else() {
    let mut scene = Scene::new(at(0), vec![with_results("j", 1, 3)]);
    (1..=2).for_each(|job| scene.submit(at(0), job, b"1"));
    scene.step(at(0));
    let done = r#"{"status":"done","result":1}"#;
    assert_eq!(answer(&mut scene, at(1), 9, done), Err(BadMessage::Unasked));
    let untold = scene.0.handle_link_reply(at(1), 0, None, done.as_bytes());
    assert_eq!(untold, Err(BadMessage::Unasked), "two could be meant");
    assert_eq!(scene.0.handle_link_reply(at(1), 7, None, b"{}"), Err(BadMessage::Unasked));
    assert!(scene.step(at(1)).outcomes.is_empty());
    assert_eq!(answer(&mut scene, at(2), 1, "hello"), Err(BadMessage::Json));
    assert_eq!(answer(&mut scene, at(2), 2, done), Ok(()));
    assert_eq!(answer(&mut scene, at(2), 2, done), Err(BadMessage::Unasked), "twice");
    let outcomes = scene.step(at(2)).outcomes;
    assert!(
        matches!(&outcomes[..], [(1, Outcome::Failed(f)), (2, Outcome::Done(_))]
            if f.error == "its reply is not understood: a JSON object is expected"),
        "{outcomes:?}"
    );
}

#[test]
fn when_one_that_gives_results_dies_all_that_it_had_is_unknown() {
    let mut scene = Scene::new(at(0), vec![with_results("j", 1, 3)]);
    for job in 1..=3 {
        let spec = JobSpec::new(name("resize"), b"1"[..].into());
        scene.0.handle_submit(at(0), JobId(job), spec);
    }
    assert_eq!(scene.step(at(0)).requests.len(), 3);
    // As long as it is listed it may take its time.
    for second in 1..=30 {
        scene.list(at(second * 1000), second + 1, vec![with_results("j", second + 1, 3)]);
        let seen = steps(&mut scene, second * 1000, second * 1000 + 1000);
        assert!(seen.outcomes.is_empty() && seen.disconnects.is_empty(), "{second}: {seen:?}");
    }
    let expired = Change::Expired { instance: name("j"), incarnation: Incarnation(5) };
    scene.change(at(31_000), 32, expired);
    let outcomes = steps(&mut scene, 31_000, 35_000).outcomes;
    let all: Vec<_> = outcomes.iter().map(|(job, _)| *job).collect();
    assert_eq!(all, [1, 2, 3]);
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Unknown(_))));
}

#[test]
fn a_reply_makes_room_before_the_mapper_knows() {
    let full = |sequence| {
        let entry = with_results("j", sequence, 4);
        let share = Share::new(1.0).map(|share| share.giving_results(true));
        Entry { load: Load { share, ..entry.load }, ..entry }
    };
    let mut scene = Scene::new(at(0), vec![with_results("j", 1, 4)]);
    (1..=6).for_each(|job| scene.submit(at(0), job, b"1"));
    assert_eq!(scene.step(at(0)).requests.len(), 4);
    scene.list(at(100), 2, vec![full(2)]);
    assert!(scene.step(at(100)).requests.is_empty());
    assert_eq!(answer(&mut scene, at(101), 1, r#"{"status":"done"}"#), Ok(()));
    assert_eq!(scene.step(at(101)).requests.len(), 1, "a place is free");
    let still_full = r#"{"status":"done","load":1.0}"#;
    assert_eq!(answer(&mut scene, at(102), 2, still_full), Ok(()));
    assert!(scene.step(at(102)).requests.is_empty(), "others have taken it");
}
