//! Who gets in: answers libzmq's question for each connection that has proven its key (ZAP, ZeroMQ
//! RFC 27), and knows who is behind each that is there.
//!
//! libzmq admits everybody if nobody answers, so this is there before any socket that depends on it, is
//! tried out, and goes after them. It asks once for each connection; who is not to be there any more is
//! found by the messages that came.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;
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
    let said = frames.last_mut()?.gets("User-Id")?;
    said.strip_prefix(voucher())?.parse().ok()
}

/// What only this process can write before a user's key. Whoever connects in plain text may call himself
/// what he likes, by that very property.
fn voucher() -> &'static str {
    static VOUCHER: OnceLock<String> = OnceLock::new();
    // Without keys nobody is vouched for, so it is never asked for then.
    VOUCHER
        .get_or_init(|| curve::new_keys().map_or_else(|_| String::new(), |keys| keys.secret.into()))
}

/// The connection that a message came on: the number of its file, which is libzmq's and by now perhaps
/// another one's, from where it is, and which socket has that number now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) file: i32,
    address: IpAddr,
    cookie: Option<u64>,
}

impl Origin {
    pub(super) fn of(frames: &mut [zmq::Message]) -> Option<Self> {
        let frame = frames.last_mut()?;
        let file = frame.gets("__fd")?.parse().ok()?;
        let address: IpAddr = frame.gets("Peer-Address")?.parse().ok()?;
        Some(Self { file, address: address.to_canonical(), cookie: raw::cookie(file) })
    }

    /// Ends it, unless another one has its number by now. One that got it before the message was read is
    /// taken for it only if it is from there as well, and to one of these ports: its other end makes it again.
    pub(super) fn cut_off(self, ports: &[u16]) {
        let is_same = raw::cookie(self.file) == self.cookie;
        let ends = raw::ends(self.file).filter(|_| is_same);
        if ends.is_some_and(|(near, far)| far == self.address && ports.contains(&near)) {
            raw::shut_down(self.file);
        }
    }
}

/// Most users that are remembered for one number of a file: what they had sent may still come.
const USERS_OF_ONE_MAX: usize = 8;

/// Somebody who was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    user: PublicKey,
    from: Origin,
    is_cut: bool,
}

/// See the module.
pub(super) struct Zap {
    pub(super) socket: Socket,
    admitted: Admitted,
    /// Who was heard lately on each connection, by the number of its file: what somebody had sent still comes
    /// while another may have that number already.
    heard: BTreeMap<i32, Vec<Heard>>,
    /// Where those listen who are to be cut off.
    ports: Vec<u16>,
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
            ports: Vec::new(),
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
        for heard in self.heard.values_mut().flatten() {
            if !heard.is_cut && !self.admitted.contains_key(&heard.user) {
                heard.from.cut_off(&self.ports);
                heard.is_cut = true;
            }
        }
    }

    /// Who connects to that port is to be cut off when he is not admitted any more.
    pub(super) fn watch_port(&mut self, port: u16) {
        self.ports.push(port);
    }

    /// A message came. Whether its sender is admitted now, or has not had to prove who it is; else its
    /// connection has ended.
    pub(super) fn hears(&mut self, frames: &mut [zmq::Message]) -> bool {
        let Some(user) = user(frames) else { return true };
        let is_admitted = self.admitted.contains_key(&user);
        let Some(from) = Origin::of(frames) else { return is_admitted };
        let of_file = self.heard.entry(from.file).or_default();
        let known = of_file.iter().position(|heard| heard.user == user);
        let was_cut = known.is_some_and(|place| of_file[place].is_cut);
        match known {
            Some(place) => of_file[place] = Heard { user, from, is_cut: !is_admitted },
            None => {
                of_file.truncate(USERS_OF_ONE_MAX - 1);
                of_file.insert(0, Heard { user, from, is_cut: !is_admitted });
            }
        }
        if !is_admitted && !was_cut {
            from.cut_off(&self.ports);
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
            Some(key) if self.admitted.contains_key(&key) => {
                (ADMITTED, format!("{}{key}", voucher()))
            }
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
        let place = format!("ipc://@svcmap-{:032x}", super::random_u128());
        let server = context.socket(zmq::ROUTER)?;
        curve::secure_server(&server, &ours)?;
        server.bind(&place)?;
        let client = context.socket(zmq::DEALER)?;
        curve::secure_client(&client, &theirs, ours.public)?;
        let watched =
            SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() | SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw();
        let watch = format!("inproc://zap-trial-{:032x}", super::random_u128());
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
