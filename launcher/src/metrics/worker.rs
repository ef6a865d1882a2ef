//! What a worker has counted, as metrics.

use std::time::Duration;

use svcmap_proto::jobs::Reason;
use svcmap_proto::load::State;
use svcmap_proto::names::Name;
use svcmap_worker::{Metrics, Served, Statistics, Tally};

use super::{Families, Labels, SERVICES_MAX, labels};

/// Why a worker rejects attempts. Each is there from the start, so that its first time is seen.
const REASONS: [Reason; 8] = [
    Reason::Full,
    Reason::NoCredit,
    Reason::Draining,
    Reason::Expired,
    Reason::Cancelled,
    Reason::TooLarge,
    Reason::Unreachable,
    Reason::CannotStart,
];

/// The page of a worker of that service, as of that Unix time.
pub fn families(metrics: &Metrics, service: &Name, unix: Duration) -> Families {
    let mut families = Families::of_process();
    let served = metrics.served.as_ref();
    // Until it is known to a mapper nothing comes, and all is zero.
    jobs(&mut families, served.unwrap_or(&Served::default()), service);
    now(&mut families, served, service, unix);
    sent(&mut families, &metrics.sent);
    mappers(&mut families, metrics);
    families
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Draining => "draining",
        State::Failing => "failing",
    }
}

/// The jobs of others.
fn jobs(families: &mut Families, served: &Served, service: &Name) {
    let load = &served.load;
    let own = || labels([("service", service)]);
    let with = |label, value: &str| labels([("service", service), (label, &value)]);
    families.counter("svcmap_jobs_accepted", "Jobs that it took.", [(own(), load.accepted)]);
    let results = [("done", load.done), ("failed", load.failed)];
    let results = results.map(|(result, count)| (with("result", result), count));
    families.counter("svcmap_jobs_finished", "Jobs whose handler ended.", results);
    let reasons =
        REASONS.map(|reason| (reason, served.rejected.get(&reason).copied().unwrap_or(0)));
    let known: u64 = reasons.iter().map(|(_, count)| count).sum();
    let unreadable = ("unreadable".to_owned(), load.rejected.saturating_sub(known));
    let reasons = reasons.into_iter().map(|(reason, count)| (reason.to_string(), count));
    let reasons = reasons.chain([unreadable]);
    let reasons = reasons.map(|(reason, count)| (with("reason", &reason), count));
    let help = "Attempts that it rejected; their jobs are tried elsewhere or refused.";
    families.counter("svcmap_attempts_rejected", help, reasons);
    let help = "Senders that it turned away, as too many others had something there.";
    families.counter("svcmap_senders_turned_away", help, [(own(), load.turned_away)]);
    let help = "How long jobs waited here that a handler has ended.";
    families.times("svcmap_job_wait", help, [(own(), &served.waits)]);
    let help = "How long handlers took for a job.";
    families.times("svcmap_job_service", help, [(own(), &served.service_times)]);
}

/// How it is.
fn now(families: &mut Families, served: Option<&Served>, service: &Name, unix: Duration) {
    let own = || labels([("service", service)]);
    let known = || served.map(|served| (served, &served.load)).into_iter();
    let jobs = known().flat_map(|(_, load)| [("running", load.running), ("queued", load.queued)]);
    let jobs = jobs
        .map(|(state, count)| (labels([("service", service), ("state", &state)]), count.into()));
    families.gauge("svcmap_worker_jobs", "Jobs that are here.", jobs);
    let slots = known().map(|(_, load)| (own(), load.slots.into()));
    families.gauge("svcmap_worker_slots", "Room for jobs.", slots);
    let bytes = known().map(|(served, _)| (own(), served.queued_bytes));
    families.bytes("svcmap_jobs_queued", "Payloads of the jobs that wait here.", bytes);
    let promised = known().map(|(_, load)| (own(), load.promised.into()));
    let help = "Slots that it has promised to senders.";
    families.gauge("svcmap_credits_outstanding", help, promised);
    let finished = known().filter_map(|(_, load)| load.since_finish_ms).map(|ms| {
        let at = unix.saturating_sub(Duration::from_millis(ms.into()));
        (own(), at.as_secs_f64())
    });
    let help = "When a handler last ended, in Unix time.";
    families.seconds("svcmap_handler_last_finish_timestamp", help, finished);
    let states = known().flat_map(|(_, load)| {
        [State::Ready, State::Draining, State::Failing].map(|state| {
            let labels = labels([("service", service), ("state", &state_word(state))]);
            (labels, u64::from(load.state == state))
        })
    });
    families.gauge("svcmap_worker_state", "1 for the state that it is in, 0 for others.", states);
}

/// The jobs of its own.
fn sent(families: &mut Families, sent: &Statistics) {
    let one = |count: u64| -> [(Labels, u64); 1] { [(vec![], count)] };
    families.counter("svcmap_jobs_submitted", "Jobs that it submitted.", one(sent.submitted));
    let outcomes = [
        ("done", sent.done),
        ("failed", sent.failed),
        ("refused", sent.refused),
        ("unknown", sent.unknown),
        ("accepted", sent.accepted),
    ];
    let outcomes = outcomes.map(|(outcome, count)| (labels([("outcome", &outcome)]), count));
    families.counter("svcmap_outcomes", "Outcomes of the jobs that it submitted.", outcomes);
    let of_all = |figure: fn(&Tally) -> u64| {
        sent.instances.values().map(figure).sum::<u64>() + figure(&sent.others)
    };
    families.counter("svcmap_attempts", "Attempts that it sent.", one(of_all(|tally| tally.sent)));
    let help = "Of these, those that found a worker full.";
    families.counter("svcmap_attempts_stale", help, one(of_all(|tally| tally.stale)));
    let ages = sent.told_ago.iter().take(SERVICES_MAX);
    let ages = ages.map(|(service, ago)| (labels([("service", service)]), ago.as_secs_f64()));
    let help = "How long ago a mapper last told anything of a service that it sends to.";
    families.seconds("svcmap_cache_age", help, ages);
}

/// What it hears.
fn mappers(families: &mut Families, metrics: &Metrics) {
    let one = |count: u64| -> [(Labels, u64); 1] { [(vec![], count)] };
    let help = "How often it asked a mapper for the state of a service.";
    families.counter("svcmap_resyncs", help, one(metrics.resyncs));
    let help = "Mappers that have answered on their connection.";
    families.gauge("svcmap_mappers_connected", help, one(metrics.mappers_connected as u64));
    let help = "Mappers that list this worker.";
    families.gauge("svcmap_mappers_listing", help, one(metrics.mappers_listing as u64));
    let reasons = metrics.messages_refused.iter();
    let reasons = reasons.map(|(reason, count)| (labels([("reason", reason)]), *count));
    let help = "Messages that nobody could read, or that were not allowed.";
    families.counter("svcmap_worker_messages_refused", help, reasons);
}
