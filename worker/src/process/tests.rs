//! What only the composition decides.

use svcmap_proto::control::{
    Admission, Entry, RegistrationError, ServiceStanding, SnapshotPart, ToMapper,
};
use svcmap_proto::jobs::{OfferId, OfferedSlot, Reason, Verdict};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation};

use super::*;
use crate::choice::Policy;
use crate::config::{IntakeConfig, OutboxConfig};
use crate::outbox::{JobId, JobSpec};
use crate::testing::*;

/// A clock that is right.
const UNIX_US: u64 = 1_700_000_000_000_000;

/// A process, and what it wanted done in its last turn.
struct Scene {
    process: Process,
    outputs: Vec<ProcessOutput>,
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn instance() -> Instance {
    Instance {
        key: key(),
        incarnation: None,
        endpoint: endpoint("tcp://*:7000"),
        advertise: Vec::new(),
        host: HostId(1),
        pid: 5,
        config: IntakeConfig { concurrency: 1, queue: 9, ..IntakeConfig::default() },
    }
}

impl Scene {
    fn new(mappers: usize, instance: Option<Instance>) -> Self {
        let choice = Policy::Svcmap.choice();
        let config = OutboxConfig::default();
        let sender = Sender::new(SENDER, HostId(1), mappers, config, choice, 1);
        let named = (0..mappers).map(|port| Endpoint::tcp("10.0.0.5", port as u16).unwrap());
        let named = named.collect();
        let mut process = Process::new(at(0), named, sender, instance, 1);
        (0..mappers).for_each(|mapper| process.handle_mapper_connected(at(0), mapper));
        let mut scene = Self { process, outputs: Vec::new() };
        scene.act(at(0));
        scene
    }

    /// One of which others know already that it is life 1.
    fn known() -> Self {
        let mut scene =
            Self::new(1, Some(Instance { incarnation: Some(Incarnation(1)), ..instance() }));
        scene.hear(at(1), 0, FromMapper::Welcome(welcome()));
        scene
    }

    /// A turn.
    fn act(&mut self, now: Timestamp) {
        self.process.handle_timeout(now);
        self.outputs = std::iter::from_fn(|| self.process.poll_output(now)).collect();
    }

    fn hear(&mut self, now: Timestamp, mapper: usize, message: FromMapper) {
        self.hear_at(now, UNIX_US, mapper, message);
    }

    fn hear_at(&mut self, now: Timestamp, unix_us: u64, mapper: usize, message: FromMapper) {
        self.process.handle_mapper_message(now, unix_us, mapper, message);
        self.act(now);
    }

    fn say(&mut self, now: Timestamp, message: ToWorker) {
        self.process.handle_message(now, Connection::from(vec![1]), message);
        self.act(now);
    }

    /// With which numbers it has just registered, and where.
    fn registered(&self) -> Vec<(usize, u64, Vec<Endpoint>)> {
        let registration = |output: &ProcessOutput| match output {
            ProcessOutput::ToMapper { mapper, message: ToMapper::Register(registration) } => {
                Some((*mapper, registration.incarnation.0, registration.endpoints.clone()))
            }
            _ => None,
        };
        self.outputs.iter().filter_map(registration).collect()
    }

