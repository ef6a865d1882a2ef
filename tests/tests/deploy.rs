//! The files of `docs/deploy`: their command lines are commands of svcmap, their times fit each other, and
//! what can be run without a cluster is run.
//!
//! `SVCMAP_PYTHON` names the interpreter that has kubernetes-validate; else it is `python3`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;
use rustix::process::Signal;
use serde_json::Value;
use svcmap::cli::{Cli, Command as Parsed};
use svcmap_tests::batch::{Running, code, numbers, text};
use svcmap_tests::keyed::{self, ECHO, Scene, file};
use svcmap_tests::up::kill;
use svcmap_tests::{eventually, executable};

/// How long a worker may take to say goodbye after its grace, and after it has killed its programs.
const GOODBYE: Duration = Duration::from_secs(5);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).expect(name)
}

/// What svcmap makes of these arguments.
fn parsed(args: &[String]) -> Parsed {
    let all = std::iter::once("svcmap".to_owned()).chain(args.iter().cloned());
    Cli::try_parse_from(all.map(OsString::from)).unwrap_or_else(|error| panic!("{error}")).command
}

/// How long a worker of these arguments may take to end.
fn ends_within(command: &Parsed) -> Duration {
    match command {
        Parsed::Worker(args) => args.grace + args.kill_after + GOODBYE,
        _ => Duration::ZERO,
    }
}

/// The value of a key in a unit.
fn value<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.find_map(|(name, value)| (name == key).then_some(value))
}

const UNITS: [&str; 3] = ["svcmap-mapper.service", "svcmap-worker@.service", "svcmap-up@.service"];

#[test]
fn units_start_what_there_is_and_leave_time_to_drain() {
    for name in UNITS {
        let unit = read(&format!("systemd/{name}"));
        let line = value(&unit, "ExecStart").unwrap().strip_prefix("/usr/local/bin/svcmap ");
        let line = line.expect(name).replace("${STATE_DIRECTORY}", "/var/lib/svcmap");
        let line = line.replace("$FLAGS", "--concurrency 4").replace("%i", "resize");
        let words = line.split(' ').map(|word| match word {
            "${EXEC}" => "convert - -resize 50% -".to_owned(),
            word => word.to_owned(),
        });
        let command = parsed(&words.collect::<Vec<_>>());
        match &command {
            Parsed::Mapper(args) => assert_eq!(args.bind.as_str(), "tcp://0.0.0.0:5555"),
            Parsed::Worker(args) => {
                assert_eq!(args.exec.as_deref(), Some("convert - -resize 50% -"));
                assert_eq!((args.service.as_str(), args.concurrency.get()), ("resize", 4));
            }
            Parsed::Up(args) => assert_eq!(args.file, Path::new("/etc/svcmap/resize.toml")),
            other => panic!("{name}: {other:?}"),
        }
        let stop = value(&unit, "TimeoutStopSec").unwrap().parse().unwrap();
        assert!(ends_within(&command) < Duration::from_secs(stop), "{name}");
        assert_eq!(value(&unit, "Type"), Some("notify"), "{name}");
        assert_eq!(value(&unit, "RestartPreventExitStatus"), Some("64"), "{name}");
    }
}

#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for name in UNITS {
        // It looks whether the executable is there.
        let unit = read(&format!("systemd/{name}")).replace("/usr/local/bin/svcmap", executable());
        let path = folder.path().join(name);
        fs::write(&path, unit).unwrap();
        command.arg(path);
    }
    let Ok(verified) = command.output() else {
        return eprintln!("not tried, as there is no systemd-analyze: apt-get install systemd");
    };
    let said = text(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

/// The words of the line of a Dockerfile that begins so, and then has them as JSON.
fn words(file: &str, before: &str) -> Vec<String> {
    let line = file.lines().find_map(|line| line.strip_prefix(before)).expect(before);
    serde_json::from_str(line).unwrap()
}

#[test]
fn the_image_starts_svcmap_and_its_health_is_a_command() {
    let file = read("Dockerfile");
    assert_eq!(words(&file, "ENTRYPOINT "), ["/svcmap"]);
    let health = words(&file, "HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ");
    assert_eq!(health[0], "/svcmap");
    assert!(matches!(parsed(&health[1..]), Parsed::Status(_)));
    // Help is no command, and no mistake either.
    let arguments = words(&file, "CMD ");
    let help = Command::new(executable()).args(arguments).output().unwrap();
    assert_eq!(code(&help), Some(0));
}

/// Runs that with Python, which says what is wrong by its exit code.
fn python(args: &[&str]) -> String {
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python).args(args).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    text(&output.stdout)
}

