//! Connections that die without a word: an address that changes, a router that forgets what passes
//! through it. In network namespaces, so for root only.

use std::process::Stdio;
use std::time::Duration;

use svcmap::commands::status::Report;
use svcmap::io::pause_until;
use svcmap_proto::io::Clock;
use svcmap_proto::names::{Endpoint, Name};
use svcmap_proto::time::Timestamp;
use svcmap_tests::netns::{Host, Network, Process, address};
use svcmap_tests::{Count, eventually};
use svcmap_worker::{Client, Outcome, Ticket};

/// Short, so that the tests are.
const BEAT: Duration = Duration::from_millis(400);
const EXPIRY: Duration = BEAT.saturating_mul(3);

const CONTROL: u16 = 5555;
const PUBLISH: u16 = 5556;

fn start_mapper(host: &Host) -> (Process, Endpoint) {
    let [bind, publish] = [CONTROL, PUBLISH].map(|port| format!("tcp://{}:{port}", host.address));
    let beat = format!("{}ms", BEAT.as_millis());
    let args = ["mapper", "--bind", &bind, "--publish", &publish, "--beat", &beat];
    (host.start(&args, Stdio::null()), bind.parse().unwrap())
}

/// A mapper on the first host, a worker on the second and a sender on the third.
struct Scene {
    client: Client,
    _processes: Vec<Process>,
    mapper: Endpoint,
    // The last to go: first the processes in it.
    network: Network,
}

impl Scene {
    /// `None` where there can be no namespaces.
    fn new() -> Option<Self> {
        let network = Network::new(3)?;
        let (running, mapper) = start_mapper(&network.hosts[0]);
        let client = network.hosts[2].run(|| Client::connect(&mapper).unwrap());
        let mut scene = Self { client, _processes: vec![running], mapper, network };
        scene.start_worker("a");
        scene.finish_jobs(1);
        Some(scene)
    }

    fn mapper_host(&self) -> &Host {
        &self.network.hosts[0]
    }

    fn worker_host(&self) -> &Host {
        &self.network.hosts[1]
    }

    fn sender_host(&self) -> &Host {
        &self.network.hosts[2]
    }

    fn start_worker(&mut self, instance: &str) {
        let args = ["worker", "--service", "sleep", "--builtin", "sleep", "--concurrency", "4"];
        let own = ["--queue", "60", "--instance", instance, "--mapper", self.mapper.as_str()];
        let worker = self.worker_host().start(&[&args[..], &own].concat(), Stdio::null());
        self._processes.push(worker);
        self.wait_listed(instance, &address(2));
    }

    /// Waits until an instance is listed with an address. Returns when it was.
    fn wait_listed(&self, instance: &str, address: &str) -> Timestamp {
        self.mapper_host().wait_for(&self.mapper, &format!("{instance} at {address}"), |report| {
            report.instances.iter().any(|row| {
                let is_there = row.endpoint.as_ref().is_some_and(|at| at.host() == address);
                row.instance.as_str() == instance && is_there
            })
        })
    }

    fn submit(&self, jobs: usize) -> Vec<Ticket> {
        (0..jobs).map(|_| self.client.submit("sleep", b"50ms".to_vec()).unwrap()).collect()
    }