    fn events(&self) -> Vec<&ProcessEvent> {
        let events = self.outputs.iter().filter_map(|output| match output {
            ProcessOutput::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// The tasks that have just been started.
    fn started(&self) -> Vec<TaskId> {
        let task = |output: &ProcessOutput| match output {
            ProcessOutput::Server(ServerOutput::Start(task)) => Some(task.id),
            _ => None,
        };
        self.outputs.iter().filter_map(task).collect()
    }

    fn answers(&self) -> Vec<&FromWorker> {
        let answers = self.outputs.iter().filter_map(|output| match output {
            ProcessOutput::Server(ServerOutput::Answer { message, .. }) => Some(message),
            _ => None,
        });
        answers.collect()
    }
}

/// From the mapper of that number.
fn welcomed_by(epoch: u64) -> FromMapper {
    FromMapper::Welcome(Welcome { epoch: Epoch(epoch), ..welcome() })
}

fn welcomed(observed: &str, highest: Option<u64>) -> FromMapper {
    let (observed, highest) = (observed.to_owned(), highest.map(Incarnation));
    FromMapper::Welcome(Welcome { observed, highest, ..welcome() })
}

fn at_address(host: &str) -> Vec<Endpoint> {
    vec![endpoint(&format!("tcp://{host}:7000")), endpoint("tcp://127.0.0.1:7000")]
}

#[test]
fn the_first_welcome_makes_the_server_and_its_number() {
    let mut scene = Scene::new(1, Some(instance()));
    assert!(scene.process.server().is_none());
    scene.hear(at(1), 0, welcomed("10.0.0.9", None));
    assert_eq!(scene.registered(), [(0, UNIX_US, at_address("10.0.0.9"))]);
    assert!(scene.process.server().is_some());
    // Whoever is alive under this name makes way for this life.
    let mut scene = Scene::new(1, Some(instance()));
    scene.hear(at(1), 0, welcomed("10.0.0.9", Some(UNIX_US + 5)));
    assert_eq!(scene.registered(), [(0, UNIX_US + 6, at_address("10.0.0.9"))]);
}

#[test]
fn every_mapper_is_told_the_same_and_of_a_new_address() {
    let mut scene = Scene::new(2, Some(instance()));
    scene.hear(at(1), 0, welcomed("10.0.0.9", None));
    let (observed, highest) = ("192.168.0.9".to_owned(), Some(Incarnation(UNIX_US + 500)));
    let another = Welcome { epoch: Epoch(9), observed, highest, ..welcome() };
    scene.hear_at(at(2), UNIX_US + 1000, 1, FromMapper::Welcome(another));
    assert_eq!(scene.registered(), [(1, UNIX_US, at_address("10.0.0.9"))]);
    // The first one was restarted, and sees it elsewhere.
    let again = Welcome { epoch: Epoch(2), observed: "10.0.0.10".to_owned(), ..welcome() };
    scene.hear(at(3), 0, FromMapper::Welcome(again));
    let moved = at_address("10.0.0.10");
    let told: Vec<_> = scene.registered().into_iter().map(|(mapper, ..)| mapper).collect();
    assert!(told.contains(&0) && told.contains(&1), "{told:?}");
    assert!(scene.registered().contains(&(1, UNIX_US, moved)));
}

#[test]
fn a_life_whose_clock_was_wrong_begins_anew_unless_it_is_known() {
    let wrong = UNIX_US + 10 * limits::INCARNATION_AHEAD_US_MAX;
    let refused = FromMapper::RegistrationRefused(RegistrationError::IncarnationAhead);
    let mut scene = Scene::new(1, Some(instance()));
    scene.hear_at(at(1), wrong, 0, welcomed("", None));
    scene.hear_at(at(2), wrong, 0, refused);
    // The clock was set right, and the mapper is asked again.
    scene.act(at(60_000));
    scene.hear(at(60_001), 0, welcomed("", None));
    // It was first told of the life that it refused.
    let lives: Vec<_> = scene.registered().iter().map(|(_, incarnation, _)| *incarnation).collect();
    assert_eq!(lives, [wrong, UNIX_US]);

    let mut scene = Scene::new(1, Some(instance()));
    scene.hear_at(at(1), wrong, 0, welcomed("", None));
    let (key, incarnation) = (key(), Incarnation(wrong));
    scene.hear_at(at(2), wrong, 0, FromMapper::Registered { key, incarnation });
    assert_eq!(scene.events(), [&ProcessEvent::Registered { mapper: 0 }]);
    scene.hear(at(3), 0, FromMapper::Welcome(Welcome { epoch: Epoch(2), ..welcome() }));
    assert!(scene.registered().iter().all(|(_, incarnation, _)| *incarnation == wrong));
    assert!(!scene.registered().is_empty());
}

#[test]
fn who_speaks_before_the_first_welcome_is_told_so() {
    let mut scene = Scene::new(1, Some(instance()));
    let frames: [&[u8]; 3] = [b"c", b"", b"{}"];
    let (from, body) = json::open(&frames).unwrap();
    scene.process.handle_request(at(1), from, body).unwrap();
    scene.process.handle_wrong_version(Connection::from(vec![1]));
    scene.say(at(1), ToWorker::Hello(hello()));
    let replied = |output: &&ProcessOutput| {
        matches!(output, ProcessOutput::Server(ServerOutput::Reply { .. }))
    };
    assert_eq!(scene.outputs.iter().filter(replied).count(), 1);
    assert!(matches!(scene.answers()[..], [FromWorker::WrongVersion { .. }]));
}

#[test]
fn a_mapper_that_is_missed_is_missed_until_it_is_back() {
    let mut scene = Scene::new(1, None);
    scene.process.handle_mapper_lost(at(1), 0);
    scene.act(at(1));
    assert!(scene.events().is_empty(), "it never said a word");
    scene.process.handle_mapper_connected(at(2), 0);
    scene.hear(at(2), 0, FromMapper::Welcome(welcome()));
    let is_back = |scene: &Scene| {
        scene.outputs.iter().any(|o| matches!(o, ProcessOutput::Welcomed { is_back: true, .. }))
    };
    assert!(!is_back(&scene));
    scene.process.handle_mapper_lost(at(3), 0);
    scene.act(at(3));
    assert_eq!(scene.events(), [&ProcessEvent::MapperLost { mapper: 0 }]);
    scene.process.handle_mapper_connected(at(4), 0);
    scene.hear(at(4), 0, FromMapper::Welcome(welcome()));
    assert!(is_back(&scene));
}

/// Submits a job that nobody takes.
fn submit(scene: &mut Scene, now: Timestamp) {
    let spec = JobSpec::new(name("nobody"), Bytes::new());
    scene.process.sender().handle_submit(now, JobId(1), spec);
}

#[test]
fn a_drain_is_over_when_both_halves_are_idle_or_the_grace_is() {
    let mut scene = Scene::known();
    scene.process.drain(at(2), ms(5000));
    scene.act(at(2));
    assert_eq!(scene.process.drained(at(2)), Some(DrainReport::default()));

    for mut scene in [Scene::known(), Scene::new(1, Some(instance())), Scene::new(1, None)] {
        submit(&mut scene, at(2));
        assert_eq!(scene.process.drained(at(2)), None, "there is none");
        scene.process.drain(at(2), ms(5000));
        scene.act(at(2));
        assert_eq!(scene.process.drained(at(5001)), None);
        let due = std::iter::from_fn(|| {
            let due = scene.process.poll_timeout().filter(|due| *due <= at(5002))?;
            scene.act(due);
            Some(due)
        });
        assert_eq!(due.take(1000).last(), Some(at(5002)), "it is looked at in time, and once");
        assert_eq!(scene.process.drained(at(5002)), Some(DrainReport::default()));
    }
}

#[test]
fn a_drain_that_was_wanted_before_the_first_welcome_goes_on_after_it() {
    let mut scene = Scene::new(1, Some(instance()));
    submit(&mut scene, at(1));
    scene.process.drain(at(1), ms(5000));
    scene.hear(at(2), 0, FromMapper::Welcome(welcome()));
    assert!(scene.process.server().unwrap().is_draining());
    assert_eq!(scene.process.registration().unwrap().load.state, State::Draining);
}

#[test]
fn a_drain_hands_back_what_waits_once_a_peer_is_known() {
    let mut scene = Scene::known();
    scene.say(at(2), ToWorker::Hello(hello()));
    for number in 1..=2 {
        let mut job = job(number, attempt(number), 60_000);
        job.redirects_left = 3;
        scene.say(at(2), job.message());
    }
    scene.process.drain(at(3), ms(5000));
    scene.act(at(3));
    let rejected = |scene: &Scene| {
        let back = Verdict::Rejected(Reason::Draining);
        let is_back = |output: &&ProcessOutput| match output {
            ProcessOutput::Server(ServerOutput::Outcomes { batch, .. }) => {
                batch.outcomes.iter().any(|outcome| outcome.verdict == back)
            }
            _ => false,
        };
        scene.outputs.iter().filter(is_back).count()
    };
    assert_eq!(rejected(&scene), 0);
    let part = SnapshotPart {
        epoch: Epoch(1),
        revision: 1,
        warming: false,
        standing: ServiceStanding::Heard,
        part: 0,
        parts: 1,
        entries: vec![Entry {
            instance: name("b-1"),
            incarnation: Incarnation(1),
            endpoints: vec![endpoint("tcp://10.0.0.2:1")],
            host: HostId(2),
            pid: 1,
            error: None,
            key: None,
            load: Load { slots: 10, ..Load::default() },
            age_ms: 0,
        }],
    };
    let publication = Publication::Snapshot(part);
    scene.process.handle_publication(at(4), 0, Some(&key().service), &publication);
    scene.act(at(4));
    assert_eq!(rejected(&scene), 1);
}

#[test]
fn a_slot_of_somebody_who_is_not_known_is_declined() {
    let mut scene = Scene::known();
    scene.say(at(2), ToWorker::Hello(hello()));
    let slot = OfferedSlot {
        instance: name("b-1"),
        incarnation: Incarnation(1),
        offer: OfferId(9),
        lifetime_ms: 100,
        payload_bytes_max: 1000,
    };
    scene.say(at(3), ToWorker::Offer(slot));
    assert!(scene.answers().contains(&&FromWorker::Declined(OfferId(9))));
}

#[test]
fn a_handler_that_has_finished_gets_its_next_job_before_anything_else_is_done() {
    let mut scene = Scene::known();
    scene.say(at(2), ToWorker::Hello(hello()));
    scene.say(at(2), job(1, attempt(1), 60_000).message());
    let [task] = scene.started()[..] else { panic!("{:?}", scene.outputs) };
    scene.say(at(2), job(2, attempt(2), 60_000).message());
    // The sending half has something to say.
    submit(&mut scene, at(3));
    scene.process.handle_timeout(at(3));
    let is_sender =
        |output| matches!(output, ProcessOutput::Sender(_) | ProcessOutput::ToMapper { .. });
    assert!(scene.process.poll_output(at(3)).is_some_and(is_sender));
    scene.process.handle_finished(at(3), task, (at(2), at(3)), Ending::Done, Bytes::new());
    let next = scene.process.poll_output(at(3));
    assert!(matches!(next, Some(ProcessOutput::Server(ServerOutput::Start(_)))), "{next:?}");
}

#[test]
fn who_comes_much_later_than_was_due_was_suspended() {
    let late = |due, acted_at, now| Process::suspended_for(due, at(acted_at), at(now));
    assert_eq!(late(Some(at(10)), 0, 1010), None);
    assert_eq!(late(Some(at(10)), 0, 1011), Some(ms(1001)));
    assert_eq!(late(Some(at(10)), 500, 1011), None, "it was busy");
    assert_eq!(late(None, 0, 9999), None);
}

#[test]
fn connections_are_taken_from_whom_a_mapper_names_and_none_has_revoked() {
    let mut scene = Scene::new(2, Some(instance()));
    let key = |number| PublicKey([number; 32]);
    let mut admitted = |mapper, keys: &[u8], revoked: &[u8]| {
        let [keys, revoked] = [keys, revoked].map(|all| all.iter().copied().map(key).collect());
        let admission = Admission { keys, revoked };
        scene.hear(at(1), mapper, FromMapper::Admit(admission));
        let admitted = scene.outputs.iter().find_map(|output| match output {
            ProcessOutput::Admit(keys) => Some(keys.iter().map(|key| key.0[0]).collect::<Vec<_>>()),
            _ => None,
        });
        admitted.unwrap()
    };
    assert_eq!(admitted(0, &[1, 2], &[]), [1, 2]);
    assert_eq!(admitted(1, &[2, 3], &[]), [1, 2, 3]);
    // Revoked at one is revoked, whatever the other said.
    assert_eq!(admitted(1, &[3], &[2]), [1, 3]);
    assert_eq!(admitted(0, &[1, 2, 4], &[]), [1, 3, 4]);
}

#[test]
fn mappers_that_answer_are_told_each_second_which_jobs_have_waited_for_a_while() {
    let mut scene = Scene::new(2, None);
    scene.hear(at(1), 1, FromMapper::Welcome(welcome()));
    let submit = |scene: &mut Scene, job, service: &str| {
        let spec = JobSpec::new(name(service), Bytes::new());
        scene.process.sender().handle_submit(at(950), JobId(job), spec);
        scene.act(at(950));
    };
    let told = |scene: &Scene| -> Vec<(usize, Vec<(Name, u32)>)> {
        let told = scene.outputs.iter().filter_map(|output| match output {
            ProcessOutput::ToMapper { mapper, message: ToMapper::Waiting { jobs } } => {
                Some((*mapper, jobs.clone()))
            }
            _ => None,
        });
        told.collect()
    };
    submit(&mut scene, 1, "a");
    (2..4).for_each(|job| submit(&mut scene, job, "b"));
    assert_eq!(told(&scene), []);
    // They are only on their way.
    scene.act(at(1001));
    assert_eq!(told(&scene), []);
    let due = scene.process.poll_timeout().unwrap();
    assert!(due <= at(1950), "they are looked at each second, so it needs no timer: {due:?}");
    scene.act(at(2001));
    assert_eq!(told(&scene), [(1, vec![(name("b"), 2), (name("a"), 1)])]);
    scene.hear(at(3000), 1, FromMapper::Welcome(welcome()));
    assert_eq!(told(&scene), []);
    scene.act(at(3001));
    assert_eq!(told(&scene).len(), 1);
    // Whoever ends says that nothing waits any more, once.
    scene.process.stop(at(3100));
    scene.act(at(3100));
    assert_eq!(told(&scene), [(1, Vec::new())]);
    scene.act(at(4200));
    assert_eq!(told(&scene), []);
}

/// Which mappers are to be dialled, or not any more, and what is looked up.
fn connections(scene: &Scene) -> Vec<String> {
    let said = scene.outputs.iter().filter_map(|output| match output {
        ProcessOutput::Dial { mapper, at } => Some(format!("dial {mapper}: {at}")),
        ProcessOutput::HangUp { mapper } => Some(format!("hang up {mapper}")),
        ProcessOutput::LookUp(name) => Some(format!("look up {name}")),
        _ => None,
    });
    said.collect()
}

#[test]
fn a_mapper_that_is_met_twice_is_registered_with_once_until_it_is_lost() {
    let mut scene = Scene::new(2, Some(instance()));
    scene.hear(at(1), 0, welcomed_by(1));
    assert_eq!(scene.registered().len(), 1);
    scene.hear(at(2), 1, welcomed_by(1));
    assert_eq!((scene.registered(), connections(&scene)), (vec![], vec!["hang up 1".to_owned()]));
    assert_eq!(scene.process.mapper_counts().0, 1);
    // It says nothing, and that is no silence.
    scene.hear(at(5000), 0, welcomed_by(1));
    assert_eq!(connections(&scene), [""; 0]);
    scene.process.handle_mapper_lost(at(6000), 0);
    scene.act(at(6000));
    assert_eq!(connections(&scene), ["dial 1: tcp://10.0.0.5:1"]);
    // It was another one's address meanwhile.
    scene.process.handle_mapper_connected(at(6001), 1);
    scene.hear(at(6002), 1, welcomed_by(2));
    assert_eq!(scene.registered()[0].0, 1);
    scene.process.handle_mapper_connected(at(6003), 0);
    scene.hear(at(6004), 0, welcomed_by(3));
    assert_eq!(scene.registered()[0].0, 0);
    assert_eq!(scene.process.mapper_counts().0, 2);
}

#[test]
fn each_address_of_a_name_is_registered_with_and_who_is_gone_is_not_missed() {
    let choice = Policy::Svcmap.choice();
    let sender = Sender::new(SENDER, HostId(1), 1, OutboxConfig::default(), choice, 1);
    let named = vec![endpoint("tcp://mappers.example:5555")];
    let process = Process::new(at(0), named, sender, Some(instance()), 1);
    let mut scene = Scene { process, outputs: Vec::new() };
    scene.act(at(0));
    assert_eq!(connections(&scene), ["look up tcp://mappers.example:5555"]);
    let addresses = |hosts: &[&str]| {
        hosts.iter().map(|host| Endpoint::tcp(host, 5555).unwrap()).collect::<Vec<_>>()
    };
    scene.process.handle_addresses(at(1), Ok(addresses(&["10.0.0.1", "10.0.0.2"])));
    scene.act(at(1));
    assert_eq!(
        connections(&scene),
        ["10.0.0.1", "10.0.0.2"].map(|host| {
            let mapper = if host == "10.0.0.1" { 0 } else { 1 };
            format!("dial {mapper}: tcp://mappers.example:5555 ({host})")
        })
    );
    for mapper in 0..2 {
        scene.process.handle_mapper_connected(at(2), mapper);
        scene.hear(at(2), mapper, welcomed_by(mapper as u64));
        assert_eq!(scene.registered()[0].0, mapper);
    }
    scene.process.handle_mapper_lost(at(1000), 0);
    scene.act(at(1000));
    scene.act(at(1500));
    assert_eq!(connections(&scene), ["look up tcp://mappers.example:5555"]);
    scene.process.handle_addresses(at(1501), Ok(addresses(&["10.0.0.2"])));
    scene.act(at(1501));
    assert_eq!(connections(&scene), ["hang up 0"]);
    assert!(scene.events().contains(&&ProcessEvent::MapperGone { mapper: 0 }));
    // The other one is asked, and nothing is said of this one.
    scene.hear(at(3000), 1, welcomed_by(1));
    scene.act(at(5000));
    assert!(scene.events().is_empty() && !connections(&scene).contains(&"hang up 0".to_owned()));
    // Whoever leaves looks nothing up any more, and dials nobody.
    scene.process.handle_mapper_lost(at(5000), 1);
    scene.process.stop(at(5000));
    for round in 5..200 {
        scene.act(at(round * 1000));
        assert_eq!(connections(&scene), Vec::<String>::new());
    }
}
