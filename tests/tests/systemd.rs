//! What mapper, workers and `svcmap up` tell a service manager, with a real socket in its place.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use svcmap_tests::batch::{Running, code, text};
use svcmap_tests::listed::nobody;
use svcmap_tests::service_manager::ServiceManager;
use svcmap_tests::up::{MAPPER_ANYWHERE, Up};
use svcmap_tests::{eventually, executable, keyed};

/// Half of what the processes here are told: a sign of life is due so often.
const SIGN: Duration = Duration::from_millis(200);

/// A process that was started, with its first line and its log.
struct Started {
    running: Running,
    first_line: String,
    log: tempfile::NamedTempFile,
}

impl Started {
    fn by(mut command: Command) -> Self {
        command.env_remove("SVCMAP_MAPPER").env_remove("SVCMAP_DEPLOYMENT");
        let log = tempfile::NamedTempFile::new().unwrap();
        let (running, first_line) = keyed::start(command, log.path());
        Self { running, first_line, log }
    }

    fn mapper(manager: Option<&ServiceManager>, bind: &str) -> Self {
        Self::by(told_of(manager, &["mapper", "--bind", bind, "--publish", "tcp://127.0.0.1:0"]))
    }

    fn worker(manager: Option<&ServiceManager>, mapper: &str, handler: &[&str]) -> Self {
        let own = ["worker", "--service", "sum", "--mapper", mapper, "--grace", "200s"];
        Self::by(told_of(manager, &[&own, handler].concat()))
    }

    fn endpoint(&self) -> &str {
        let (_, rest) = self.first_line.split_once("listening on ").unwrap();
        rest.split(',').next().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// The names of its threads.
    fn threads(&mut self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.running.child().id());
        let tasks = fs::read_dir(folder).unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).collect()
    }

    /// No sign of life comes while it stands still, and one does once it goes on.
    fn assert_signs_come_while_it_turns(&mut self, manager: &ServiceManager) {
        manager.wait_for_line("WATCHDOG=1");
        manager.wait_for_line("WATCHDOG=1");
        self.running.signal(Signal::STOP);
        let stat = format!("/proc/{}/task", self.running.child().id());
        eventually("all threads to stop", || {
            fs::read_dir(&stat).unwrap().flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        });
        manager.forget();
        assert_eq!(manager.next(5 * SIGN), None);
        self.running.signal(Signal::CONT);
        manager.wait_for_line("WATCHDOG=1");
    }
}

/// That command, which is told of the manager and is to give signs of life, or of none.
fn told_of(manager: Option<&ServiceManager>, args: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.args(args);
    match manager {
        Some(manager) => manager.introduce(&mut command),
        None => _ = command.env_remove("NOTIFY_SOCKET"),
    }
    command.env("WATCHDOG_USEC", (2 * SIGN).as_micros().to_string());
    command
}

#[test]
fn a_mapper_is_ready_when_it_listens_tells_how_many_it_knows_and_lives_while_it_turns() {
    let manager = ServiceManager::abstract_one();
    let mut mapper = Started::mapper(Some(&manager), "tcp://127.0.0.1:0");
    manager.wait_for_line("READY=1");
    manager.wait_for(|line| line.starts_with("STATUS=0 instances of 0 services"));
    let _worker = Started::worker(None, mapper.endpoint(), &["--builtin", "echo"]);
    manager.wait_for(|line| line.starts_with("STATUS=1 instance of 1 service"));
    mapper.assert_signs_come_while_it_turns(&manager);
    mapper.running.signal(Signal::TERM);
    manager.wait_for_line("STOPPING=1");
    assert_eq!(code(&mapper.running.end()), Some(0));
    assert_eq!(manager.told().iter().filter(|line| *line == "READY=1").count(), 1);
}

#[test]
fn a_worker_is_ready_when_a_mapper_lists_it_and_its_drain_may_take_its_grace() {
    let manager = ServiceManager::at_path();
    let endpoint = nobody();
    let endpoint = endpoint.as_str();
    let mut worker = Started::worker(Some(&manager), endpoint, &["--exec", "env"]);
    manager.wait_for(|line| line.starts_with("STATUS=no mapper answers"));
    assert!(!manager.told().contains(&"READY=1".to_owned()), "{:?}", manager.told());
    let _mapper = Started::mapper(None, endpoint);
    manager.wait_for_lines(&["READY=1", "STATUS=listed by 1 mapper; 0 jobs running, 0 queued"]);
    worker.assert_signs_come_while_it_turns(&manager);

    // Its programs would speak for it.
    let mut submit = Command::new(executable());
    submit.args(["submit", "sum", "--data", "", "--mapper", endpoint]);
    let done = submit.output().unwrap();
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    let seen = text(&done.stdout);
    assert!(seen.contains("SVCMAP_JOB="), "{seen}");
    assert!(!seen.contains("NOTIFY_SOCKET") && !seen.contains("WATCHDOG"), "{seen}");

    worker.running.signal(Signal::TERM);
    let said = manager.wait_for_line("STOPPING=1");
    // The grace, the time to kill, and a little more.
    assert!(said.contains(&"EXTEND_TIMEOUT_USEC=207000000".to_owned()), "{said:?}");
    assert_eq!(code(&worker.running.end()), Some(0));
}

