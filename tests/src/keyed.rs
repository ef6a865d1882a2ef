//! A deployment with keys: a mapper that has made its own, and processes that use its file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use svcmap::access::mapper_file;
use svcmap_proto::deployment::Deployment;
use svcmap_proto::names::Endpoint;

use crate::batch::{Running, code, text};
use crate::executable;

/// What a worker does.
pub const ECHO: &[&str] = &["--builtin", "echo"];

/// A folder with a deployment file, and processes that use it.
pub struct Scene {
    /// Where its files are.
    pub folder: tempfile::TempDir,
    /// The mapper first.
    pub processes: Vec<Running>,
    /// Where the mapper is.
    pub mapper: Endpoint,
    /// What it said first.
    pub first_line: String,
}

/// The deployment file there.
pub fn file(folder: &Path) -> PathBuf {
    folder.join("svcmap.toml")
}

/// A command that finds its files there, and nowhere else.
pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.args(args).env("XDG_CONFIG_HOME", home).env_remove("SVCMAP_MAPPER");
    command.env_remove("SVCMAP_DEPLOYMENT").stdin(Stdio::null());
    command
}

/// Starts it, with its log in that file, and returns what it says first.
pub fn start(mut command: Command, log: &Path) -> (Running, String) {
    let mut child =
        command.stdout(Stdio::piped()).stderr(fs::File::create(log).unwrap()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Running::new(child), line)
}

impl Scene {
    /// A mapper with keys of its own, and a worker of the service `secretservice`.
    pub fn new(worker: &[&str]) -> Self {
        Self::with_flags(&[], worker)
    }

    /// The same with these flags for the mapper.
    pub fn with_flags(flags: &[&str], worker: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path()).display().to_string();
        let mapper = ["mapper", "--bind", "tcp://127.0.0.1:0", "--deployment", &path];
        let mapper = [&mapper[..], flags].concat();
        let (mapper, line) =
            start(command(folder.path(), &mapper), &folder.path().join("mapper.log"));
        assert!(line.starts_with("listening on "), "{line}");
        let deployment = Deployment::load(Path::new(&path)).unwrap();
        let address = deployment.mappers[0].address.clone();
        let mut scene = Self { folder, processes: vec![mapper], mapper: address, first_line: line };
        if !worker.is_empty() {
            let args = ["worker", "--service", "secretservice", "--instance", "hidden"];
            scene.start(&[&args[..], worker].concat(), "worker.log");
        }
        scene
    }

    /// Starts that with the deployment file.
    pub fn start(&mut self, args: &[&str], log: &str) {
        self.start_as(&file(self.folder.path()), args, log);
    }

    /// Starts that with another one.
    pub fn start_as(&mut self, file: &Path, args: &[&str], log: &str) {
        let mut command = command(self.folder.path(), args);
        command.env("SVCMAP_DEPLOYMENT", file);
        self.processes.push(start(command, &self.folder.path().join(log)).0);
    }

    /// Ends the mapper, and starts it where it was. The port beside may be somebody else's by now.
    pub fn restart_mapper(&mut self) {
        drop(self.processes.remove(0));
        let address = self.mapper.to_string();
        let args = ["mapper", "--bind", &address, "--publish", "tcp://127.0.0.1:0"];
        self.start(&args, "mapper.log");
        self.processes.rotate_right(1);
    }

    /// Runs that with the deployment file.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_as(&file(self.folder.path()), args)
    }

    /// Runs that with another one.
    pub fn run_as(&self, file: &Path, args: &[&str]) -> Output {
        let mut command = command(self.folder.path(), args);
        command.env("SVCMAP_DEPLOYMENT", file).output().unwrap()
    }

    /// What mappers know, as who made the deployment sees it.
    pub fn status(&self) -> serde_json::Value {
        let status = self.run(&["status", "--json"]);
        serde_json::from_slice(&status.stdout).unwrap()
    }

    /// What a file says that was written to that folder.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// Lets in somebody new, and returns his deployment file.
    pub fn add_key(&self, name: &str, flags: &[&str]) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.toml"));
        let output = path.display().to_string();
        let added = self.run(&[&["key", "add", name, "--output", &output][..], flags].concat());
        assert_eq!(code(&added), Some(0), "{}", text(&added.stderr));
        path
    }

    /// Somebody serves.
    pub fn assert_a_job_is_done(&self) {
        let done = self.run(&["submit", "secretservice", "--data", "hello"]);
        let outcome = (text(&done.stdout), code(&done));
        assert_eq!(outcome, ("hello".to_owned(), Some(0)), "{}", text(&done.stderr));
    }

    /// The deployment file.
    pub fn deployment(&self) -> Deployment {
        Deployment::load(file(self.folder.path())).unwrap()
    }

    /// The mapper's own.
    pub fn mapper_file(&self) -> PathBuf {
        mapper_file(&file(self.folder.path()))
    }
}
