//! What a mapper takes and how fast it is, beside what libzmq alone does with the same bytes: reports
//! and look-ups a second, a storm of registrations, processor time and memory of many instances that
//! beat, and how long a change takes to all who follow it.
//!
//! `cargo bench -p svcmap-tests --bench mapper`; with words behind `--` only the measures that have
//! one of them in their names. Ratios are of rounds that are run in turn, and are what counts:
//! absolute figures say more about the machine. It needs 11,000 open files and some two minutes.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use rustix::event::epoll;
use svcmap_proto::codec;
use svcmap_proto::control::{Change, FromMapper, Publication, ToMapper, topic};
use svcmap_proto::io::raise_open_files_limit;
use svcmap_tests::bench::{Cache, Fleet, RawEcho, cpu_time, own_memory_kb, raw_echo, spread};
use svcmap_tests::zmtp::{Raw, message};
use svcmap_tests::{Deployment, MAPPER, deployment};

const ROUNDS: usize = 5;

/// Reports in a round, and how many a connection says at once.
const REPORTS: (usize, usize) = (200_000, 50);

/// Instances and connections that say them.
const REPORTERS: (usize, usize) = (1_000, 100);

/// Look-ups in a round, and how many are under way.
const LOOKUPS: (usize, usize) = (50_000, 100);

/// Instances of the storm, and those of them that beat while processor time is taken.
const INSTANCES: (usize, usize) = (10_000, 9_000);

const SERVICES: usize = 10;

/// How long they beat.
const BEATS: Duration = Duration::from_secs(10);

const SUBSCRIBERS: usize = 1_000;

/// Changes that are told to all of them, and what each waits for company in the mapper.
const CHANGES: (usize, Duration) = (100, Duration::from_millis(5));

fn main() {
    if raw_echo() {
        return;
    }
    raise_open_files_limit();
    let words: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let measures: [(&str, fn()); 5] = [
        ("reports", reports),
        ("lookups", lookups),
        ("syncs", syncs),
        ("instances", instances),
        ("changes", changes),
    ];
    println!("{:<44}  {:>30}  MUST -> AIM", "MEASURE", "FIGURE");
    for (name, measure) in measures {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            measure();
        }
    }
}

fn row(measure: &str, figure: impl std::fmt::Display, goal: &str) {
    println!("{measure:<44}  {figure:>30}  {goal}");
}

fn mapper_pid(deployment: &Deployment) -> u32 {
    deployment.pid(MAPPER).expect("it runs")
}

/// Rates of a raw peer and of the mapper, in turn; the first round warms up.
fn compare(what: &str, goal: &str, mut raw: impl FnMut() -> f64, mut mapper: impl FnMut() -> f64) {
    let (mut raw_rates, mut mapper_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let rates = (raw(), mapper());
        if round > 0 {
            raw_rates.push(rates.0);
            mapper_rates.push(rates.1);
            ratios.push(rates.1 / rates.0 * 1000.0);
        }
    }
    row(&format!("{what}, raw libzmq"), spread(raw_rates).0, "");
    row(&format!("{what}, mapper"), spread(mapper_rates).0, "");
    row("  of raw, in thousandths", spread(ratios).0, goal);
}

/// Reports that are read and taken each second, beside a ROUTER that reads the same bytes.
fn reports() {
    let (raw, mapper) = (RawEcho::start_sink(), deployment());
    let rate = |endpoint: &str| {
        let mut fleet = Fleet::connect(endpoint, REPORTERS.0, SERVICES, REPORTERS.1);
        fleet.register();
        fleet.settle();
        move || {
            let chunks = fleet.reports(REPORTS.0, REPORTS.1);
            let started = Instant::now();
            fleet.say(&chunks);
            fleet.settle();
            REPORTS.0 as f64 / started.elapsed().as_secs_f64()
        }
    };
    let rates = (rate(raw.endpoint()), rate(mapper.mapper().as_str()));
    compare("reports a second", "400 -> 800", rates.0, rates.1);
}

