//! `svcmap submit` in a folder of its own, against a deployment of its own: for tests of batches.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use svcmap::commands::status::Report;

use crate::{Deployment, deployment_of, eventually, executable};

/// A folder for files, and a deployment for jobs.
pub struct Scene {
    /// The jobs.
    pub deployment: Deployment,
    /// The files.
    pub folder: tempfile::TempDir,
}

impl Scene {
    /// With a worker `w-1` of that service.
    pub fn new(service: &str, flags: &[&str]) -> Self {
        Self::of(deployment_of(service, 1, flags))
    }

    /// With that deployment.
    pub fn of(deployment: Deployment) -> Self {
        Self { deployment, folder: tempfile::tempdir().unwrap() }
    }

    /// Each job adds a line to the file `ran`, takes so long and returns what it was given.
    pub fn that_notes(seconds: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran").display().to_string();
        let program = format!("sh -c 'read x; echo $x >> {ran}; sleep {seconds}; echo $x'");
        let flags = [&["--exec", program.as_str()], flags].concat();
        Self { deployment: deployment_of("work", 1, &flags), folder }
    }

    /// Where a file of the folder is.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// A file of the folder, as text.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// `submit SERVICE ARGS`, in the folder.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(executable());
        command.arg("submit").args(args).current_dir(self.folder.path());
        command.envs(self.deployment.environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `submit ARGS`, to its end.
    pub fn submit(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, with that on stdin.
    pub fn submit_with(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // Who reads no further may close it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// `submit ARGS`, as it runs.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::new(self.command(args).spawn().unwrap())
    }

    /// Waits until the worker has so many jobs done, and so many running and queued.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(u64, u32, u32) -> bool) {
        let is_it = |report: &Report| {
            let row = report.instances.first();
            row.is_some_and(|row| wanted(row.done, row.running, row.queued))
        };
        self.deployment.wait_for(what, is_it).unwrap();
    }

    /// The lines of a job log, without the first.
    pub fn records(&self, name: &str) -> Vec<Value> {
        let log = self.read(name);
        assert!(log.ends_with('\n'), "{log}");
        log.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many whole lines a log has, the first aside.
    pub fn records_now(&self, name: &str) -> usize {
        self.read(name).matches('\n').count().saturating_sub(1)
    }

    /// Names of files in a folder.
    pub fn files(&self, name: &str) -> Vec<OsString> {
        let files = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    }
}

/// A command that runs, and is killed at the end of its test if it still does.
pub struct Running(Option<Child>);

impl Running {
    /// That one.
    pub fn new(child: Child) -> Self {
        Self(Some(child))
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child().id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its end, which it finds by itself.
    pub fn end(&mut self) -> Output {
        let child = self.child();
        let mut status: Option<ExitStatus> = None;
        eventually("the command to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes that are text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code.
pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Numbers up to that, one on each line.
pub fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

/// How many records there are of each outcome.
pub fn outcomes(records: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}