#[test]
#[ignore = "needs kubernetes-validate: pip install kubernetes-validate"]
fn manifests_are_what_kubernetes_takes_and_start_what_there_is() {
    let as_json =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.argv[1])), sys.stdout)";
    let mut kinds = Vec::new();
    for name in ["mapper.yaml", "worker.yaml", "job.yaml"] {
        let path = deploy().join("kubernetes").join(name).display().to_string();
        python(&["-m", "kubernetes_validate", "--strict", &path]);
        let all = python(&["-c", as_json, &read(&format!("kubernetes/{name}"))]);
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        for manifest in all {
            kinds.push(manifest["kind"].as_str().unwrap().to_owned());
            assert_runs(&manifest["spec"]["template"]["spec"]);
        }
    }
    assert_eq!(kinds, ["Service", "StatefulSet", "Deployment", "Job"]);
}

/// The containers of a pod are started with what svcmap knows, and have time to drain.
fn assert_runs(pod: &Value) {
    for container in pod["containers"].as_array().into_iter().flatten() {
        assert_eq!(container["command"], Value::Null, "the image has its own");
        let args = container["args"].as_array().unwrap().iter();
        let args = args.map(|arg| arg.as_str().unwrap().replace("$(POD_IP)", "10.1.2.3"));
        let command = parsed(&args.collect::<Vec<_>>());
        let http = match &command {
            Parsed::Mapper(args) => args.http.http,
            Parsed::Worker(args) => args.http.http,
            _ => None,
        };
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(http.is_some(), container[probe]["httpGet"]["port"] == "http", "{probe}");
        }
        let has_time = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        assert!(ends_within(&command) < Duration::from_secs(has_time), "{container}");
    }
}

