//! Those who fill tables and ask for everything, against real processes: others are served all the
//! same.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use svcmap::commands::status::{self, Report};
use svcmap_proto::codec;
use svcmap_proto::io::{Clock, random_u64, random_u128};
use svcmap_proto::jobs::{Demand, FromWorker, OfferId, OfferedSlot, SenderHello, ToWorker};
use svcmap_proto::names::{Incarnation, InstanceKey, SenderId};
use svcmap_proto::time::Timestamp;
use svcmap_tests::{
    Deployment, PATIENCE, dealer, endpoint_of, eventually, plain_deployment_of, svcmap,
};
use svcmap_worker::{Client, Outcome, Reason};

const ECHO: &[&str] = &["--builtin", "echo"];

/// Everything is as before so long after an attack.
const RECOVERY: Duration = Duration::from_secs(2);

/// What one attack costs must not be counted against another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(deployment: &Deployment) -> Report {
    let mappers = std::slice::from_ref(deployment.mapper());
    status::ask(mappers, None, PATIENCE).expect("the mapper answers")
}

/// A worker as an attacker knows it.
struct Target {
    endpoint: String,
    key: InstanceKey,
    incarnation: Incarnation,
}

impl Target {
    fn new(deployment: &Deployment, service: &str, instance: &str) -> Self {
        let endpoint = endpoint_of(deployment, instance);
        let report = report(deployment);
        let row = report.instances.iter().find(|row| row.instance.as_str() == instance);
        let incarnation = Incarnation(row.expect("it is listed").incarnation);
        let (service, instance) = (service.parse().unwrap(), instance.parse().unwrap());
        Self { endpoint, key: InstanceKey { service, instance }, incarnation }
    }

    fn connect(&self) -> zmq::Socket {
        dealer(&self.endpoint)
    }

    fn greet(&self, socket: &zmq::Socket) {
        let hello = ToWorker::Hello(SenderHello {
            oldest: codec::VERSION_OLDEST,
            newest: codec::VERSION,
            sender: SenderId(random_u128()),
            connection: 1,
            key: self.key.clone(),
            incarnation: self.incarnation,
            received_outcomes: 0,
            payload_bytes_max: 1000,
            takes_credits: true,
            open: Vec::new(),
        });
        tell(socket, &hello);
    }
}

fn tell(socket: &zmq::Socket, message: &ToWorker) {
    socket.send(codec::encode(message), 0).expect("it is sent");
}

fn answer(socket: &zmq::Socket) -> FromWorker {
    codec::decode(&socket.recv_bytes(0).expect("an answer")).expect("a message")
}

/// What the slowest of a hundred jobs takes, eight at a time.
fn p99(client: &Client, jobs: usize) -> Duration {
    let mut took = Vec::new();
    while took.len() < jobs {
        let submit = || (Clock.now(), client.job("nap", b"5ms".to_vec()).hold(PATIENCE).submit());
        let tickets: Vec<_> = (0..8).map(|_| submit()).collect();
        for (at, ticket) in tickets {
            let outcome = ticket.unwrap().wait();
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
            took.push(Clock.now().since(at));
        }
    }
    took.sort();
    took[took.len() * 99 / 100]
}

fn promised(deployment: &Deployment) -> u32 {
    report(deployment).instances.iter().map(|row| row.promised).sum()
}

