//! Sockets as svcmap wants them: every option that matters set in one place.
//!
//! No socket sets a routing id: while an old connection is half-open, a duplicate is silently
//! ignored. No socket uses ZMQ_HEARTBEAT_*: with a full receive queue libzmq 4.3 aborts the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::raw;
use crate::limits;
use crate::names::Endpoint;

/// A ZeroMQ socket. It stays in the thread whose event loop owns it.
pub use zmq::Socket;

/// What differs between sockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketSettings {
    /// Largest frame that a peer may send, in bytes. libzmq's own limit is set to twice that, so
    /// that what is a little too large still gets an answer.
    pub frame_bytes_max: usize,
    /// What may wait for a peer that does not read, before a send says so: see
    /// [`limits::QUEUE_UNIT_BYTES`].
    pub send_queue: i32,
    /// What may wait for this process, in the same units; then a peer's connection is read no more.
    pub receive_queue: i32,
}

impl Default for SocketSettings {
    fn default() -> Self {
        let queue = limits::queue(limits::QUEUE_BYTES);
        Self { frame_bytes_max: limits::CONTROL_BYTES_MAX, send_queue: queue, receive_queue: queue }
    }
}

/// Why a socket could not be bound or connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Something else listens there. Stop it, or choose another port.
    #[error("{0} is in use")]
    InUse(Endpoint),
    /// No interface of this machine has that address.
    #[error("{0} is no address of this machine")]
    NotLocal(Endpoint),
    /// Ports below 1024 need privileges.
    #[error("{0} needs privileges that this process does not have")]
    Denied(Endpoint),
    /// Anything else, in libzmq's words.
    #[error("{0} cannot be used: {1}")]
    Other(Endpoint, String),
}

/// Why peers can make this process keep more than `limits` says, if they can: it was built with a plain
/// libzmq. Worth a warning where peers connect. All else works.
pub fn libzmq_doubt() -> Option<&'static str> {
    let doubt = "this libzmq is not svcmap's own build: set zmq-sys under [patch.crates-io], as the \
        README does";
    (zmq::has("svcmap") != Some(true)).then_some(doubt)
}

/// Which libzmq this is, such as `4.3.5`.
pub fn libzmq_version() -> String {
    let (major, minor, patch) = zmq::version();
    format!("{major}.{minor}.{patch}")
}

/// A ROUTER that says when a peer is unknown or full, instead of dropping what is sent to it.
///
/// # Errors
/// If the process is out of files or sockets.
pub fn router(context: &zmq::Context, settings: SocketSettings) -> zmq::Result<Socket> {
    let socket = new(context, zmq::ROUTER, settings)?;
    socket.set_router_mandatory(true)?;
    Ok(socket)
}

/// A DEALER that takes messages only while it is connected, so that nothing is sent stale.
///
/// # Errors
/// If the process is out of files or sockets.
pub fn dealer(context: &zmq::Context, settings: SocketSettings) -> zmq::Result<Socket> {
    let socket = new(context, zmq::DEALER, settings)?;
    socket.set_immediate(true)?;
    Ok(socket)
}

/// A PUB socket. It is sent nothing but subscriptions, and they are short.
///
/// # Errors
/// If the process is out of files or sockets.
pub fn publisher(context: &zmq::Context, settings: SocketSettings) -> zmq::Result<Socket> {
    publisher_of(context, zmq::PUB, settings)
}

/// The same, where each subscription is [decided](super::EventLoop::admit_only) on: nobody hears of what
/// it has nothing to do with.
///
/// # Errors
/// If the process is out of files or sockets.
pub fn selective_publisher(
    context: &zmq::Context,
    settings: SocketSettings,
) -> zmq::Result<Socket> {
    let mut socket = publisher_of(context, zmq::XPUB, settings)?;
    raw::decide_subscriptions(&mut socket)?;
    Ok(socket)
}

fn publisher_of(
    context: &zmq::Context,
    kind: zmq::SocketType,
    settings: SocketSettings,
) -> zmq::Result<Socket> {
    let frame_bytes_max = limits::SUBSCRIPTION_BYTES_MAX;
    new(context, kind, SocketSettings { frame_bytes_max, ..settings })
}

/// A SUB socket without subscriptions.
///
/// # Errors
/// If the process is out of files or sockets.
pub fn subscriber(context: &zmq::Context, settings: SocketSettings) -> zmq::Result<Socket> {
    new(context, zmq::SUB, settings)
}

