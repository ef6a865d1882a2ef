//! Peers that mean harm, or are broken: what they make others keep is bounded, nobody is expired
//! over them, and others are served. `docs/limits.md` states the bounds.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::codec;
use svcmap_proto::control::ToMapper;
use svcmap_proto::io::Clock;
use svcmap_proto::jobs::{AttemptId, Claim, JobBatch, JobHeader, Priority, SenderHello, ToWorker};
use svcmap_proto::names::{Incarnation, InstanceKey, SenderId};
use svcmap_proto::payload::{self, Frame, Payloads};
use svcmap_tests::attack::{Attack, Expiries, Peak, median, p99, publisher_of, times};
use svcmap_tests::zmtp::{Raw, frame};
use svcmap_tests::{Deployment, MAPPER, endpoint_of, eventually, plain_deployment_of};

/// Attacks load the machine, so one after another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const NAPS: &[&str] = &["--builtin", "sleep", "--concurrency", "4"];

/// A mapper and a worker under attack.
struct Stage {
    deployment: Deployment,
    worker: String,
    expiries: Expiries,
    _alone: std::sync::MutexGuard<'static, ()>,
}

impl Stage {
    fn new(service: &str, flags: &[&str]) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let deployment = plain_deployment_of(service, 1, flags);
        let worker = endpoint_of(&deployment, "w-1");
        let expiries = Expiries::of(&deployment);
        Self { deployment, worker, expiries, _alone: alone }
    }

    fn mapper(&self) -> &str {
        self.deployment.mapper().as_str()
    }

    fn peak(&self, name: &str) -> Peak {
        Peak::of(self.deployment.pid(name).unwrap())
    }

    /// Nobody was expired, and jobs are done within two seconds.
    fn assert_served(&self, service: &str, job: &[u8]) {
        let ended = Clock.now();
        let client = self.deployment.client().unwrap();
        let outcome = client.submit(service, job.to_vec()).unwrap().wait();
        assert!(matches!(outcome, svcmap_worker::Outcome::Done(_)), "{outcome}");
        let took = Clock.now().since(ended);
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(self.expiries.names(), Vec::<String>::new(), "expired");
    }

    /// Which life of the worker is listed.
    fn incarnation(&self) -> Incarnation {
        let mappers = std::slice::from_ref(self.deployment.mapper());
        let patience = svcmap_tests::PATIENCE;
        let report = svcmap::commands::status::ask(mappers, None, patience).unwrap();
        let row = report.instances.iter().find(|row| row.instance.as_str() == "w-1").unwrap();
        Incarnation(row.incarnation)
    }
}

#[test]
fn frames_without_an_end_end_their_connection() {
    let stage = Stage::new("nap", NAPS);
    for (name, endpoint) in [(MAPPER, stage.mapper()), ("w-1", &stage.worker)] {
        let peak = stage.peak(name);
        let before_kb = peak.kb();
        let mut peer = Raw::connect(endpoint).unwrap();
        // 24 MiB, three bytes for each frame.
        let many = frame(true, b"x").repeat(8 * 1024);
        let sent = (0..1024).take_while(|_| peer.write(&many).is_ok()).count();
        assert!(peer.is_closed(), "{name} goes on after {sent} x 24 KiB");
        let grown_kb = peak.kb().saturating_sub(before_kb);
        assert!(grown_kb < 16 * 1024, "{name} grew by {grown_kb} kB");
    }
    // A few large frames are no better than many small ones.
    let peak = stage.peak("w-1");
    let before_kb = peak.kb();
    let mut peer = Raw::connect(&stage.worker).unwrap();
    let large = frame(true, &vec![0; 1024 * 1024]);
    let sent = (0..64).take_while(|_| peer.write(&large).is_ok()).count();
    assert!(peer.is_closed(), "goes on after {sent} MiB");
    let grown_kb = peak.kb().saturating_sub(before_kb);
    assert!(grown_kb < 16 * 1024, "{grown_kb} kB");
    stage.assert_served("nap", b"1ms");
}