    /// Submits jobs one after the other, of which each must be done.
    fn finish_jobs(&self, jobs: usize) {
        for _ in 0..jobs {
            let outcome = self.client.submit("sleep", b"1ms".to_vec()).unwrap().wait();
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
    }

    /// How old what the sender knows of the workers is.
    fn age(&self) -> Duration {
        let told_ago = self.client.statistics().told_ago;
        *told_ago.get(&"sleep".parse::<Name>().unwrap()).unwrap()
    }
}

#[test]
fn a_worker_whose_address_changes_is_listed_again_and_its_jobs_are_accounted_for() {
    let Some(mut scene) = Scene::new() else { return };
    let tickets = scene.submit(40);
    let changed_at = Clock.now();
    scene.network.hosts[1].change_address(12);
    let listed_at = scene.wait_listed("a", &address(12));
    let took = listed_at.since(changed_at);
    assert!(took < 2 * EXPIRY, "{took:?}");
    let count = Count::of(tickets);
    assert_eq!((count.all(), count.failed), (40, 0), "{count:?}");
    // The sender reaches it where it is now.
    eventually("the sender to know", || {
        let ticket = scene.client.submit("sleep", b"1ms".to_vec()).unwrap();
        matches!(ticket.wait(), Outcome::Done(_))
    });
    scene.finish_jobs(5);
}

#[test]
fn a_connection_that_dies_while_nothing_is_open_holds_up_no_job() {
    let Some(mut scene) = Scene::new() else { return };
    // Until no credit is left there.
    pause_until(Clock.now() + Duration::from_secs(2));
    let since = Clock.now();
    scene.network.hosts[1].change_address(12);
    scene.finish_jobs(1);
    let took = Clock.now().since(since);
    assert!(took < 3 * EXPIRY, "{took:?}");
}

#[test]
fn a_worker_whose_control_connection_dies_is_listed_again() {
    let Some(scene) = Scene::new() else { return };
    let before = scene.worker_host().connections_to(CONTROL);
    let lost_at = Clock.now();
    assert_eq!(scene.worker_host().lose_connections(scene.mapper_host(), CONTROL), 1);
    eventually("another connection", || {
        let now = scene.worker_host().connections_to(CONTROL);
        now.iter().any(|port| !before.contains(port))
    });
    let took = scene.wait_listed("a", &address(2)).since(lost_at);
    assert!(took < 2 * EXPIRY, "{took:?}");
    // It stays so: what it reports arrives.
    let until = Clock.now() + 2 * EXPIRY;
    while Clock.now() < until {
        scene.wait_listed("a", &address(2));
        svcmap::io::pause_until(Clock.now() + BEAT / 4);
    }
    scene.finish_jobs(5);
}

#[test]
fn a_sender_whose_connections_to_the_mapper_die_learns_who_is_new() {
    let Some(mut scene) = Scene::new() else { return };
    let (sender, mapper) = (scene.sender_host(), scene.mapper_host());
    assert_eq!(sender.lose_connections(mapper, CONTROL), 1);
    assert_eq!(sender.lose_connections(mapper, PUBLISH), 1);
    let lost_at = Clock.now();
    scene.start_worker("b");
    scene.wait_used("b");
    let took = Clock.now().since(lost_at);
    assert!(took < 2 * EXPIRY, "{took:?}");
    eventually("news", || scene.age() < 2 * BEAT);
}

#[test]
fn a_sender_that_gets_no_publications_any_more_asks_and_subscribes_anew() {
    let Some(mut scene) = Scene::new() else { return };
    let before = scene.sender_host().connections_to(PUBLISH);
    assert_eq!(scene.sender_host().lose_connections(scene.mapper_host(), PUBLISH), 1);
    let lost_at = Clock.now();
    scene.start_worker("b");
    scene.wait_used("b");
    let took = Clock.now().since(lost_at);
    assert!(took < 2 * EXPIRY, "{took:?}");
    let control = scene.sender_host().connections_to(CONTROL);
    eventually("another subscription", || {
        let now = scene.sender_host().connections_to(PUBLISH);
        now.iter().any(|port| !before.contains(port))
    });
    eventually("news", || scene.age() < 2 * BEAT);
    assert_eq!(scene.sender_host().connections_to(CONTROL), control, "the other one lives");
    scene.finish_jobs(5);
}

#[test]
fn a_mapper_whose_name_leads_elsewhere_by_now_is_found_there() {
    let Some(network) = Network::new(3) else { return };
    let [first, host, second] = &network.hosts[..] else { return };
    host.set_name("mapper.test", &[&first.address]);
    let (_first, at_first) = start_mapper(first);
    let (_second, at_second) = start_mapper(second);
    let args = ["worker", "--service", "echo", "--builtin", "echo", "--mapper"];
    let worker = host.start(&[&args[..], &["tcp://mapper.test:5555"]].concat(), Stdio::null());
    let is_listed = |report: &Report| report.instances.len() == 1;
    first.wait_for(&at_first, "the worker", is_listed);
    host.set_name("mapper.test", &[&second.address]);
    first.unplug();
    let lost_at = Clock.now();
    let took = second.wait_for(&at_second, "the worker", is_listed).since(lost_at);
    assert!(took < 2 * EXPIRY, "{took:?}");
    drop(worker);
}

impl Scene {
    /// Waits until the sender has sent something to that instance.
    fn wait_used(&self, instance: &str) {
        eventually("jobs at the new worker", || {
            Count::of(self.submit(8));
            let statistics = self.client.statistics();
            statistics.instances.keys().any(|key| key.instance.as_str() == instance)
        });
    }
}
