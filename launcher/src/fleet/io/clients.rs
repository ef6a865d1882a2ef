//! Who talks to a running `svcmap up`: one question each, and answers until it is done. Nobody waits for
//! one who does not read.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use svcmap_proto::time::Timestamp;

use crate::fleet::CommandError;
use crate::fleet::command::{CommandId, Target};
use crate::fleet::wire::{REQUEST_BYTES_MAX, Reply, Request};
use crate::topology::OWN_NAME;

/// At once; more have to come again.
const CLIENTS_MAX: usize = 64;

/// Who has put no question by then makes room for others: a command puts it as soon as it is there.
const QUESTION_WITHIN: Duration = Duration::from_secs(2);

/// What waits for one of them; lines that are more are left out.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Clients {
    all: BTreeMap<u64, Client>,
    last: u64,
}

struct Client {
    stream: UnixStream,
    /// When it came.
    since: Timestamp,
    asked: Vec<u8>,
    /// Whether it has put its question.
    is_heard: bool,
    waiting: Vec<u8>,
    left_out: u64,
    /// The command that it waits for.
    command: Option<CommandId>,
    /// Whose lines it wants; nobody stands for everybody.
    follows: Option<Vec<Target>>,
    /// Whether nothing more comes.
    is_over: bool,
}

impl Clients {
    /// Takes in who has come.
    pub(super) fn accept(
        &mut self,
        listener: &UnixListener,
        now: Timestamp,
    ) -> std::io::Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, _)) if self.all.len() < CLIENTS_MAX => {
                    stream.set_nonblocking(true)?;
                    self.last += 1;
                    self.all.insert(self.last, Client::new(stream, now));
                }
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    Client::new(stream, now).send_away(format!(
                        "svcmap up answers {CLIENTS_MAX} commands at a time, and does"
                    ));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Those that wait to be read, or to be written to.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.all.values().map(|client| (client.stream.as_fd(), !client.waiting.is_empty()))
    }

    /// Reads what has come: the questions, each with a name for its answers.
    pub(super) fn read(&mut self, now: Timestamp) -> Vec<(u64, Result<Request, String>)> {
        let mut questions = Vec::new();
        self.all.retain(|&id, client| match client.read() {
            Heard::Nothing if client.is_heard || now.since(client.since) < QUESTION_WITHIN => true,
            Heard::Nothing => client.send_away("svcmap up was asked nothing".to_owned()),
            Heard::Question(question) => {
                questions.push((id, question));
                true
            }
            Heard::Gone => false,
        });
        questions
    }

    /// Sends that to one of them.
    pub(super) fn reply(&mut self, id: u64, reply: &Reply) {
        if let Some(client) = self.all.get_mut(&id) {
            client.reply(reply);
        }
    }

    /// Sends it a line of before, however many there are: no more than are kept.
    pub(super) fn history(&mut self, id: u64, from: &str, line: &str) {
        if let Some(client) = self.all.get_mut(&id) {
            client.push(&Reply::Line { from: from.to_owned(), line: line.to_owned() });
        }
    }

    /// It is answered when that is done.
    pub(super) fn awaits(&mut self, id: u64, command: CommandId) {
        if let Some(client) = self.all.get_mut(&id) {
            client.command = Some(command);
        }
    }

    /// From now on it gets these lines.
    pub(super) fn follows(&mut self, id: u64, targets: Vec<Target>) {
        if let Some(client) = self.all.get_mut(&id) {
            client.follows = Some(targets);
        }
    }

    /// A command is done.
    pub(super) fn answer(&mut self, command: CommandId, answer: Result<String, CommandError>) {
        let reply = answer.map_or_else(Reply::Failed, Reply::Done);
        for client in self.all.values_mut().filter(|client| client.command == Some(command)) {
            client.reply(&reply);
        }
    }

    /// A line of a process, for who follows it.
    pub(super) fn line(&mut self, from: &str, line: &str) {
        self.tell(from, line, |targets| {
            targets.is_empty() || targets.iter().any(|target| matches(target, from))
        });
    }

    /// A line about a process, for who follows that one and not also `up` itself, which has said it.
    pub(super) fn line_about(&mut self, from: &str, line: &str) {
        self.tell(from, line, |targets| {
            let is_any = |name: &str| targets.iter().any(|target| matches(target, name));
            is_any(from) && !is_any(OWN_NAME)
        });
    }

    fn tell(&mut self, from: &str, line: &str, is_wanted: impl Fn(&[Target]) -> bool) {
        for client in self.all.values_mut() {
            if client.follows.as_deref().is_some_and(&is_wanted) {
                client.reply(&Reply::Line { from: from.to_owned(), line: line.to_owned() });
            }
        }
    }

    /// Something happened, for who waits for a command.
    pub(super) fn event(&mut self, from: &str, line: &str) {
        for client in self.all.values_mut().filter(|client| client.command.is_some()) {
            client.reply(&Reply::Line { from: from.to_owned(), line: line.to_owned() });
        }
    }

    /// Writes what can be written, and takes leave of who has had everything.
    pub(super) fn write(&mut self) {
        self.all.retain(|_, client| client.write());
    }
}

/// Whether a process of that name is meant.
pub(super) fn matches(target: &Target, name: &str) -> bool {
    match target {
        Target::One(key) => key.to_string() == name,
        Target::All(all) => name.split('/').next() == Some(all.as_str()),
    }
}

enum Heard {
    Nothing,
    Question(Result<Request, String>),
    Gone,
}

impl Client {
    fn new(stream: UnixStream, since: Timestamp) -> Self {
        Self {
            stream,
            since,
            asked: Vec::new(),
            is_heard: false,
            waiting: Vec::new(),
            left_out: 0,
            command: None,
            follows: None,
            is_over: false,
        }
    }

    fn read(&mut self) -> Heard {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Heard::Gone,
                // It has put its question; nothing else is listened to.
                Ok(_) if self.is_heard => return Heard::Gone,
                Ok(count) => {
                    self.asked.extend_from_slice(&bytes[..count]);
                    if let Some(end) = self.asked.iter().position(|byte| *byte == b'\n') {
                        self.is_heard = true;
                        let question = serde_json::from_slice(&self.asked[..end]);
                        return Heard::Question(question.map_err(|error| error.to_string()));
                    }
                    if self.asked.len() > REQUEST_BYTES_MAX {
                        self.is_heard = true;
                        return Heard::Question(Err(format!(
                            "a question to svcmap up has {REQUEST_BYTES_MAX} bytes at most"
                        )));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Says why, to who reads it: a line fits into a socket that has had none. It does not stay.
    fn send_away(&mut self, why: String) -> bool {
        self.reply(&Reply::Failed(CommandError::Refused(why)));
        self.write();
        false
    }

    fn reply(&mut self, reply: &Reply) {
        let is_line = matches!(reply, Reply::Line { .. });
        if is_line && self.waiting.len() > WAITING_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        if self.left_out > 0 {
            let left_out = Reply::LeftOut(std::mem::take(&mut self.left_out));
            self.push(&left_out);
        }
        self.push(reply);
        self.is_over |= matches!(reply, Reply::Done(_) | Reply::Failed(_));
    }

    fn push(&mut self, reply: &Reply) {
        // What is in it are texts and numbers.
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            self.waiting.extend(line);
        }
    }

    /// Whether it is still there, and has not had everything.
    fn write(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(0) => return false,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        !self.is_over
    }
}