/// GET_PEER of a service among a thousand instances, a hundred at a time over one connection.
fn lookups() {
    let (raw, mapper) = (RawEcho::start(zmq::ROUTER), deployment());
    let mut fleet = Fleet::connect(mapper.mapper().as_str(), REPORTERS.0, SERVICES, REPORTERS.1);
    fleet.register();
    fleet.settle();
    let ask = message(&[b"", br#"{"command": "GET_PEER", "payload": {"name": "s1"}}"#]);
    let ask = &ask;
    let beat = move || {
        let chunks = fleet.reports(REPORTERS.0, REPORTERS.0 / REPORTERS.1);
        fleet.say(&chunks);
        fleet.settle();
    };
    let rate = |endpoint: &str, mut before: Box<dyn FnMut()>| {
        let mut peer = Raw::connect(endpoint).expect("it listens");
        let window = ask.repeat(LOOKUPS.1);
        move || {
            before();
            let started = Instant::now();
            for _ in 0..LOOKUPS.0 / LOOKUPS.1 {
                peer.write(&window).expect("it reads");
                for _ in 0..LOOKUPS.1 {
                    let reply = peer.receive().expect("a reply");
                    let is_known = reply[1].windows(9).any(|bytes| bytes == b"127.0.0.1");
                    assert!(is_known || reply[1] == ask[4..], "{reply:?}");
                }
            }
            LOOKUPS.0 as f64 / started.elapsed().as_secs_f64()
        }
    };
    let mapper = rate(mapper.mapper().as_str(), Box::new(beat));
    let rates = (rate(raw.endpoint(), Box::new(|| {})), mapper);
    compare("look-ups a second, 100 at a time", "", rates.0, rates.1);
}

/// Snapshots of a service of a hundred instances that many connections ask for at once.
fn syncs() {
    let mapper = deployment();
    let endpoint = mapper.mapper().as_str();
    let mut fleet = Fleet::connect(endpoint, REPORTERS.0, SERVICES, REPORTERS.1);
    fleet.register();
    fleet.settle();
    let connect = |_| Raw::connect(endpoint).expect("it listens");
    let mut peers: Vec<_> = (0..SUBSCRIBERS).map(connect).collect();
    let sync = codec::encode(&ToMapper::Sync { service: "s1".parse().expect("a name") });
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        peers.iter_mut().for_each(|peer| peer.send(&[&sync]).expect("it reads"));
        for peer in &mut peers {
            let answer = peer.receive().expect("a snapshot");
            let Ok(FromMapper::Snapshot { part, .. }) = codec::decode(&answer[0]) else {
                panic!("no snapshot: {answer:?}")
            };
            assert_eq!(part.entries.len(), REPORTERS.0 / SERVICES);
        }
        rates.push(SUBSCRIBERS as f64 / started.elapsed().as_secs_f64());
        // Who asks the same again within 50 ms is not answered.
        std::thread::sleep(Duration::from_millis(60));
    }
    row("snapshots of 100 a second, to 1,000 who ask", spread(rates).0, "");
}

/// A storm of registrations until a cache has all; then the memory and processor time that they take.
fn instances() {
    let raw = {
        let raw = RawEcho::start_sink();
        let before = own_memory_kb(raw.pid());
        let mut fleet = Fleet::connect(raw.endpoint(), INSTANCES.0, SERVICES, INSTANCES.0);
        fleet.register();
        taken(raw.pid(), before, fleet)
    };
    storm(1);
    let ((mapper, before), fleet) = storm(SERVICES);
    let mapper = taken(mapper_pid(&mapper), before, fleet);
    let what = format!("{} with news each second", INSTANCES.1);
    row("memory for each connection, raw libzmq", format!("{} B", raw.0), "");
    let beyond = mapper.0.saturating_sub(raw.0);
    row("memory for each instance beyond that", format!("{beyond} B"), "1024 B -> 400 B");
    row(&format!("{what}, raw libzmq"), format!("{:.1} % of a core", raw.1), "");
    row(&format!("{what}, mapper"), format!("{:.1} % of a core", mapper.1), "10 % -> 5 %");
}

/// What a process takes for those who beat: bytes for each of them, and its share of a core.
fn taken(pid: u32, before_kb: u64, mut fleet: Fleet) -> (u64, f64) {
    fleet.beat(BEATS);
    fleet.settle();
    let bytes = (own_memory_kb(pid) - before_kb) * 1024 / INSTANCES.0 as u64;
    fleet.shrink(INSTANCES.1);
    // Until the others have expired.
    fleet.beat(Duration::from_secs(4));
    let before = cpu_time(&[pid]);
    fleet.beat(BEATS);
    (bytes, (cpu_time(&[pid]) - before).as_secs_f64() / BEATS.as_secs_f64() * 100.0)
}

/// Everybody registers at once, over connections that stand. Returns the mapper, with its memory in
/// kB before that, and the instances.
fn storm(services: usize) -> ((Deployment, u64), Fleet) {
    let mapper = deployment();
    let before = own_memory_kb(mapper_pid(&mapper));
    let endpoint = mapper.mapper().as_str();
    let mut cache = Cache::connect(endpoint, services);
    let mut fleet = Fleet::connect(endpoint, INSTANCES.0, services, INSTANCES.0);
    let started = Instant::now();
    fleet.register();
    cache.wait_members(INSTANCES.0);
    let took = started.elapsed().as_secs_f64();
    let what = format!("{} registrations of {services}, cache has all", INSTANCES.0);
    row(&what, format!("{took:.2} s"), "3 s -> 2 s");
    ((mapper, before), fleet)
}

/// One instance crosses idle again and again; how long until each of the subscribers has that.
fn changes() {
    let (raw, publish) = RawEcho::start_publisher("s0/");
    let mut fleet = Fleet::connect(raw.endpoint(), 1, 1, 1);
    let [each, last] = times(&mut fleet, &publish, |_| true);
    row("a change at each of 1,000, raw, median", beyond(&each, 50), "");
    row("a change at each of 1,000, raw, p99", beyond(&each, 99), "");
    row("  at all of them, raw, p99", beyond(&last, 99), "");
    let mapper = deployment();
    let endpoint = mapper.mapper().as_str();
    let mut fleet = Fleet::connect(endpoint, 1, 1, 1);
    fleet.register();
    fleet.settle();
    let publish = Cache::connect(endpoint, 1).publish;
    let [each, last] = times(&mut fleet, &publish, is_change);
    row("a change at each of 1,000, mapper, median", beyond(&each, 50), "");
    row("a change at each of 1,000, mapper, p99", beyond(&each, 99), "20 ms -> 5 ms");
    row("  at all of them, mapper, p99", beyond(&last, 99), "20 ms -> 5 ms");
}

/// How long each change takes to each of the subscribers, and to the last one.
fn times(
    fleet: &mut Fleet,
    publish: &str,
    is_change: impl Fn(&[u8]) -> bool,
) -> [Vec<Duration>; 2] {
    let topic = topic(&"s0".parse().expect("a name"));
    let connect = |_| Raw::subscribe(publish, &topic).expect("it listens");
    let mut followers: Vec<_> = (0..SUBSCRIBERS).map(connect).collect();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a poll");
    for (number, follower) in followers.iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, follower, data, epoll::EventFlags::IN).expect("it is watched");
    }
    // Whatever is published next comes to everybody.
    pause(BEATS / 10);
    fleet.report(0, 1);
    for follower in &mut followers {
        while !is_change(&follower.receive().expect("a publication")[1]) {}
    }
    let (mut each, mut last) = (Vec::new(), Vec::new());
    for turn in 0..CHANGES.0 {
        pause(Duration::from_millis(50));
        let started = Instant::now();
        fleet.report(0, (turn % 2) as u32);
        let (mut missing, mut events) = (SUBSCRIBERS, Vec::with_capacity(SUBSCRIBERS));
        while missing > 0 {
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).expect("a poll");
            for event in events.drain(..) {
                let event: epoll::Event = event;
                let follower = &mut followers[event.data.u64() as usize];
                follower.read().expect("a publication");
                while let Some(frames) = follower.next_message() {
                    if is_change(&frames[1]) {
                        each.push(started.elapsed());
                        missing -= 1;
                    }
                }
            }
        }
        last.push(started.elapsed());
    }
    each.sort();
    last.sort();
    [each, last]
}

/// The time within which so many of a hundred were told, beyond what each waits for company.
fn beyond(times: &[Duration], share: usize) -> String {
    let time = times[(times.len() * share / 100).min(times.len() - 1)];
    format!("{:.1} ms", time.saturating_sub(CHANGES.1).as_secs_f64() * 1000.0)
}

/// Nothing happens for so long: that is what is measured, not a condition that would be awaited.
fn pause(length: Duration) {
    svcmap::io::pause_until(svcmap_proto::io::Clock.now() + length);
}

fn is_change(frame: &[u8]) -> bool {
    match codec::decode(frame) {
        Ok(Publication::Changes(part)) => {
            part.changes.iter().any(|change| matches!(change, Change::Load { .. }))
        }
        _ => false,
    }
}
