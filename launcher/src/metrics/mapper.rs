//! What a mapper has counted, as metrics.

use svcmap_mapper::Metrics;
use svcmap_proto::control::RegistrationError;
use svcmap_proto::status::Shown;

use super::{Families, Labels, OTHERS, by_service, labels};

/// The word for why a registration was refused.
fn word(error: RegistrationError) -> &'static str {
    match error {
        RegistrationError::RegistryFull => "registry full",
        RegistrationError::IncarnationAhead => "incarnation ahead",
        RegistrationError::Endpoints => "endpoints",
        RegistrationError::ConnectionFull => "connection full",
        RegistrationError::NotAllowed => "not allowed",
        RegistrationError::NameTaken => "name taken",
        RegistrationError::ShareFull => "share full",
    }
}

/// The page of a mapper.
pub fn families(metrics: &Metrics) -> Families {
    let mut families = Families::of_process();
    services(&mut families, metrics);
    traffic(&mut families, metrics);
    families
}

fn services(families: &mut Families, metrics: &Metrics) {
    let services = &metrics.services;
    let labelled = |figures: Vec<(String, u64)>| {
        figures.into_iter().map(|(service, count)| (labels([("service", &service)]), count))
    };
    let in_state = |state: Shown| {
        let figures =
            by_service(services, move |sums| sums.instances.get(&state).copied().unwrap_or(0));
        figures.into_iter().map(move |(service, count)| {
            (labels([("service", &service), ("state", &state.word())]), count)
        })
    };
    let help = "Instances that are listed.";
    families.gauge("svcmap_instances", help, Shown::ALL.into_iter().flat_map(in_state));
    let slots = by_service(services, |sums| sums.slots);
    families.gauge("svcmap_slots", "Room for jobs.", labelled(slots));
    let running = by_service(services, |sums| sums.running);
    families.gauge("svcmap_jobs_running", "Jobs that handlers work on.", labelled(running));
    let queued = by_service(services, |sums| sums.queued);
    let help = "Jobs that wait at instances for a handler.";
    families.gauge("svcmap_jobs_queued", help, labelled(queued));
    let waiting = by_service(&metrics.waiting, |waiting| waiting.jobs);
    let help = "Jobs that have waited for a while at their senders for room at an instance.";
    families.gauge("svcmap_jobs_waiting", help, labelled(waiting));
    let help = "Instances that were silent for too long.";
    let expirations = &metrics.expirations;
    let mut expired = by_service(&expirations.by_service, |count| *count);
    expired.extend((expirations.others > 0).then(|| (OTHERS.to_owned(), expirations.others)));
    families.counter("svcmap_mapper_expirations", help, labelled(expired));
}

fn traffic(families: &mut Families, metrics: &Metrics) {
    let one = |count: u64| -> [(Labels, u64); 1] { [(vec![], count)] };
    let messages = &metrics.messages;
    let kinds = [
        ("hello", messages.hello),
        ("register", messages.register),
        ("report", messages.report),
        ("leave", messages.leave),
        ("sync", messages.sync),
        ("list", messages.list),
        ("keys", messages.keys),
        ("drain", messages.drain),
        ("waiting", messages.waiting),
        ("json", messages.json),
    ];
    let kinds = kinds.map(|(kind, count)| (labels([("kind", &kind)]), count));
    families.counter("svcmap_mapper_messages", "Messages that came.", kinds);
    let reasons = metrics.messages_refused.iter();
    let reasons = reasons.map(|(reason, count)| (labels([("reason", reason)]), *count));
    let help = "Messages that nobody could read, or that were not allowed.";
    families.counter("svcmap_mapper_messages_refused", help, reasons);
    let registrations = &metrics.registrations;
    let results = [
        ("listed", registrations.listed),
        ("renewed", registrations.renewed),
        ("superseded", registrations.superseded),
    ];
    let results = results.map(|(result, count)| (result, count)).into_iter();
    let refused = metrics.registrations_refused.iter();
    let results = results.chain(refused.map(|(error, count)| (word(*error), *count)));
    let results = results.map(|(result, count)| (labels([("result", &result)]), count));
    families.counter("svcmap_mapper_registrations", "Registrations that came.", results);
    let help = "Instances that reported, were not listed, and were asked to register.";
    families.counter("svcmap_mapper_reregistrations", help, one(metrics.reregistrations));
    let snapshots = [("beat", metrics.snapshots_published), ("asked", metrics.snapshots_sent)];
    let snapshots = snapshots.map(|(reason, count)| (labels([("reason", &reason)]), count));
    let help = "States of a service that were sent or published.";
    families.counter("svcmap_mapper_snapshots", help, snapshots);
    let help = "Messages that were published, whoever listens.";
    families.counter("svcmap_mapper_published_messages", help, one(metrics.published));
    let help = "Bytes that were published, whoever listens.";
    families.bytes_counter("svcmap_mapper_published", help, metrics.published_bytes);
    let help = "How often the mapper stood still for longer than a beat.";
    families.counter("svcmap_mapper_suspensions", help, one(metrics.suspensions));
    let help = "1 while it has started lately and may not know everybody yet.";
    families.gauge("svcmap_mapper_warming", help, one(metrics.warming.into()));
}