#[test]
fn up_is_ready_when_all_are_and_again_after_another_file_and_no_child_speaks_for_it() {
    let manager = ServiceManager::at_path();
    let topology = |instances: u32| {
        format!("{MAPPER_ANYWHERE}[service.sum]\nbuiltin = \"echo\"\ninstances = {instances}\n")
    };
    let mut up = Up::written(&topology(2));
    up.start_by(told_of(Some(&manager), &[]));
    manager.wait_for_lines(&["READY=1", "STATUS=2 of 2 instances of 1 service ready"]);
    for pid in up.descendants() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = text(&environment);
        assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
        assert!(!environment.contains("WATCHDOG"), "{environment}");
    }

    up.write(&topology(3));
    up.signal(Signal::HUP);
    let said = manager.wait_for_line("RELOADING=1");
    assert!(said.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{said:?}");
    manager.wait_for_lines(&["READY=1", "STATUS=3 of 3 instances of 1 service ready"]);
    up.write("nonsense");
    up.signal(Signal::HUP);
    manager.wait_for_line("RELOADING=1");
    let said = manager.wait_for_line("READY=1");
    let refused = "3 of 3 instances of 1 service ready; the file of the last SIGHUP is not applied";
    assert!(said.contains(&format!("STATUS={refused}")), "{said:?}");

    manager.wait_for_line("WATCHDOG=1");
    up.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", up.pid());
    eventually("it to stop", || fs::read_to_string(&stat).unwrap().contains(") T "));
    manager.forget();
    assert_eq!(manager.next(5 * SIGN), None);
    up.signal(Signal::CONT);
    manager.wait_for_line("WATCHDOG=1");

    up.stop();
    let said = manager.wait_for_line("STOPPING=1");
    // The default grace, the time to kill, goodbyes, mappers, and a little more.
    assert!(said.contains(&"EXTEND_TIMEOUT_USEC=27000000".to_owned()), "{said:?}");
}

#[test]
fn a_manager_that_is_gone_is_said_once_and_ends_nothing() {
    let manager = ServiceManager::at_path();
    let mut command = told_of(Some(&manager), &["mapper", "--bind", "tcp://127.0.0.1:0"]);
    command.args(["--publish", "tcp://127.0.0.1:0"]);
    drop(manager);
    let mut mapper = Started::by(command);
    // It goes on to be of use to others, which takes several statuses and signs.
    let manager = ServiceManager::at_path();
    let _worker = Started::worker(Some(&manager), mapper.endpoint(), &["--builtin", "echo"]);
    manager.wait_for_line("READY=1");
    (0..5).for_each(|_| _ = manager.wait_for_line("WATCHDOG=1"));
    mapper.running.signal(Signal::TERM);
    assert_eq!(code(&mapper.running.end()), Some(0));
    let said = mapper.log().matches("(NOTIFY_SOCKET) cannot be told how this process is").count();
    assert_eq!(said, 1, "{}", mapper.log());
}

#[test]
fn without_a_manager_nothing_is_told_and_signs_of_another_process_are_not_given() {
    let mut alone = Started::mapper(None, "tcp://127.0.0.1:0");
    assert!(!alone.threads().contains(&"systemd".to_owned()), "{:?}", alone.threads());

    let manager = ServiceManager::abstract_one();
    let args = ["mapper", "--bind", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0"];
    let mut command = told_of(Some(&manager), &args);
    command.env("WATCHDOG_PID", "1");
    let mut mapper = Started::by(command);
    manager.wait_for_line("READY=1");
    assert!(mapper.threads().contains(&"systemd".to_owned()), "{:?}", mapper.threads());
    mapper.running.signal(Signal::TERM);
    manager.wait_for_line("STOPPING=1");
    assert!(!manager.told().contains(&"WATCHDOG=1".to_owned()), "{:?}", manager.told());
}