#[test]
fn any_number_of_senders_shuts_out_no_newcomer() {
    let _alone = alone();
    let deployment = plain_deployment_of("echo", 1, ECHO);
    let target = Target::new(&deployment, "echo", "w-1");
    // As many as `submit` makes in ten seconds and more, each of which ends at once.
    for _ in 0..300 {
        let socket = target.connect();
        target.greet(&socket);
        assert!(matches!(answer(&socket), FromWorker::Welcome { .. }));
    }
    // And more than a worker keeps in mind, over a few connections.
    let sockets: Vec<_> = (0..4).map(|_| target.connect()).collect();
    for socket in &sockets {
        (0..5000).for_each(|_| target.greet(socket));
    }
    let turned_away = |socket: &zmq::Socket| {
        let answers = std::iter::from_fn(|| socket.recv_bytes(0).ok());
        let decoded = answers.map(|frame| codec::decode::<FromWorker>(&frame).unwrap());
        decoded.take(100).filter(|answer| *answer == FromWorker::TurnedAway).count()
    };
    assert!(turned_away(&sockets[0]) > 50, "one connection speaks for few senders");
    // Only when all have been read: before, the newcomer is served ahead of most of them.
    eventually("the status to count them", || {
        report(&deployment).instances.iter().all(|row| row.turned_away > 10_000)
    });
    let since = Clock.now();
    let output = svcmap(&deployment, &["submit", "echo", "--data", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"hello");
    assert!(Clock.now().since(since) < RECOVERY);
    let shown = svcmap(&deployment, &["status", "echo"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("senders turned away"), "{shown}");
}

/// One that asks for everything and says nothing more.
fn greedy(target: &Target) -> zmq::Socket {
    let socket = target.connect();
    target.greet(&socket);
    let (share, waited_us) = (u32::MAX, u64::MAX);
    let demand = Demand { share, waited_us, pinned: true, ..Demand::default() };
    tell(&socket, &ToWorker::Ask(demand));
    assert!(matches!(answer(&socket), FromWorker::Welcome { .. }));
    assert!(matches!(answer(&socket), FromWorker::Grant { .. }));
    socket
}

#[test]
fn one_that_asks_for_every_slot_and_stands_still_holds_up_nobody() {
    let _alone = alone();
    let flags = ["--builtin", "sleep", "--concurrency", "4", "--queue", "60"];
    let deployment = plain_deployment_of("nap", 1, &flags);
    let target = Target::new(&deployment, "nap", "w-1");
    let client = deployment.client().unwrap();
    let attack = || {
        let before = p99(&client, 200);
        let attacker = greedy(&target);
        let during = p99(&client, 200);
        back_after(&deployment, Clock.now());
        drop(attacker);
        (before, during)
    };
    let is_good = |(before, during): &(Duration, Duration)| {
        *during < 4 * (*before).max(Duration::from_millis(20))
    };
    // What else this machine does can spoil one measurement, or two.
    let measured: Vec<_> = (0..3).map(|_| attack()).collect();
    assert!(measured.iter().any(is_good), "{measured:?}");
    // Two have all there is; then a job waits until they turn out not to answer.
    let asked_at = Clock.now();
    let others = [greedy(&target), greedy(&target)];
    let outcome = client.job("nap", b"5ms".to_vec()).hold(PATIENCE).submit().unwrap().wait();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    back_after(&deployment, asked_at);
    drop(others);
}

/// Waits until no more is promised than what the jobs of one sender may have left.
fn back_after(deployment: &Deployment, since: Timestamp) {
    eventually("the slots to be free", || promised(deployment) <= 8);
    let took = Clock.now().since(since);
    assert!(took < RECOVERY, "{took:?}");
}

#[test]
fn two_thousand_typos_hide_no_service() {
    let _alone = alone();
    let deployment = plain_deployment_of("echo", 1, ECHO);
    let client = deployment.client().unwrap();
    let typo = |number| {
        let service = format!("eko-{number}");
        let job = client.job(&service, Vec::new()).hold(Duration::ZERO);
        job.submit().unwrap()
    };
    for round in 0..4 {
        let tickets: Vec<_> = (500 * round..500 * (round + 1)).map(typo).collect();
        let reasons = tickets.into_iter().map(|ticket| match ticket.wait() {
            Outcome::Refused(refusal) => refusal.reason,
            outcome => panic!("{outcome}"),
        });
        // All of them are asked about in one go.
        let reasons: Vec<_> = reasons.filter(|reason| *reason != Reason::NoSuchService).collect();
        assert_eq!(reasons, []);
    }
    let since = Clock.now();
    let outcome = client.submit("echo", b"1".to_vec()).unwrap().wait();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    assert!(Clock.now().since(since) < RECOVERY);
}

#[test]
fn forged_offers_make_no_job_full() {
    let _alone = alone();
    let flags = ["--builtin", "sleep", "--queue", "2"];
    let deployment = plain_deployment_of("nap", 3, &flags);
    let targets = ["w-1", "w-2", "w-3"].map(|instance| Target::new(&deployment, "nap", instance));
    let forgers = targets.each_ref().map(|target| {
        let socket = target.connect();
        target.greet(&socket);
        socket
    });
    let client = deployment.client().unwrap();
    let submit = || client.job("nap", b"10ms".to_vec()).hold(PATIENCE).submit().unwrap();
    let mut tickets = Vec::new();
    for round in 0..300 {
        tickets.push(submit());
        for (number, forger) in forgers.iter().enumerate() {
            let other = &targets[(number + 1 + round % 2) % 3];
            let slot = OfferedSlot {
                instance: other.key.instance.clone(),
                incarnation: other.incarnation,
                offer: OfferId(random_u64()),
                lifetime_ms: 1000,
                payload_bytes_max: 1000,
            };
            tell(forger, &ToWorker::Offer(slot));
        }
        svcmap::io::pause_until(Clock.now() + Duration::from_millis(3));
    }
    let outcomes: Vec<_> = tickets.into_iter().map(svcmap_worker::Ticket::wait).collect();
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
    let is_full =
        |outcome: &&Outcome| matches!(outcome, Outcome::Refused(r) if r.reason == Reason::Full);
    assert_eq!((done, outcomes.iter().filter(is_full).count()), (300, 0), "{outcomes:?}");
    let rejected: u64 = client.statistics().instances.values().map(|tally| tally.stale).sum();
    assert!(rejected > 0, "no forged offer was believed: this tests nothing");
}
