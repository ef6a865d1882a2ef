//! Whose word on how far a job is counts.

use svcmap_proto::jobs::{ProgressReport, Verdict};
use svcmap_proto::load::Load;

use super::handover_tests::{Alone, spec};
use super::*;
use crate::testing::*;

/// What the worker at the other end of that link says.
fn report(alone: &mut Alone, now: Timestamp, link: u64, id: (u64, u32), text: &str) {
    let attempt = AttemptId { job: id.0, attempt: id.1 };
    let message = FromWorker::Progress(vec![ProgressReport { attempt, text: text.to_owned() }]);
    alone.sender.handle_link_message(now, link, message);
    alone.see(now);
}

/// All that was told of job 1 until now.
fn told(alone: &Alone) -> Vec<Option<&str>> {
    assert!(alone.progress.iter().all(|(job, _)| *job == JobId(1)));
    alone.progress.iter().map(|(_, text)| text.as_deref()).collect()
}

#[test]
fn only_the_worker_that_has_a_job_says_how_far_it_is_and_elsewhere_it_begins_anew() {
    let mut alone = Alone::new(2);
    alone.sender.handle_submit(at(0), JobId(1), spec(b"1"));
    alone.see(at(0));
    let first = *alone.links.values().next().unwrap();
    alone.grant(at(1), first, 1);
    let (_, job) = alone.jobs(at(1)).remove(0);
    // Of another attempt, and of no job.
    report(&mut alone, at(2), first, (1, 2), "?");
    report(&mut alone, at(2), first, (9, 1), "?");
    assert_eq!(told(&alone), []);
    report(&mut alone, at(2), first, (1, 1), "10 %");
    report(&mut alone, at(2), first, (1, 1), "20 %");
    assert_eq!(told(&alone), [Some("10 %"), Some("20 %")]);
    let load = Load { slots: 4, concurrency: 1, ..Load::default() };
    alone.end_at(at(3), first, 1, &job, Verdict::Rejected(Reason::CannotStart), load);
    alone.see(at(3));
    assert_eq!(told(&alone)[2..], [None]);
    // Too late.
    report(&mut alone, at(4), first, (1, 1), "30 %");
    alone.sender.handle_timeout(at(50));
    alone.see(at(50));
    let second = *alone.links.values().find(|link| **link != first).unwrap();
    alone.grant(at(51), second, 1);
    assert_eq!(alone.jobs(at(51)).len(), 1);
    // Not the one that has it.
    report(&mut alone, at(52), first, (1, 2), "40 %");
    assert_eq!(told(&alone).len(), 3);
    report(&mut alone, at(53), second, (1, 2), "5 %");
    assert_eq!(told(&alone)[3..], [Some("5 %")]);
}
