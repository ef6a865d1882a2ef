//! A service manager as processes see one: a socket that they tell how they are.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use svcmap_proto::io::{Clock, random_u64};

use crate::PATIENCE;

/// See the module.
pub struct ServiceManager {
    socket: UnixDatagram,
    name: String,
    _folder: Option<tempfile::TempDir>,
    told: RefCell<Vec<String>>,
}

impl ServiceManager {
    /// One at a path.
    pub fn at_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::new(socket, path.display().to_string(), Some(folder))
    }

    /// One with a name in no folder.
    pub fn abstract_one() -> Self {
        let name = format!("svcmap-tests-{:x}", random_u64());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::new(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), None)
    }

    fn new(socket: UnixDatagram, name: String, folder: Option<tempfile::TempDir>) -> Self {
        Self { socket, name, _folder: folder, told: RefCell::default() }
    }

    /// Where it is told.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// That command is told of it.
    pub fn introduce(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.name);
    }

    /// The lines of what comes next, within that time.
    pub fn next(&self, within: Duration) -> Option<Vec<String>> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(within)).unwrap();
        match self.socket.recv(&mut bytes) {
            Ok(length) => {
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                self.told.borrow_mut().extend(lines.clone());
                Some(lines)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with such a line, and returns all of its lines.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Clock.now() + PATIENCE;
        while let left = deadline.since(Clock.now())
            && !left.is_zero()
        {
            if let Some(lines) = self.next(left)
                && lines.iter().any(|line| wanted(line))
            {
                return lines;
            }
        }
        panic!("not told; told was {:?}", self.told.borrow());
    }

    /// The same for one line.
    pub fn wait_for_line(&self, line: &str) -> Vec<String> {
        self.wait_for(|told| told == line)
    }

    /// Waits for all of these, in whichever order they come.
    pub fn wait_for_lines(&self, lines: &[&str]) {
        let mut missing = lines.to_vec();
        while !missing.is_empty() {
            let said = self.wait_for(|told| missing.contains(&told));
            missing.retain(|line| !said.iter().any(|told| told == line));
        }
    }

    /// Forgets all that has come.
    pub fn forget(&self) {
        while self.next(Duration::from_micros(1)).is_some() {}
    }

    /// All that was read so far.
    pub fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
    }
}