#[test]
fn subscriptions_without_an_end_are_not_kept() {
    let stage = Stage::new("nap", NAPS);
    let publisher = publisher_of(&stage.deployment);
    let (peak, mut random) = (stage.peak(MAPPER), fastrand::Rng::with_seed(1));
    let before_kb = peak.kb();
    let mut peer = Raw::subscribe(publisher.as_str(), b"x").unwrap();
    // 8 MB, of which libzmq would make 300.
    for _ in 0..100 {
        let mut topic =
            || [&[1][..], &std::array::from_fn::<u8, 77, _>(|_| random.u8(..))].concat();
        let topics: Vec<Vec<u8>> = (0..1000).map(|_| frame(false, &topic())).collect();
        peer.write(&topics.concat()).unwrap();
    }
    stage.assert_served("nap", b"1ms");
    // It goes on while the first ones are taken, so long ones come over another connection.
    let mut other = Raw::subscribe(publisher.as_str(), b"x").unwrap();
    let long = frame(false, &[1; 100 * 1024]);
    assert!(other.write(&long).is_err() || other.is_closed());
    let grown_kb = peak.kb().saturating_sub(before_kb);
    assert!(grown_kb < 16 * 1024, "{grown_kb} kB");
    stage.assert_served("nap", b"1ms");
}

#[test]
fn json_that_is_too_large_is_not_read_and_does_not_pile_up() {
    let stage = Stage::new("nap", NAPS);
    let body = format!("{{\"task\":[0{}]}}", ",0".repeat(900 * 1024));
    let peak = stage.peak("w-1");
    let before_kb = peak.kb();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut peer = Raw::connect(&stage.worker).unwrap();
                let message = [frame(true, b""), frame(false, body.as_bytes())].concat();
                (0..60).take_while(|_| peer.write(&message).is_ok()).count();
            });
        }
    });
    stage.assert_served("nap", b"1ms");
    // For each: a mebibyte, and three messages of 2 MiB.
    let grown_kb = peak.kb() - before_kb;
    assert!(grown_kb < 4 * 7 * 1024 + 16 * 1024, "grew by {grown_kb} kB");
}

#[test]
fn a_sender_that_reads_no_results_makes_a_worker_keep_little() {
    let stage = Stage::new("echo", &["--builtin", "echo", "--queue", "60"]);
    let key = InstanceKey { service: "echo".parse().unwrap(), instance: "w-1".parse().unwrap() };
    let hello = ToWorker::Hello(SenderHello {
        oldest: codec::VERSION_OLDEST,
        newest: codec::VERSION,
        sender: SenderId(7),
        connection: 1,
        key,
        incarnation: stage.incarnation(),
        received_outcomes: 0,
        payload_bytes_max: 1 << 20,
        takes_credits: false,
        open: Vec::new(),
    });
    let peak = stage.peak("w-1");
    let before_kb = peak.kb();
    let mut peer = Raw::connect(&stage.worker).unwrap();
    peer.send(&[&codec::encode(&hello)]).unwrap();
    let payload = Bytes::from(vec![7; 512 * 1024]);
    for number in 1..=600 {
        let job = JobHeader {
            attempt: AttemptId { job: number, attempt: 1 },
            deadline_ms: Some(60_000),
            run_limit_ms: None,
            claim: Claim::Nothing,
            redirects_left: 0,
            waited_us: 0,
            detachment: Default::default(),
            priority: Priority::Normal,
            metadata_bytes: 0,
            payload_bytes: payload::len(&payload),
        };
        let (received_outcomes, share, jobs) = (0, 0, vec![job]);
        let payloads = Payloads::new([&payload]);
        let (first_number, share_priority) = (number, Priority::Normal);
        let batch =
            JobBatch { first_number, received_outcomes, share, share_priority, jobs, payloads };
        let frames = payload::encode(ToWorker::Jobs(batch));
        if peer.send(&frames.iter().map(Frame::bytes).collect::<Vec<_>>()).is_err() {
            break;
        }
    }
    stage.assert_served("echo", b"x");
    // Results that are kept until they are acknowledged, those of them that libzmq holds, the jobs
    // in 61 slots, and what waits to be read.
    let grown_kb = peak.kb() - before_kb;
    assert!(grown_kb < (64 + 5 + 31 + 5 + 16) * 1024, "grew by {grown_kb} kB");
}

