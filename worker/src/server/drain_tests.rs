//! What a drain does with the queue.

use super::absence_tests::Scene;
use super::*;
use crate::intake::Ending;
use crate::testing::*;

/// The same, with a pinned job 5 at the end.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.say(at(5), job(5, attempt(5), 60_000).message());
    assert_eq!(scene.queued().len(), 4);
    scene
}

#[test]
fn where_others_are_ready_a_drain_hands_the_queue_over_at_once() {
    let mut scene = scene();
    scene.server.handle_peer_ready(at(5));
    assert_eq!(scene.queued().len(), 4, "there is no drain");
    scene.server.drain(at(6), ms(1000));
    scene.server.handle_peer_ready(at(6));
    scene.act(at(6));
    let back = Verdict::Rejected(Reason::Draining);
    assert_eq!(scene.told, [(attempt(2), back.clone()), (attempt(3), back)]);
    // What can go nowhere else, or whose sender may be gone, is done here.
    for job in [1, 4, 5] {
        let task = scene.running.take().expect("it runs");
        scene.server.handle_finished(at(7), task, Ending::Done, Vec::new());
        scene.act(at(7));
        assert_eq!(scene.told.last(), Some(&(attempt(job), Verdict::Done)));
    }
    scene.say(at(8), ToWorker::Received { outcomes: 5 });
    scene.pass(at(8));
    let report = DrainReport { finished: 3, handed_back: 2, ..DrainReport::default() };
    assert_eq!(scene.server.drained(), Some(report));
}

#[test]
fn without_others_a_drain_finishes_its_queue() {
    let mut scene = scene();
    scene.server.drain(at(6), ms(1000));
    // What nobody would send again goes first.
    for job in [1, 4, 2, 3, 5] {
        let task = scene.running.take().expect("it runs");
        scene.server.handle_finished(at(7), task, Ending::Done, Vec::new());
        scene.act(at(7));
        assert_eq!(scene.told.last(), Some(&(attempt(job), Verdict::Done)));
    }
}

#[test]
fn others_that_turn_up_amid_a_drain_get_what_is_left() {
    let mut scene = scene();
    scene.server.drain(at(6), ms(1000));
    let task = scene.running.take().expect("it runs");
    scene.server.handle_finished(at(7), task, Ending::Done, Vec::new());
    scene.act(at(7));
    scene.server.handle_peer_ready(at(8));
    scene.act(at(8));
    let back = Verdict::Rejected(Reason::Draining);
    let back = [2, 3].map(|job| (attempt(job), back.clone()));
    assert_eq!(scene.told, [&[(attempt(1), Verdict::Done)], &back[..]].concat());
}
