//! What the whole-system tests share: real processes of the command that was just built.
//!
//! Nothing here sleeps for a fixed time: conditions are awaited, with a limit.

pub mod attack;
pub mod batch;
pub mod bench;
pub mod browser;
pub mod chaos;
pub mod http;
pub mod keyed;
pub mod listed;
pub mod netns;
pub mod service_manager;
pub mod up;
pub mod zmtp;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use svcmap::commands::status::Report;
pub use svcmap::deployment::{Deployment, MAPPER, PATIENCE};
use svcmap::supervisor::Supervisor;
use svcmap_proto::codec;
use svcmap_proto::io::Clock;
use svcmap_proto::status::InstanceRow;
use svcmap_worker::{Outcome, Ticket};

/// The executable under test.
pub fn executable() -> &'static str {
    // Set by cargo for tests and benches of this package; a library only knows where it lies.
    option_env!("CARGO_BIN_EXE_svcmap-under-test").unwrap_or_else(|| {
        static PATH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        PATH.get_or_init(|| {
            let own = std::env::current_exe().expect("a test knows where it lies");
            let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/NAME");
            profile.join("svcmap-under-test").display().to_string()
        })
    })
}

/// With this environment variable set, [`deployment`] encrypts.
pub const ENCRYPTED_VARIABLE: &str = "SVCMAP_TESTS_ENCRYPTED";

/// A mapper on ports of its own.
pub fn deployment() -> Deployment {
    deployment_by(executable())
}

/// The same by another executable that is svcmap.
pub fn deployment_by(executable: impl Into<PathBuf>) -> Deployment {
    let supervisor = Supervisor::with_executable(executable);
    let opened = match std::env::var_os(ENCRYPTED_VARIABLE).is_some() {
        true => Deployment::open_encrypted(supervisor, Vec::new()),
        false => Deployment::open(supervisor),
    };
    opened.expect("a mapper starts")
}

/// A mapper in plain text, for who speaks with it by hand.
pub fn plain_deployment() -> Deployment {
    Deployment::open(Supervisor::with_executable(executable())).expect("a mapper starts")
}

/// The same with workers: see [`deployment_of`].
pub fn plain_deployment_of(service: &str, workers: usize, flags: &[&str]) -> Deployment {
    with_workers(plain_deployment(), service, workers, flags)
}

/// A mapper and workers `w-1`, `w-2`, … of one service, all registered.
pub fn deployment_of(service: &str, workers: usize, flags: &[&str]) -> Deployment {
    with_workers(deployment(), service, workers, flags)
}

/// The same with everything encrypted.
pub fn encrypted_deployment_of(service: &str, workers: usize, flags: &[&str]) -> Deployment {
    let supervisor = Supervisor::with_executable(executable());
    let deployment = Deployment::open_encrypted(supervisor, Vec::new()).expect("a mapper starts");
    with_workers(deployment, service, workers, flags)
}

/// Waits until the first instance is as wanted.
pub fn wait_for(deployment: &Deployment, what: &str, wanted: impl Fn(&InstanceRow) -> bool) {
    let is_it = |report: &Report| report.instances.first().is_some_and(&wanted);
    deployment.wait_for(what, is_it).expect(what);
}

/// That deployment and such workers.
pub fn with_workers(
    mut deployment: Deployment,
    service: &str,
    workers: usize,
    flags: &[&str],
) -> Deployment {
    for number in 1..=workers {
        let instance = format!("w-{number}");
        deployment.start_worker(service, &instance, flags).expect("a worker starts");
    }
    deployment.wait_ready(&[(service, workers)]).expect("all register");
    deployment
}

/// Runs a command of svcmap against a deployment, to its end.
pub fn svcmap(deployment: &Deployment, args: &[&str]) -> Output {
    Command::new(executable())
        .args(args)
        .envs(deployment.environment())
        .output()
        .expect("the command starts")
}

/// Counts of outcomes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// `Done`.
    pub done: usize,
    /// `Failed`.
    pub failed: usize,
    /// `Refused`.
    pub refused: usize,
    /// `Unknown`.
    pub unknown: usize,
    /// `Accepted`.
    pub accepted: usize,
}

impl Count {
    /// Waits for all tickets. None may take longer than its deadline and a tick, which the tests
    /// keep below [`PATIENCE`].
    pub fn of(tickets: Vec<Ticket>) -> Self {
        let mut count = Self::default();
        for ticket in tickets {
            match ticket.wait_timeout(2 * PATIENCE).expect("an outcome by the deadline") {
                Outcome::Done(_) => count.done += 1,
                Outcome::Failed(_) => count.failed += 1,
                Outcome::Refused(_) => count.refused += 1,
                Outcome::Unknown(_) => count.unknown += 1,
                Outcome::Accepted => count.accepted += 1,
            }
        }
        count
    }

    /// All outcomes.
    pub fn all(&self) -> usize {
        self.done + self.failed + self.refused + self.unknown + self.accepted
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Clock.now() + PATIENCE;
    while !holds() {
        assert!(Clock.now() < deadline, "waited in vain for {what}");
        svcmap::io::pause_until(Clock.now() + Duration::from_millis(10));
    }
}

/// Where an instance listens, as the mapper knows.
pub fn endpoint_of(deployment: &Deployment, instance: &str) -> String {
    let mut endpoint = None;
    let found = |report: &Report| {
        let row = report.instances.iter().find(|row| row.instance.as_str() == instance);
        row.and_then(|row| row.endpoint.as_ref()).map(ToString::to_string)
    };
    deployment
        .wait_for("the instance", |report| found(report).is_some())
        .expect("the instance is listed");
    if let Ok(report) = svcmap::commands::status::ask(deployment.access(), None, PATIENCE) {
        endpoint = found(&report);
    }
    endpoint.expect("the instance is listed")
}

/// A plain DEALER, for saying what no svcmap says.
pub fn dealer(endpoint: &str) -> zmq::Socket {
    let socket = zmq::Context::new().socket(zmq::DEALER).expect("a socket");
    socket.set_linger(0).expect("linger");
    socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).expect("fits")).expect("timeout");
    socket.connect(endpoint).expect("connect");
    socket
}

/// The processes that one has started and that have not ended.
pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("it is Linux").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| state_and_parent(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// Whether a process runs; one that ended and was not reaped yet does not.
pub fn is_running(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The third and the fourth field of /proc/PID/stat; the second is a name in parentheses.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The resident memory of a process, in kB.
pub fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has RSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// One of many kinds of bad messages: random bytes, cut or changed real ones, wrong versions, and
/// any number of frames.
pub fn garbage(random: &mut fastrand::Rng, real: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let bytes = |random: &mut fastrand::Rng, max: usize| -> Vec<u8> {
        let length = random.usize(0..max);
        std::iter::repeat_with(|| random.u8(..)).take(length).collect()
    };
    let sample = real[random.usize(0..real.len())].clone();
    match random.u8(0..6) {
        0 => vec![bytes(random, 200)],
        1 => vec![sample[..random.usize(0..sample.len())].to_vec()],
        2 => {
            let mut changed = sample;
            let at = random.usize(0..changed.len());
            changed[at] ^= 1 << random.u8(0..8);
            // What changes nothing that matters would be a good message.
            changed.push(0);
            vec![changed]
        }
        3 => vec![[&[codec::VERSION.wrapping_add(random.u8(1..))], &sample[1..]].concat()],
        4 => (0..random.usize(2..40)).map(|_| bytes(random, 20)).collect(),
        _ => vec![Vec::new(), bytes(random, 50)],
    }
}
