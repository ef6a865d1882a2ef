//! Many services, typos included.

use svcmap_proto::control::{Entry, ServiceStanding};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Load;

use super::handover_tests::{entry, new_sender, publish, spec};
use super::*;
use crate::config::SERVICES_FOLLOWED_MAX;
use crate::outbox::Lane;
use crate::outcome::Outcome;
use crate::outcome::Refusal;
use crate::testing::*;
use svcmap_proto::jobs::OfferId;

fn submit(sender: &mut Sender, now: Timestamp, job: u64, service: &str) {
    let spec = JobSpec { service: name(service), ..spec(b"1") };
    sender.handle_submit(now, JobId(job), spec);
}

fn outputs(sender: &mut Sender, now: Timestamp) -> Vec<SenderOutput> {
    std::iter::from_fn(|| sender.poll_output(now)).collect()
}

fn refused(outputs: &[SenderOutput]) -> Vec<(JobId, Reason)> {
    let refused = outputs.iter().filter_map(|output| match output {
        SenderOutput::Settled { job, outcome: Outcome::Refused(Refusal { reason, .. }) } => {
            Some((*job, *reason))
        }
        _ => None,
    });
    refused.collect()
}

/// The mapper has nobody of that service.
fn publish_nobody(sender: &mut Sender, now: Timestamp, service: &str) {
    let (epoch, revision, warming) = (svcmap_proto::names::Epoch(1), 1, false);
    let part = SnapshotPart {
        epoch,
        revision,
        standing: ServiceStanding::Heard,
        warming,
        part: 0,
        parts: 1,
        entries: Vec::new(),
    };
    sender.handle_snapshot(now, 0, &name(service), &part);
}

#[test]
fn any_number_of_typos_does_not_hide_a_service() {
    let mut sender = new_sender(1);
    publish(&mut sender, at(0), 1, vec![entry(1, Load { slots: 4, ..Load::default() })]);
    outputs(&mut sender, at(0));
    let mut unsubscribed = 0;
    for job in 0..2000 {
        let (now, typo) = (at(10 + 2 * job), format!("resise-{job}"));
        submit(&mut sender, now, job, &typo);
        publish_nobody(&mut sender, now, &typo);
        // By the rule of the outbox, or else by the user.
        sender.handle_timeout(now);
        sender.handle_cancel(now, JobId(job));
        let outputs = outputs(&mut sender, now);
        assert_eq!(refused(&outputs).len(), 1, "{outputs:?}");
        assert_ne!(refused(&outputs)[0].1, Reason::TooManyServices);
        let is_one = |output: &&SenderOutput| matches!(output, SenderOutput::Unsubscribe(_));
        unsubscribed += outputs.iter().filter(is_one).count();
    }
    // The one that somebody serves was not wanted for longest, but stays.
    assert_eq!(unsubscribed, 2000 + 1 - SERVICES_FOLLOWED_MAX);
    assert_eq!(sender.peers().members(&name("resize")).count(), 1);
    assert!(!sender.peers().follows(&name("resise-0")));
    assert!(sender.peers().follows(&name("resise-1999")));
    // Another one that nobody has asked for yet is found like the first.
    let now = at(9000);
    submit(&mut sender, now, 5000, "scale");
    let outputs = outputs(&mut sender, now);
    let subscribed = outputs.iter().any(
        |output| matches!(output, SenderOutput::Subscribe(service) if *service == name("scale")),
    );
    assert!(subscribed && refused(&outputs).is_empty(), "{outputs:?}");
}

#[test]
fn services_with_jobs_stay_and_one_more_is_refused_with_the_reason() {
    let mut sender = new_sender(1);
    let others = SERVICES_FOLLOWED_MAX as u64;
    (0..others).for_each(|job| submit(&mut sender, at(job), job, &format!("service-{job}")));
    // It took the place of the one that the sender had followed and has no job for.
    assert!(!sender.peers().follows(&name("resize")));
    outputs(&mut sender, at(2000));
    submit(&mut sender, at(2000), others, "one-more");
    let outcome = refused(&outputs(&mut sender, at(2000)));
    assert_eq!(outcome, [(JobId(others), Reason::TooManyServices)]);
    sender.handle_cancel(at(2001), JobId(7));
    submit(&mut sender, at(2001), others + 1, "one-more");
    assert_eq!(refused(&outputs(&mut sender, at(2001))), [(JobId(7), Reason::Cancelled)]);
    assert!(!sender.peers().follows(&name("service-7")));
}

#[test]
fn nothing_is_kept_of_a_service_that_made_room() {
    let mut sender = new_sender(1);
    publish(&mut sender, at(0), 1, vec![entry(1, Load { slots: 4, ..Load::default() })]);
    sender.handle_submit(at(0), JobId(1), spec(b"1"));
    outputs(&mut sender, at(0));
    sender.learn(&name("resize"), |_| {});
    assert!(sender.services.0.contains_key(&name("resize")));
    assert_eq!(sender.asks.len(&Lane::any(&name("resize"))), 1);
    sender.handle_cancel(at(1), JobId(1));
    sender.forget(at(1), &name("resize"));
    // A worker's last words are of no interest.
    sender.learn(&name("resize"), |_| {});
    assert!(sender.services.0.is_empty() && sender.asks.len(&Lane::any(&name("resize"))) == 0);
    assert_eq!(sender.peers().members(&name("resize")).count(), 0);
    // It is found again as if it were new.
    assert!(sender.follow(at(2), &name("resize")));
    publish(&mut sender, at(2), 2, vec![entry(1, Load { slots: 4, ..Load::default() })]);
    sender.handle_submit(at(2), JobId(2), spec(b"1"));
    outputs(&mut sender, at(2));
    assert_eq!(sender.asks.len(&Lane::any(&name("resize"))), 1);
}

#[test]
fn an_offer_is_believed_of_a_life_that_the_cache_lists() {
    let mut sender = new_sender(1);
    let own = svcmap_proto::names::InstanceKey { service: name("resize"), instance: name("w-0") };
    let slot = |instance: &str, life| svcmap_proto::jobs::OfferedSlot {
        instance: name(instance),
        incarnation: svcmap_proto::names::Incarnation(life),
        offer: OfferId(1),
        lifetime_ms: 100,
        payload_bytes_max: 100,
    };
    assert!(!sender.believes(at(0), &own, None, &slot("w-1", 5)));
    publish(&mut sender, at(0), 1, vec![entry(1, Load { slots: 4, ..Load::default() })]);
    assert!(sender.believes(at(0), &own, None, &slot("w-1", 5)));
    assert!(!sender.believes(at(0), &own, None, &slot("w-1", 6)));
    assert!(!sender.believes(at(0), &own, None, &slot("w-2", 5)));
    // Where there are keys, of who has that life's key, and of nobody else.
    let keyed = Entry { key: Some(PublicKey([2; 32])), ..entry(2, Load::default()) };
    publish(&mut sender, at(1), 2, vec![keyed]);
    let believed = |sender: &mut Sender, user: Option<u8>| {
        let user = user.map(|number| PublicKey([number; 32]));
        sender.believes(at(1), &own, user.as_ref(), &slot("w-2", 5))
    };
    assert!(believed(&mut sender, Some(2)));
    assert!(!believed(&mut sender, Some(3)) && !believed(&mut sender, None));
}
