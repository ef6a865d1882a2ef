//! Who gets in: answers libzmq's question for each connection that has proven its key (ZAP, ZeroMQ
//! RFC 27), and knows who is behind each that is there.
//!
//! libzmq admits everybody if nobody answers, so this is there before any socket that depends on it, is
//! tried out, and goes after them. It asks once for each connection; who is not to be there any more is
//! found by the messages that came.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use zmq::SocketEvent;

use super::sockets::Socket;
use super::{Clock, curve, raw};
use crate::control::{PULSE_TOPIC, topic_service};
use crate::keys::{KEY_BYTES, PublicKey};
use crate::principals::Services;
use crate::time::Timestamp;

/// Where libzmq asks.
const ENDPOINT: &str = "inproc://zeromq.zap.01";

/// Whoever has an unknown key may try again later: it may be known by then.
const TRY_AGAIN: &str = "300";

/// The stranger of the trial is to hear of it.
const REFUSED: &str = "400";

const ADMITTED: &str = "200";

/// How long the trial may take: two processes of one machine need some milliseconds.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// For how long who was cut off is not let in again: others of the same file on the same machine are not
/// either, so not for long, and long beside what a connection takes.
const BARRED: Duration = Duration::from_secs(1);

/// Longest time between two looks at the clock meanwhile.
const LOOK_MS: i64 = 10;

/// Why nobody is kept out.
#[derive(Debug, thiserror::Error)]
pub enum ZapError {
    /// This libzmq is built without CURVE: set zmq-sys under [patch.crates-io], as the README does.
    #[error(
        "this libzmq cannot encrypt: set zmq-sys under [patch.crates-io], as the README of svcmap does"
    )]
    NoCurve,
    /// A stranger was let in when that was tried.
    #[error("libzmq let in a stranger when that was tried")]
    LetIn,
    /// Nothing came of the trial.
    #[error("libzmq did not refuse a stranger within {TRIAL_LIMIT:?}")]
    Silent,
    /// The system gave no socket or file.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl From<zmq::Error> for ZapError {
    fn from(error: zmq::Error) -> Self {
        Self::System(io::Error::other(error.message()))
    }
}

/// Who gets in, and of which services each may hear.
pub type Admitted = BTreeMap<PublicKey, Vec<Services>>;

/// Who sent a message, if its connection has proven that. Any frame but the routing id tells.
pub fn user(frames: &mut [zmq::Message]) -> Option<PublicKey> {
    frames.last_mut()?.gets("User-Id")?.parse().ok()
}

/// The number of the file of the connection that a message came on: it is libzmq's, and by now perhaps
/// another one's.
pub(super) fn connection(frames: &mut [zmq::Message]) -> Option<i32> {
    frames.last_mut()?.gets("__fd")?.parse().ok()
}

/// See the module.
pub(super) struct Zap {
    pub(super) socket: Socket,
    admitted: Admitted,
    /// Who was last heard on each connection, by the number of its file, and whether that one was cut off:
    /// what it had sent before still comes, while another may have that number already.
    heard: BTreeMap<i32, (PublicKey, bool)>,
    /// Who is not let in from where, until then, for what it sent.
    barred: BTreeMap<(PublicKey, String), Timestamp>,
    /// Who is refused once and for all.
    stranger: Option<PublicKey>,
}

impl Zap {
    /// Admits these and nobody else, and has tried that.
    pub(super) fn new(context: &zmq::Context, admitted: Admitted) -> Result<Self, ZapError> {
        if !curve::can_encrypt() {
            return Err(ZapError::NoCurve);
        }
        let socket = context.socket(zmq::REP)?;
        socket.set_linger(0)?;
        socket.bind(ENDPOINT)?;
        let mut zap = Self {
            socket,
            admitted,
            heard: BTreeMap::new(),
            barred: BTreeMap::new(),
            stranger: None,
        };
        zap.refuses_strangers(context)?;
        Ok(zap)
    }

    /// Answers every question that is there.
    pub(super) fn serve(&mut self) {
        while let Ok(question) = self.socket.recv_multipart(zmq::DONTWAIT) {
            // Whoever asked is of this process, and waits.
            let _ = self.socket.send_multipart(self.answer(&question), zmq::DONTWAIT);
        }
    }

    /// From now on these are admitted and nobody else. Who is connected and is not among them is cut off.
    pub(super) fn admit(&mut self, admitted: Admitted) {
        self.admitted = admitted;
        for (connection, (user, is_cut)) in &mut self.heard {
            // If another has this number by now, it loses no more than its connection.
            if !*is_cut && !self.admitted.contains_key(user) {
                raw::shut_down(*connection);
                *is_cut = true;
            }
        }
    }