/// A command as a user without rights, in the group that a secret is given to.
fn as_nobody(args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65532", "--regid=65532", "--clear-groups", "--", executable()]);
    command.args(args).env_remove("SVCMAP_MAPPER").env_remove("HOME");
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_secret_of_root_that_a_group_may_read_is_taken_and_one_for_everybody_is_not() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not tried: only root can give files away");
    }
    let scene = Scene::new(ECHO);
    // As a Secret is mounted for a group.
    let mounted = tempfile::tempdir().unwrap();
    fs::set_permissions(mounted.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = |of: &Path, mode| {
        let path = mounted.path().join(of.file_name().unwrap());
        fs::copy(of, &path).unwrap();
        chown(&path, Some(0), Some(65532)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let own = mount(&file(scene.folder.path()), 0o440);
    let own = own.display().to_string();
    let done =
        as_nobody(&["submit", "secretservice", "--data", "a", "--deployment", &own]).output();
    let done = done.unwrap();
    assert_eq!(
        (code(&done), text(&done.stdout).as_str()),
        (Some(0), "a"),
        "{}",
        text(&done.stderr)
    );
    // A mapper as well, which cannot write there.
    mount(&scene.mapper_file(), 0o440);
    let mapper = ["mapper", "--bind", "tcp://127.0.0.1:0", "--deployment", &own];
    let log = scene.folder.path().join("other.log");
    let (_mapper, line) = keyed::start(as_nobody(&mapper), &log);
    assert!(line.starts_with("listening on"), "{}", fs::read_to_string(&log).unwrap());

    mount(&file(scene.folder.path()), 0o444);
    let refused = as_nobody(&["status", "--deployment", &own]).output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(code(&refused), Some(64), "{said}");
    assert!(said.contains("can be read by others") && said.contains("chmod 600"), "{said}");
}

/// Two nodes in one: what the commands of Slurm do, as far as the script needs it.
const SLURM: [(&str, &str); 3] = [("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)];

const SCONTROL: &str = "#!/bin/sh\necho '   NodeAddr=127.0.0.1 NodeHostName=none Version=0'\n";

const SCANCEL: &str = "#!/bin/sh\nkill -TERM \"$(cat \"${0%/*}/step\")\"\n";

const SRUN: &str = r#"#!/usr/bin/env bash
echo $$ > "${0%/*}/step"
while [ "${1#-}" != "$1" ]; do shift; done
"$@" & one=$!
"$@" & other=$!
trap 'kill -TERM $one $other' TERM
while kill -0 $one || kill -0 $other; do wait; done 2>/dev/null
"#;

/// An allocation of two nodes, as `docs/deploy/slurm.sh` finds one.
struct Allocation(tempfile::TempDir);

impl Allocation {
    fn new(lines: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        symlink(executable(), folder.path().join("bin/svcmap")).unwrap();
        for (name, script) in SLURM {
            let path = folder.path().join("bin").join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(folder.path().join("lines"), numbers(lines)).unwrap();
        Self(folder)
    }

    /// The script, with that program for each line.
    fn start(&self, program: &str) -> Running {
        let path = std::env::var("PATH").unwrap();
        let bin = self.0.path().join("bin").display().to_string();
        let mut command = Command::new("bash");
        command.arg(deploy().join("slurm.sh")).args([program, "lines"]);
        command.current_dir(self.0.path()).env("PATH", format!("{bin}:{path}"));
        command.env("SLURM_JOB_NUM_NODES", "2").env("SLURM_JOB_ID", "7");
        command.env("SLURMD_NODENAME", "n1").env("SLURM_CPUS_PER_TASK", "2");
        command.env("SLURM_SUBMIT_DIR", self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::new(command.spawn().unwrap())
    }

    /// How many lines have a result.
    fn results(&self) -> usize {
        fs::read_dir(self.0.path().join("lines.results")).map_or(0, Iterator::count)
    }

    /// Of how many lines it is known what became of them.
    fn logged(&self) -> usize {
        let log = fs::read_to_string(self.0.path().join("lines.joblog")).unwrap_or_default();
        log.lines().skip(1).count()
    }

    /// Its processes: all that they start know where it is.
    fn processes(&self) -> Vec<u32> {
        let own = self.0.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|one| one.file_name().to_str()?.parse().ok());
        let is_own = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            text(&environment).contains(&own)
        };
        numbers.filter(is_own).collect()
    }

    /// Nothing is there but what the user has, and none of its processes runs.
    fn assert_is_over(&self) {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["bin", "lines", "lines.joblog", "lines.results"]);
        assert_eq!(self.processes(), [0; 0], "processes are left");
    }
}

impl Drop for Allocation {
    /// The end of a script that was killed ends nobody else.
    fn drop(&mut self) {
        self.processes().into_iter().for_each(kill);
    }
}

#[test]
fn an_allocation_does_all_lines_and_ends() {
    let allocation = Allocation::new(20);
    let done = allocation.start("sha256sum").end();
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    assert_eq!(allocation.results(), 20);
    allocation.assert_is_over();
}

#[test]
fn an_allocation_whose_time_is_over_drains_and_the_next_one_goes_on() {
    let allocation = Allocation::new(40);
    // Until it may go on, each job waits.
    let gate = allocation.0.path().join("bin/gate");
    let program = format!(
        "sh -c 'read x; [ $x -le 10 ] || until [ -e {0} ]; do sleep 0.05; done; echo $x'",
        gate.display()
    );
    let mut script = allocation.start(&program);
    eventually("the first to be done", || allocation.results() >= 10);
    script.signal(Signal::TERM);
    // What has begun may finish; there is room for four, and one more may be on its way to each.
    eventually("the others to be given up", || allocation.logged() > 20);
    fs::write(&gate, "").unwrap();
    let ended = script.end();
    assert_eq!(code(&ended), Some(143), "{}", text(&ended.stderr));
    let before = allocation.results();
    assert!((10..40).contains(&before), "{before} of 40: {}", text(&ended.stderr));
    allocation.assert_is_over();

    let done = allocation.start(&program).end();
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    assert_eq!(allocation.results(), 40);
    allocation.assert_is_over();
}