#[test]
fn whoever_asks_and_does_not_read_makes_a_mapper_keep_little() {
    let stage = Stage::new("nap", NAPS);
    // A list of some 50 KiB.
    for client in 0..10 {
        let socket = svcmap_tests::dealer(stage.mapper());
        for number in 0..30 {
            let payload = format!(
                r#"{{"name":"j-{client}-{number}","address":"tcp://10.1.2.3:7000","pid":1,
                    "service":"many","expiry_s":60}}"#
            );
            let body = format!(r#"{{"command":"REGISTER","payload":{payload}}}"#);
            socket.send_multipart([b"".to_vec(), body.into_bytes()], 0).unwrap();
            let reply = socket.recv_multipart(0).unwrap();
            assert!(reply[1].starts_with(br#"{"status":"ok""#), "{reply:?}");
        }
    }
    let peak = stage.peak(MAPPER);
    let before_kb = peak.kb();
    let sync = codec::encode(&ToMapper::Sync { service: "many".parse().unwrap() });
    let list = codec::encode(&ToMapper::List { after: None });
    let status = [frame(true, b""), frame(false, br#"{"command":"STATUS"}"#)].concat();
    std::thread::scope(|scope| {
        for peer in 0..20 {
            let question = match peer % 4 {
                0 => status.clone(),
                1 => frame(false, &list),
                _ => frame(false, &sync),
            };
            let mapper = stage.mapper();
            scope.spawn(move || {
                let mut peer = Raw::connect(mapper).unwrap();
                // Slow enough that each is a question of its own.
                for _ in 0..200 {
                    if peer.write(&question.repeat(40)).is_err() {
                        break;
                    }
                    svcmap::io::pause_until(Clock.now() + Duration::from_millis(5));
                }
            });
        }
    });
    stage.assert_served("nap", b"1ms");
    // Each may leave a mebibyte unread.
    let grown_kb = peak.kb() - before_kb;
    assert!(grown_kb < 20 * 1024, "grew by {grown_kb} kB");
}

/// Jobs of 10 ms during and between the pulses of an attack, so that both meet the same machine:
/// the median over the pulses of their 99th percentiles.
#[test]
fn jobs_of_others_are_done_in_time_during_an_attack() {
    let stage = Stage::new("nap", NAPS);
    let client = stage.deployment.client().unwrap();
    let body = format!("{{\"task\":[0{}]}}", ",0".repeat(900 * 1024));
    let json = [frame(true, b""), frame(false, body.as_bytes())].concat();
    let endless = frame(true, b"x").repeat(8 * 1024);
    let sync = codec::encode(&ToMapper::Sync { service: "nap".parse().unwrap() });
    let sync = frame(false, &sync).repeat(200);
    let attack = |endpoint: &str, message: Vec<u8>| -> Box<dyn FnMut() + Send> {
        let endpoint = endpoint.to_owned();
        let mut peer = None;
        Box::new(move || {
            let connected = peer.take().or_else(|| Raw::connect(&endpoint).ok());
            peer = connected.and_then(|mut peer| peer.write(&message).is_ok().then_some(peer));
            svcmap::io::pause_until(Clock.now() + Duration::from_millis(2));
        })
    };
    let attack = Attack::new(vec![
        attack(&stage.worker, json.clone()),
        attack(&stage.worker, json),
        attack(&stage.worker, endless.clone()),
        attack(stage.mapper(), endless),
        attack(stage.mapper(), sync),
    ]);
    let pulse = Duration::from_millis(700);
    times(&client, "nap", pulse);
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        quiet.push(p99(&times(&client, "nap", pulse)));
        attack.set(true);
        attacked.push(p99(&times(&client, "nap", pulse)));
        attack.set(false);
    }
    drop(attack);
    let (quiet, attacked) = (median(quiet), median(attacked));
    assert!(attacked < 4 * quiet, "{attacked:?} during the attack, {quiet:?} without");
    // All is as before within two seconds.
    let mut after = quiet * 3;
    let deadline = Clock.now() + Duration::from_secs(2);
    while after > 2 * quiet {
        assert!(Clock.now() < deadline, "{after:?} after the attack, {quiet:?} before");
        after = p99(&times(&client, "nap", pulse / 2));
    }
    eventually("no word of an expiry", || stage.expiries.names().is_empty());
    stage.assert_served("nap", b"1ms");
}

/// A mapper that may open 64 files says that it has no more, rests, and is back once it has.
#[test]
fn a_mapper_that_is_out_of_files_says_so_and_rests() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let command = format!(
        "ulimit -n 64; exec {} --log-format json mapper --bind tcp://127.0.0.1:0 --publish \
         tcp://127.0.0.1:0",
        svcmap_tests::executable()
    );
    let mut mapper = Ended(
        Command::new("sh")
            .args(["-c", &command])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(mapper.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (endpoint, _) = svcmap::commands::mapper::parse_listening_line(line.trim()).unwrap();
    let status = || {
        let command = Command::new(svcmap_tests::executable())
            .args(["status", "--mapper", endpoint.as_str()])
            .output()
            .unwrap();
        (command.status.success(), String::from_utf8(command.stderr).unwrap())
    };
    assert!(status().0);
    // From two addresses: one alone does not get as many.
    let mut peers = Vec::new();
    for source in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let connect = || Raw::connect_from(source, endpoint.as_str(), Duration::from_secs(2));
        while let Ok(peer) = connect() {
            peers.push(peer);
            assert!(peers.len() < 64, "all are accepted");
        }
    }
    // Two that wait for ever.
    let address = endpoint.as_str().strip_prefix("tcp://").unwrap();
    let waiting = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let before_ms = cpu_ms(mapper.0.id());
    let (is_answered, error) = status();
    assert!(!is_answered && error.contains("out of files"), "{error}");
    // The status took three seconds.
    let used_ms = cpu_ms(mapper.0.id()) - before_ms;
    assert!(used_ms < 600, "{used_ms} ms of a core");
    drop((peers, waiting));
    eventually("an answer", || status().0);
    mapper.0.kill().unwrap();
    let mut log = String::new();
    mapper.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("no connection can be")).collect();
    assert!((1..=5).contains(&lines.len()), "{log}");
    assert!(lines[0].contains("Too many open files") && lines[0].contains("64 files"), "{log}");
}

/// Ends a process with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has taken of a core, in milliseconds.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // In hundredths of a second: by itself, and in the kernel.
    10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

#[test]
fn one_connection_does_not_fill_the_registry() {
    let stage = Stage::new("nap", NAPS);
    let socket = svcmap_tests::dealer(stage.mapper());
    let register = |number: usize, expiry_s: u32| {
        let payload = format!(
            r#"{{"name":"j-{number}","address":"tcp://10.1.2.3:7000","pid":1,
                "service":"s-{number}","expiry_s":{expiry_s}}}"#
        );
        let body = format!(r#"{{"command":"REGISTER","payload":{payload}}}"#);
        socket.send_multipart([b"".to_vec(), body.into_bytes()], 0).unwrap();
        String::from_utf8(socket.recv_multipart(0).unwrap().pop().unwrap()).unwrap()
    };
    assert!(register(0, 86_400).contains("use 0.1 to 600"));
    let replies: Vec<_> = (0..5000).map(|number| register(number, 600)).collect();
    let taken = replies.iter().filter(|reply| reply.starts_with(r#"{"status":"ok""#)).count();
    assert_eq!(taken, 64);
    assert!(replies[4999].contains("has registered 64 instances already"), "{}", replies[4999]);
    // Newcomers find room, and the status says what was refused.
    let mut deployment = stage.deployment;
    deployment.start_worker("late", "w-2", NAPS).unwrap();
    deployment.wait_ready(&[("nap", 1), ("late", 1)]).unwrap();
    let status = svcmap_tests::svcmap(&deployment, &["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(text.contains("has refused 4936 registrations and 1 bad messages"), "{text}");
}