    /// A message came. Whether its sender is admitted now, or has not had to prove who it is; else its
    /// connection has ended.
    pub(super) fn hears(&mut self, frames: &mut [zmq::Message]) -> bool {
        let Some(user) = user(frames) else { return true };
        let is_admitted = self.admitted.contains_key(&user);
        if let Some(connection) = connection(frames) {
            let known = self.heard.insert(connection, (user, !is_admitted));
            if !is_admitted && known != Some((user, true)) {
                raw::shut_down(connection);
            }
        }
        is_admitted
    }

    /// Who sent this is not let in again from there for a while.
    pub(super) fn bar(&mut self, now: Timestamp, frames: &mut [zmq::Message]) {
        self.barred.retain(|_, until| now < *until);
        let Some(user) = user(frames) else { return };
        let address = frames.last_mut().and_then(|frame| frame.gets("Peer-Address"));
        let address = address.unwrap_or_default().to_owned();
        self.barred.insert((user, address), now + BARRED);
    }

    fn is_barred(&self, now: Timestamp, key: PublicKey, address: &[u8]) -> bool {
        let address = String::from_utf8_lossy(address).into_owned();
        self.barred.get(&(key, address)).is_some_and(|until| now < *until)
    }

    /// Whether who sent this subscription may hear of that topic.
    pub(super) fn may_hear(&self, frames: &mut [zmq::Message], topic: &[u8]) -> bool {
        let services = user(frames).and_then(|user| self.admitted.get(&user));
        services.is_some_and(|services| {
            let service = topic_service(topic);
            let is_its = |one: &Services| {
                service.as_ref().is_some_and(|service| one.contains(service.as_str()))
            };
            topic == PULSE_TOPIC || services.iter().any(is_its)
        })
    }

    /// RFC 27: version, request, domain, address, identity, mechanism, credentials; and back version,
    /// request, status, text, user, metadata.
    fn answer(&self, question: &[Vec<u8>]) -> [Vec<u8>; 6] {
        let frame = |index: usize| question.get(index).map_or(&b""[..], Vec::as_slice);
        let key = <[u8; KEY_BYTES]>::try_from(frame(6)).ok().filter(|_| frame(5) == b"CURVE");
        let (status, user) = match key.map(PublicKey) {
            Some(key) if self.is_barred(Clock.now(), key, frame(3)) => (TRY_AGAIN, String::new()),
            Some(key) if self.admitted.contains_key(&key) => (ADMITTED, key.to_string()),
            Some(key) if self.stranger == Some(key) => (REFUSED, String::new()),
            _ => (TRY_AGAIN, String::new()),
        };
        let (status, nothing) = (status.as_bytes(), &b""[..]);
        [frame(0), frame(1), status, nothing, user.as_bytes(), nothing].map(<[u8]>::to_vec)
    }

    /// Tries to get in with a key that nobody has.
    fn refuses_strangers(&mut self, context: &zmq::Context) -> Result<(), ZapError> {
        let (ours, theirs) = (curve::new_keys()?, curve::new_keys()?);
        self.stranger = Some(theirs.public);
        // A place that only this process knows, and that no network has to be up for.
        let place = format!("ipc://@svcmap-{:032x}", fastrand::u128(..));
        let server = context.socket(zmq::ROUTER)?;
        curve::secure_server(&server, &ours)?;
        server.bind(&place)?;
        let client = context.socket(zmq::DEALER)?;
        curve::secure_client(&client, &theirs, ours.public)?;
        let watched =
            SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() | SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw();
        let watch = format!("inproc://zap-trial-{:032x}", fastrand::u128(..));
        client.monitor(&watch, i32::from(watched))?;
        let watcher = context.socket(zmq::PAIR)?;
        watcher.connect(&watch)?;
        client.connect(&place)?;
        let outcome = self.await_refusal(&watcher);
        for socket in [&server, &client, &watcher] {
            socket.set_linger(0)?;
        }
        self.stranger = None;
        outcome
    }

    fn await_refusal(&mut self, watcher: &Socket) -> Result<(), ZapError> {
        let until = Clock.now() + TRIAL_LIMIT;
        while Clock.now() < until {
            let mut looked_at =
                [watcher.as_poll_item(zmq::POLLIN), self.socket.as_poll_item(zmq::POLLIN)];
            zmq::poll(&mut looked_at, LOOK_MS)?;
            self.serve();
            let Ok(event) = watcher.recv_multipart(zmq::DONTWAIT) else { continue };
            let kind = event.first().and_then(|event| event.first_chunk::<2>());
            return match kind.map(|kind| u16::from_ne_bytes(*kind)) {
                Some(kind) if kind == SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw() => Ok(()),
                _ => Err(ZapError::LetIn),
            };
        }
        Err(ZapError::Silent)
    }
}
