//! One socket for each mapper, until all have answered or the time is over.

mod operator;

pub use operator::{ask_for_keys, ask_for_principals, ask_to_drain};

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::thread::Builder;
use std::time::Duration;

use slog::{Logger, warn};
use svcmap_proto::codec;
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::curve::secure_client;
use svcmap_proto::io::{
    Clock, Event, EventLoop, SocketKey, SocketSettings, connect, dealer, look_up, look_up_all,
};
use svcmap_proto::names::{Endpoint, MapperAddress};
use svcmap_proto::time::earliest;

use super::{Answer, ControlError, Conversation, Here, Question, STRAGGLER_PATIENCE, View, merge};
use crate::access::Access;
use crate::errors::Failure;
use crate::fleet::io::client::access_here;
use crate::topology::FILE_NAME;

/// Bytes of what a connection begins with.
const GREETING_BYTES: usize = 64;

/// How long a mapper that accepts a connection takes at most to greet.
const GREETING_PATIENCE: Duration = Duration::from_millis(300);

/// Holds a conversation with each of these mappers, for at most `patience`.
///
/// # Errors
/// See [`ControlError`]. If at least one mapper answers it is none that others do not.
pub fn ask(
    access: impl Into<Access>,
    question: &Question,
    patience: Duration,
) -> Result<View, ControlError> {
    let Access { mappers, deployment } = access.into();
    ask_all(&look_up_all(&mappers), deployment.as_ref(), question, patience)
}

/// The same with mappers that were looked up before.
///
/// # Errors
/// The same.
pub fn ask_all(
    mappers: &[MapperAddress],
    deployment: Option<&Deployment>,
    question: &Question,
    patience: Duration,
) -> Result<View, ControlError> {
    let mut events = EventLoop::new(&[]).map_err(poll_failed)?;
    let mut conversations = BTreeMap::new();
    for mapper in mappers {
        let key = open(&mut events, mapper, deployment)?;
        conversations.insert(key, (mapper.clone(), Conversation::new(question.clone())));
    }
    converse(&mut events, &mut conversations, patience)?;
    events.close(Duration::ZERO);
    judge(merge(conversations.into_values().collect()), deployment.is_some(), patience)
}

/// A connection to that mapper.
pub(crate) fn open(
    events: &mut EventLoop,
    mapper: &MapperAddress,
    deployment: Option<&Deployment>,
) -> Result<SocketKey, ControlError> {
    let refused = |reason: String| ControlError::Socket { mapper: mapper.clone(), reason };
    let socket = dealer(events.context(), SocketSettings::default())
        .map_err(|error| refused(error.to_string()))?;
    let keys = deployment.and_then(|keys| Some((&keys.own, keys.key_of(&mapper.named)?)));
    if let Some((own, server)) = keys {
        secure_client(&socket, own, server).map_err(|error| refused(error.to_string()))?;
    }
    connect(&socket, &mapper.address).map_err(|error| refused(error.to_string()))?;
    let key = events.add(socket).map_err(|error| refused(error.to_string()))?;
    events.watch_writable(key);
    Ok(key)
}

fn converse(
    events: &mut EventLoop,
    conversations: &mut BTreeMap<SocketKey, (MapperAddress, Conversation)>,
    patience: Duration,
) -> Result<(), ControlError> {
    let mut deadline = Clock.now() + patience;
    while Clock.now() < deadline {
        let over = conversations.values().filter(|(_, talk)| talk.is_over()).count();
        let is_enough = conversations.values().any(|(_, talk)| talk.is_enough());
        if over == conversations.len() || is_enough {
            return Ok(());
        }
        if over > 0 {
            deadline = deadline.min(Clock.now() + STRAGGLER_PATIENCE);
        }
        let due_at = conversations.values().filter_map(|(_, talk)| talk.poll_timeout()).min();
        let turn = events.turn(earliest(Some(deadline), due_at), |event| match event {
            Event::Writable(key) => {
                if let Some((_, conversation)) = conversations.get_mut(&key) {
                    conversation.handle_connected(Clock.now());
                }
            }
            Event::Received(key, [frame]) => {
                if let Some((_, conversation)) = conversations.get_mut(&key) {
                    conversation.handle_frame(Clock.now(), frame);
                }
            }
            // A mapper's answer has one frame, and a lost connection shows when it is back.
            _ => {}
        });
        turn.map_err(poll_failed)?;
        for (key, (_, conversation)) in conversations.iter_mut() {
            conversation.handle_timeout(Clock.now());
            while let Some(message) = conversation.poll_output() {
                // What cannot be sent had no connection; with the next one all starts again.
                let _ = events.send(*key, [&codec::encode(&message)[..]]);
            }
        }
    }
    Ok(())
}

