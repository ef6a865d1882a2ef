//! A topology that `svcmap up` keeps, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::batch::text;
use crate::{children_of, eventually, executable, is_running};

/// A mapper on ports that the system chooses.
pub const MAPPER_ANYWHERE: &str = "[mapper.main]\nbind = \"tcp://127.0.0.1:0\"\n";

/// See the module. All that it started ends with it.
pub struct Up {
    folder: TempDir,
    process: Option<Child>,
}

impl Up {
    /// A topology that nobody keeps yet.
    pub fn written(topology: &str) -> Self {
        let up = Self { folder: tempfile::tempdir().unwrap(), process: None };
        up.write(topology);
        up
    }

    /// One that is kept, and whose processes are all ready.
    pub fn started(topology: &str) -> Self {
        let mut up = Self::written(topology);
        up.start();
        up.wait_for("all to be ready", |all| all.iter().all(|one| one["state"] == "ready"));
        up
    }

    /// Starts `svcmap up`.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with these flags.
    pub fn start_with(&mut self, flags: &[&str]) {
        let command = self.command(&["up"]);
        self.begin(command, flags);
    }

    /// The same by another command, to which its arguments are added.
    pub fn start_by(&mut self, command: Command) {
        let command = in_place_of(&self.command(&[]), command);
        self.begin(command, &["up"]);
    }

    fn begin(&mut self, mut command: Command, flags: &[&str]) {
        let log = std::fs::File::create(self.path("up.log")).unwrap();
        self.process = Some(command.args(flags).stdout(log).spawn().unwrap());
        eventually("svcmap up to listen", || self.run(&["ps"]).status.success());
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the topology anew.
    pub fn write(&self, topology: &str) {
        std::fs::write(self.path("topology.toml"), topology).unwrap();
    }

    /// What `svcmap up` has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("up.log")).unwrap()
    }

    /// A command in its folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("SVCMAP_MAPPER")
            .env_remove("SVCMAP_DEPLOYMENT")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same for one that succeeds; what it wrote to stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", text(&output.stderr), self.log());
        text(&output.stdout)
    }

    /// The same for one that fails with that status; what it wrote to stderr.
    pub fn fails(&self, status: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output.stderr));
        text(&output.stderr)
    }

    /// What `svcmap ps --json` says of each process.
    pub fn processes(&self) -> Vec<Value> {
        let output = self.run(&["ps", "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        value["processes"].as_array().cloned().unwrap_or_default()
    }

    /// The process of that name.
    pub fn process(&self, name: &str) -> Value {
        self.processes().into_iter().find(|one| one["name"] == name).unwrap_or_default()
    }

    /// Waits until the processes are as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        eventually(what, || {
            let all = self.processes();
            !all.is_empty() && wanted(&all)
        });
    }

    /// Waits until that one is in that state.
    pub fn wait_state(&self, name: &str, state: &str) {
        eventually(&format!("{name} to be {state}"), || self.process(name)["state"] == state);
    }

    /// The number of `svcmap up` itself.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Everything that descends from it.
    pub fn descendants(&self) -> Vec<u32> {
        let mut found = vec![self.pid()];
        let mut looked_at = 0;
        while let Some(&parent) = found.get(looked_at) {
            found.extend(children_of(parent));
            looked_at += 1;
        }
        found.split_off(1)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended; its exit status.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        let process = self.process.as_mut().unwrap();
        eventually("svcmap up to end", || {
            status = process.try_wait().unwrap();
            status.is_some()
        });
        self.process = None;
        status.unwrap()
    }

    /// Asks it to end, and waits until it has, with status 0 and nothing left.
    pub fn stop(&mut self) {
        let all = self.descendants();
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!all.iter().any(|pid| is_running(*pid)), "{}", self.log());
        assert_eq!(std::fs::read_dir(self.path("svcmap")).unwrap().count(), 0);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// That command in the folder and the environment of the other.
fn in_place_of(other: &Command, mut command: Command) -> Command {
    command.current_dir(other.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A number that `svcmap ps` shows.
pub fn pid_of(process: &Value) -> Option<u32> {
    process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Ends a process with SIGKILL.
pub fn kill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
}

/// How long a process has computed, in clock ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let stat = stat.unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    ticks(11) + ticks(12)
}
