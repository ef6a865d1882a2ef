//! Who gets in: answers libzmq's question for each connection that has proven its key (ZAP, ZeroMQ
//! RFC 27).
//!
//! libzmq admits everybody if nobody answers, so this is there before any socket that depends on it, is
//! tried out, and goes after them.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use zmq::SocketEvent;

use super::sockets::Socket;
use super::{Clock, curve};
use crate::keys::{KEY_BYTES, PublicKey};

/// Where libzmq asks.
const ENDPOINT: &str = "inproc://zeromq.zap.01";

/// Whoever has an unknown key may try again later: it may be known by then.
const TRY_AGAIN: &str = "300";

/// The stranger of the trial is to hear of it.
const REFUSED: &str = "400";

const ADMITTED: &str = "200";

/// How long the trial may take: two processes of one machine need some milliseconds.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

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

/// See the module.
pub(super) struct Zap {
    pub(super) socket: Socket,
    admitted: BTreeSet<PublicKey>,
    /// Who is refused once and for all.
    stranger: Option<PublicKey>,
}

impl Zap {
    /// Admits these and nobody else, and has tried that.
    pub(super) fn new(
        context: &zmq::Context,
        admitted: impl IntoIterator<Item = PublicKey>,
    ) -> Result<Self, ZapError> {
        if !curve::can_encrypt() {
            return Err(ZapError::NoCurve);
        }
        let socket = context.socket(zmq::REP)?;
        socket.set_linger(0)?;
        socket.bind(ENDPOINT)?;
        let mut zap = Self { socket, admitted: admitted.into_iter().collect(), stranger: None };
        zap.refuses_strangers(context)?;
        Ok(zap)
    }

    /// Answers every question that is there.
    pub(super) fn serve(&self) {
        while let Ok(question) = self.socket.recv_multipart(zmq::DONTWAIT) {
            // Whoever asked is of this process, and waits.
            let _ = self.socket.send_multipart(self.answer(&question), zmq::DONTWAIT);
        }
    }

    /// RFC 27: version, request, domain, address, identity, mechanism, credentials; and back version,
    /// request, status, text, user, metadata.
    fn answer<'a>(&self, question: &'a [Vec<u8>]) -> [&'a [u8]; 6] {
        let frame = |index: usize| question.get(index).map_or(&b""[..], Vec::as_slice);
        let status = match (frame(5), <[u8; KEY_BYTES]>::try_from(frame(6))) {
            (b"CURVE", Ok(key)) if self.admitted.contains(&PublicKey(key)) => ADMITTED,
            (b"CURVE", Ok(key)) if self.stranger == Some(PublicKey(key)) => REFUSED,
            _ => TRY_AGAIN,
        };
        [frame(0), frame(1), status.as_bytes(), b"", b"", b""]
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

    fn await_refusal(&self, watcher: &Socket) -> Result<(), ZapError> {
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