/// A view is worth having if any mapper has said anything.
fn judge(view: View, is_encrypted: bool, tried: Duration) -> Result<View, ControlError> {
    let answered = |answer: Answer| matches!(answer, Answer::Complete { .. } | Answer::Partial);
    if view.mappers.iter().any(|mapper| answered(mapper.answer)) {
        return Ok(view);
    }
    for mapper in &view.mappers {
        if let Answer::WrongVersion(oldest, newest) = mapper.answer {
            let mapper = mapper.at.clone();
            return Err(ControlError::WrongVersion { mapper, oldest, newest });
        }
    }
    let mappers: Vec<_> = view.mappers.into_iter().map(|mapper| mapper.at).collect();
    let known = mappers.iter().find_map(|mapper| silence(mapper, is_encrypted, tried));
    Err(known.unwrap_or_else(|| no_mapper(mappers, tried)))
}

/// What is to be said where nobody answers.
pub fn no_mapper(mappers: Vec<MapperAddress>, tried: Duration) -> ControlError {
    let here = Path::new(FILE_NAME);
    let topology = match access_here() {
        Ok(Some(up)) if mappers.iter().any(|it| up.mappers.contains(&it.named)) => Here::Kept,
        Ok(None) if here.exists() => Here::NotKept,
        _ => Here::Other,
    };
    ControlError::NoMapper { mappers, tried, topology }
}

/// Why nothing is heard from there, as far as a greeting tells.
fn silence(mapper: &MapperAddress, is_encrypted: bool, tried: Duration) -> Option<ControlError> {
    let mapper = mapper.clone();
    if mapper.address.is_name() {
        let reason = look_up(&mapper.named).err()?;
        return Some(ControlError::Unresolved { mapper: mapper.named, reason });
    }
    let found = greeting(&mapper.address);
    Some(match (found, is_encrypted) {
        (Greeting::Silence, _) => ControlError::NotAccepting { mapper, tried },
        (Greeting::Encrypted, true) => ControlError::KeyRefused { mapper },
        (Greeting::Encrypted, false) => ControlError::WantsKeys { mapper },
        (Greeting::Plain, true) => ControlError::NotEncrypted { mapper },
        (Greeting::Plain, false) | (Greeting::None, _) => return None,
    })
}

/// Logs why none of these says anything for so long, if that can be found out: in a thread of its own, as
/// that takes a moment.
pub fn log_silence(access: Access, tried: Duration, log: Logger) {
    let look = move || {
        let is_encrypted = access.deployment.is_some();
        let found = |mapper: &MapperAddress| silence(mapper, is_encrypted, tried);
        if let Some(error) = look_up_all(&access.mappers).iter().find_map(found) {
            let failure = Failure::from(error);
            warn!(log, "{}", failure.message; "fix" => failure.fix.unwrap_or_default());
        }
    };
    // Without a thread nothing is found out, and the silence is logged all the same.
    let _ = Builder::new().name("svcmap-silence".to_owned()).spawn(look);
}

/// How somebody greets who listens there.
enum Greeting {
    /// Nobody does, as far as can be seen.
    None,
    /// The connection was made, and nobody says anything: a mapper that accepts one greets first.
    Silence,
    /// It goes on with who wants to encrypt.
    Encrypted,
    /// It does not.
    Plain,
}

/// What ZMTP 3.1 (ZeroMQ RFC 37) begins with, of a client that wants CURVE.
fn hello() -> [u8; GREETING_BYTES] {
    let mut hello = [0; GREETING_BYTES];
    (hello[0], hello[9], hello[10], hello[11]) = (0xff, 0x7f, 3, 1);
    hello[12..17].copy_from_slice(b"CURVE");
    hello
}

fn greeting(mapper: &Endpoint) -> Greeting {
    let Some(port) = mapper.port() else { return Greeting::None };
    let host = mapper.host().trim_matches(['[', ']']);
    let Some(address) = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next()) else {
        return Greeting::None;
    };
    let Ok(mut stream) = TcpStream::connect_timeout(&address, GREETING_PATIENCE) else {
        return Greeting::None;
    };
    let mut came = [0; GREETING_BYTES];
    let (first, rest) = came.split_at_mut(1);
    let patience = stream.set_read_timeout(Some(GREETING_PATIENCE));
    match patience.and_then(|()| stream.read_exact(first)) {
        Ok(()) if first == [0xff] => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Greeting::Silence,
        Ok(()) | Err(_) => return Greeting::None,
    }
    // Whoever does not encrypt closes at our hello, and what was not read until then is lost.
    match stream.write_all(&hello()).and_then(|()| stream.read_exact(rest)) {
        Ok(()) if came[12..].starts_with(b"CURVE\0") => Greeting::Encrypted,
        Ok(()) | Err(_) => Greeting::Plain,
    }
}

fn poll_failed(error: std::io::Error) -> ControlError {
    ControlError::Poll(error.to_string())
}
