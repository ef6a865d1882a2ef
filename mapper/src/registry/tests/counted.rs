//! What the registry counts, and the sums over those who are listed.

use svcmap_proto::load::State;
use svcmap_proto::status::Shown;

use super::*;
use crate::metrics::{Messages, Registrations};

#[test]
fn messages_and_registrations_are_counted_by_what_came_of_them() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.say_register(ms(1), "w", "s/a", 5);
    registry.say_register(ms(2), "old", "s/a", 4);
    registry.say_register(ms(3), "w", "s/b", u64::MAX);
    // One that is listed, natively and by the short way; and one that is not.
    registry.say_report(ms(4), "w", "s/a", 5, load(2, 0));
    let connection = Connection::new(b"w");
    let report = |instance| {
        let load = load(3, 0);
        ReportRef { service: "s", instance, incarnation: Incarnation(5), load }
    };
    assert!(registry.handle_report(ms(5), &connection, &report("a")));
    assert!(!registry.handle_report(ms(5), &connection, &report("c")));
    registry.say_report(ms(5), "w", "s/c", 5, load(1, 0));
    registry.sync(ms(6), "s");
    let metrics = registry.metrics(ms(7));
    let messages = Messages { register: 4, report: 3, sync: 1, ..Messages::default() };
    assert_eq!(metrics.messages, messages);
    let registrations = Registrations { listed: 1, renewed: 1, superseded: 1 };
    assert_eq!(metrics.registrations, registrations);
    assert_eq!(metrics.registrations_refused, [(RegistrationError::IncarnationAhead, 1)].into());
    assert_eq!((metrics.reregistrations, metrics.snapshots_sent), (1, 1));
    assert!(metrics.warming);
}

#[test]
fn the_sums_are_those_of_who_is_listed_and_who_expires_is_counted() {
    let mut registry = registry();
    for (number, state) in [State::Ready, State::Ready, State::Draining].into_iter().enumerate() {
        let said = Load { running: 2, state, ..load(1, 6) };
        let mut registration = registration(&format!("s/{number}"), 5);
        registration.load = if number == 0 { load(1, 1) } else { said };
        registry.say(ms(0), "w", ToMapper::Register(registration));
    }
    let metrics = registry.metrics(ms(1));
    let sums = &metrics.services["s"];
    let instances = [(Shown::Draining, 1), (Shown::Full, 1), (Shown::Ready, 1)].into();
    assert_eq!(sums.instances, instances);
    assert_eq!((sums.slots, sums.running, sums.queued), (24, 4, 13));
    let outputs = registry.run_until(ms(10_000));
    let published: Vec<_> = outputs
        .iter()
        .filter_map(|(_, output)| match output {
            Output::Publish { topic, frame } => Some(topic.len() + frame.len()),
            _ => None,
        })
        .collect();
    let metrics = registry.metrics(ms(10_000));
    assert_eq!(metrics.expirations.by_service, [("s".parse().unwrap(), 3)].into());
    assert!(metrics.services.is_empty() && !metrics.warming);
    assert_eq!(metrics.published, published.len() as u64);
    assert_eq!(metrics.published_bytes, published.iter().sum::<usize>() as u64);
    assert!(metrics.snapshots_published > 5, "{metrics:?}");
}