fn new(
    context: &zmq::Context,
    kind: zmq::SocketType,
    settings: SocketSettings,
) -> zmq::Result<Socket> {
    let socket = context.socket(kind)?;
    socket.set_ipv6(true)?;
    socket.set_maxmsgsize(i64::try_from(2 * settings.frame_bytes_max).unwrap_or(i64::MAX))?;
    socket.set_sndhwm(settings.send_queue)?;
    socket.set_rcvhwm(settings.receive_queue)?;
    // A peer that connects and then says nothing holds a file no longer than this.
    socket.set_handshake_ivl(2000)?;
    // Quick after a restart, gentle while a host is away.
    socket.set_reconnect_ivl(50)?;
    socket.set_reconnect_ivl_max(1000)?;
    socket.set_connect_timeout(3000)?;
    socket.set_backlog(1024)?;
    // A host that lost its power never says goodbye: after 30 + 3 x 10 s the kernel gives it up.
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)?;
    // Never wait for a peer at exit, unless whoever owns the socket sets a time for it.
    socket.set_linger(0)?;
    Ok(socket)
}

/// What `localhost` means first, where it means several addresses.
const LOCALHOST: &str = "127.0.0.1";

/// Binds and returns the endpoint with the port that the system chose, if it did. `localhost` is both
/// 127.0.0.1, which is returned, and, if this machine has that, ::1: clients look at either.
///
/// # Errors
/// See [`BindError`].
pub fn bind(socket: &Socket, endpoint: &Endpoint) -> Result<Endpoint, BindError> {
    let Some(first) = of_localhost(endpoint, LOCALHOST) else { return bind_one(socket, endpoint) };
    let bound = bind_one(socket, &first)?;
    let second = bound.port().and_then(|port| Endpoint::tcp("::1", port).ok());
    match second.map(|second| bind_one(socket, &second)) {
        // Whoever looks there would find another program.
        Some(Err(error @ BindError::InUse(_))) => Err(error),
        // The others say that this machine has no IPv6.
        _ => Ok(bound),
    }
}

/// The same endpoint at that address, if it names `localhost`.
fn of_localhost(endpoint: &Endpoint, address: &str) -> Option<Endpoint> {
    let is_localhost = endpoint.host().eq_ignore_ascii_case("localhost");
    is_localhost.then(|| Endpoint::tcp(address, endpoint.port().unwrap_or(0)).ok())?
}

fn bind_one(socket: &Socket, endpoint: &Endpoint) -> Result<Endpoint, BindError> {
    contained(endpoint, || socket.bind(endpoint.as_str()))?;
    let other = |text: &str| BindError::Other(endpoint.clone(), text.to_owned());
    let bound = socket.get_last_endpoint().ok().and_then(Result::ok);
    let bound: Endpoint =
        bound.and_then(|text| text.parse().ok()).ok_or_else(|| other("no bound address"))?;
    let port = bound.port().ok_or_else(|| other("no bound port"))?;
    // libzmq answers with what it listens on, such as `[::]` or a mapped address; keep the words
    // of whoever asked.
    Endpoint::tcp(if endpoint.is_wildcard() { "*" } else { endpoint.host() }, port)
        .map_err(|e| other(&e.to_string()))
}

/// Connects, in the background and again whenever the connection is lost. `localhost` is 127.0.0.1:
/// libzmq would try one of its addresses only, and most listen there.
///
/// # Errors
/// See [`BindError`]; a peer that is not there is none.
pub fn connect(socket: &Socket, endpoint: &Endpoint) -> Result<(), BindError> {
    let endpoint = of_localhost(endpoint, LOCALHOST).unwrap_or_else(|| endpoint.clone());
    contained(&endpoint, || socket.connect(endpoint.as_str()))
}

/// `zmq` panics on error numbers that it does not list; at configuration time that is contained.
fn contained(endpoint: &Endpoint, call: impl FnOnce() -> zmq::Result<()>) -> Result<(), BindError> {
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => return Err(BindError::Other(endpoint.clone(), "unknown error".to_owned())),
    };
    Err(match error {
        zmq::Error::EADDRINUSE => BindError::InUse(endpoint.clone()),
        zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV => BindError::NotLocal(endpoint.clone()),
        zmq::Error::EACCES => BindError::Denied(endpoint.clone()),
        error => BindError::Other(endpoint.clone(), error.message().to_owned()),
    })
}

/// Lets this process open as many files as the system allows: each connection is one. Returns how
/// many that are.
pub fn raise_open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let effective = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    effective.current.unwrap_or(u64::MAX)
}

/// How many files this process may open.
pub(super) fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How long [`Socket`]s wait at their closing for what was sent, from now on.
pub(super) fn set_linger(socket: &Socket, linger: Duration) {
    // A socket that refuses an option is closed anyway: dropping is all that is left to do.
    let _ = socket.set_linger(i32::try_from(linger.as_millis()).unwrap_or(i32::MAX));
}
