//! The C API of libzmq 4.3.5, as far as the crate `zmq` and svcmap call it.
//!
//! It takes the place of the `zmq-sys` on crates.io, which builds libzmq 4.3.4 without CURVE and
//! without the definitions of its platform. Names and values are those of `zmq.h`.
#![allow(missing_docs, non_camel_case_types)]

use std::os::raw::{c_char, c_int, c_long, c_short, c_void};

// Links libsodium, which libzmq's CURVE calls.
use libsodium_sys as _;

pub use std::os::unix::io::RawFd;

pub mod errno;

/// As many sockets as one context may ever have: what libzmq itself takes as its upper bound.
/// libzmq's default of 1023 is less than the workers that one sender may talk to.
pub const MAX_SOCKETS: c_int = 65_535;

macro_rules! constants {
    ($($name:ident = $value:expr;)*) => { $(pub const $name: u32 = $value;)* };
}

// Context options.
constants! {
    ZMQ_IO_THREADS = 1;
    ZMQ_MAX_SOCKETS = 2;
    ZMQ_SOCKET_LIMIT = 3;
    ZMQ_THREAD_SCHED_POLICY = 4;
    ZMQ_MAX_MSGSZ = 5;
    ZMQ_MSG_T_SIZE = 6;
    ZMQ_THREAD_AFFINITY_CPU_ADD = 7;
    ZMQ_THREAD_AFFINITY_CPU_REMOVE = 8;
    ZMQ_THREAD_NAME_PREFIX = 9;
}

// Socket types.
constants! {
    ZMQ_PAIR = 0;
    ZMQ_PUB = 1;
    ZMQ_SUB = 2;
    ZMQ_REQ = 3;
    ZMQ_REP = 4;
    ZMQ_DEALER = 5;
    ZMQ_ROUTER = 6;
    ZMQ_PULL = 7;
    ZMQ_PUSH = 8;
    ZMQ_XPUB = 9;
    ZMQ_XSUB = 10;
    ZMQ_STREAM = 11;
}

// Socket options.
constants! {
    ZMQ_AFFINITY = 4;
    ZMQ_ROUTING_ID = 5;
    ZMQ_SUBSCRIBE = 6;
    ZMQ_UNSUBSCRIBE = 7;
    ZMQ_RATE = 8;
    ZMQ_RECOVERY_IVL = 9;
    ZMQ_SNDBUF = 11;
    ZMQ_RCVBUF = 12;
    ZMQ_RCVMORE = 13;
    ZMQ_FD = 14;
    ZMQ_EVENTS = 15;
    ZMQ_TYPE = 16;
    ZMQ_LINGER = 17;
    ZMQ_RECONNECT_IVL = 18;
    ZMQ_BACKLOG = 19;
    ZMQ_RECONNECT_IVL_MAX = 21;
    ZMQ_MAXMSGSIZE = 22;
    ZMQ_SNDHWM = 23;
    ZMQ_RCVHWM = 24;
    ZMQ_MULTICAST_HOPS = 25;
    ZMQ_RCVTIMEO = 27;
    ZMQ_SNDTIMEO = 28;
    ZMQ_LAST_ENDPOINT = 32;
    ZMQ_ROUTER_MANDATORY = 33;
    ZMQ_TCP_KEEPALIVE = 34;
    ZMQ_TCP_KEEPALIVE_CNT = 35;
    ZMQ_TCP_KEEPALIVE_IDLE = 36;
    ZMQ_TCP_KEEPALIVE_INTVL = 37;
    ZMQ_IMMEDIATE = 39;
    ZMQ_XPUB_VERBOSE = 40;
    ZMQ_ROUTER_RAW = 41;
    ZMQ_IPV6 = 42;
    ZMQ_MECHANISM = 43;
    ZMQ_PLAIN_SERVER = 44;
    ZMQ_PLAIN_USERNAME = 45;
    ZMQ_PLAIN_PASSWORD = 46;
    ZMQ_CURVE_SERVER = 47;
    ZMQ_CURVE_PUBLICKEY = 48;
    ZMQ_CURVE_SECRETKEY = 49;
    ZMQ_CURVE_SERVERKEY = 50;
    ZMQ_PROBE_ROUTER = 51;
    ZMQ_REQ_CORRELATE = 52;
    ZMQ_REQ_RELAXED = 53;
    ZMQ_CONFLATE = 54;
    ZMQ_ZAP_DOMAIN = 55;
    ZMQ_ROUTER_HANDOVER = 56;
    ZMQ_TOS = 57;
    ZMQ_CONNECT_ROUTING_ID = 61;
    ZMQ_GSSAPI_SERVER = 62;
    ZMQ_GSSAPI_PRINCIPAL = 63;
    ZMQ_GSSAPI_SERVICE_PRINCIPAL = 64;
    ZMQ_GSSAPI_PLAINTEXT = 65;
    ZMQ_HANDSHAKE_IVL = 66;
    ZMQ_SOCKS_PROXY = 68;
    ZMQ_XPUB_NODROP = 69;
    ZMQ_BLOCKY = 70;
    ZMQ_XPUB_MANUAL = 71;
    ZMQ_XPUB_WELCOME_MSG = 72;
    ZMQ_STREAM_NOTIFY = 73;
    ZMQ_INVERT_MATCHING = 74;
    ZMQ_HEARTBEAT_IVL = 75;
    ZMQ_HEARTBEAT_TTL = 76;
    ZMQ_HEARTBEAT_TIMEOUT = 77;
    ZMQ_XPUB_VERBOSER = 78;
    ZMQ_CONNECT_TIMEOUT = 79;
    ZMQ_TCP_MAXRT = 80;
    ZMQ_THREAD_SAFE = 81;
    ZMQ_MULTICAST_MAXTPDU = 84;
    ZMQ_USE_FD = 89;
    ZMQ_BINDTODEVICE = 92;
}

// Message options and send flags.
constants! {
    ZMQ_DONTWAIT = 1;
    ZMQ_SNDMORE = 2;
    ZMQ_MORE = 1;
    ZMQ_SHARED = 3;
}

// Security mechanisms.
constants! {
    ZMQ_NULL = 0;
    ZMQ_PLAIN = 1;
    ZMQ_CURVE = 2;
    ZMQ_GSSAPI = 3;
}

// Events of a socket monitor.
constants! {
    ZMQ_EVENT_CONNECTED = 0x0001;
    ZMQ_EVENT_CONNECT_DELAYED = 0x0002;
    ZMQ_EVENT_CONNECT_RETRIED = 0x0004;
    ZMQ_EVENT_LISTENING = 0x0008;
    ZMQ_EVENT_BIND_FAILED = 0x0010;
    ZMQ_EVENT_ACCEPTED = 0x0020;
    ZMQ_EVENT_ACCEPT_FAILED = 0x0040;
    ZMQ_EVENT_CLOSED = 0x0080;
    ZMQ_EVENT_CLOSE_FAILED = 0x0100;
    ZMQ_EVENT_DISCONNECTED = 0x0200;
    ZMQ_EVENT_MONITOR_STOPPED = 0x0400;
    ZMQ_EVENT_ALL = 0xFFFF;
    ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL = 0x0800;
    ZMQ_EVENT_HANDSHAKE_SUCCEEDED = 0x1000;
    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL = 0x2000;
    ZMQ_EVENT_HANDSHAKE_FAILED_AUTH = 0x4000;
}

// What to poll for.
constants! {
    ZMQ_POLLIN = 1;
    ZMQ_POLLOUT = 2;
    ZMQ_POLLERR = 4;
    ZMQ_POLLPRI = 8;
}

/// A message; its content is libzmq's business. Aligned as `zmq.h` wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct zmq_msg_t {
    pub _opaque: [u8; 64],
}

impl Default for zmq_msg_t {
    fn default() -> Self {
        Self { _opaque: [0; 64] }
    }
}

/// A socket or file to poll.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct zmq_pollitem_t {
    pub socket: *mut c_void,
    pub fd: RawFd,
    pub events: c_short,
    pub revents: c_short,
}

/// Called when libzmq no longer needs the data of a message.
pub type zmq_free_fn = unsafe extern "C" fn(data: *mut c_void, hint: *mut c_void);

/// A new context that allows [`MAX_SOCKETS`] sockets.
///
/// # Safety
/// As for every context: whoever takes it ends it once, with [`zmq_ctx_term`].
pub unsafe fn zmq_ctx_new() -> *mut c_void {
    // SAFETY: it takes nothing and returns a context or null.
    let context = unsafe { ctx_new() };
    if !context.is_null() {
        // SAFETY: the context was made just now and has no socket yet. Should the option be
        // refused, the default stays, and the error is no reason to have no context at all.
        unsafe { zmq_ctx_set(context, ZMQ_MAX_SOCKETS as c_int, MAX_SOCKETS) };
    }
    context
}

extern "C" {
    #[link_name = "zmq_ctx_new"]
    fn ctx_new() -> *mut c_void;

    pub fn zmq_errno() -> c_int;
    pub fn zmq_strerror(errnum: c_int) -> *const c_char;
    pub fn zmq_version(major: *mut c_int, minor: *mut c_int, patch: *mut c_int);
    pub fn zmq_has(capability: *const c_char) -> c_int;

    pub fn zmq_ctx_term(context: *mut c_void) -> c_int;
    pub fn zmq_ctx_set(context: *mut c_void, option: c_int, value: c_int) -> c_int;
    pub fn zmq_ctx_get(context: *mut c_void, option: c_int) -> c_int;

    pub fn zmq_msg_init(msg: *mut zmq_msg_t) -> c_int;
    pub fn zmq_msg_init_size(msg: *mut zmq_msg_t, size: usize) -> c_int;
    pub fn zmq_msg_init_data(
        msg: *mut zmq_msg_t,
        data: *mut c_void,
        size: usize,
        free: Option<zmq_free_fn>,
        hint: *mut c_void,
    ) -> c_int;
    pub fn zmq_msg_send(msg: *mut zmq_msg_t, socket: *mut c_void, flags: c_int) -> c_int;
    pub fn zmq_msg_recv(msg: *mut zmq_msg_t, socket: *mut c_void, flags: c_int) -> c_int;
    pub fn zmq_msg_close(msg: *mut zmq_msg_t) -> c_int;
    pub fn zmq_msg_data(msg: *mut zmq_msg_t) -> *mut c_void;
    pub fn zmq_msg_size(msg: *const zmq_msg_t) -> usize;
    pub fn zmq_msg_more(msg: *const zmq_msg_t) -> c_int;
    pub fn zmq_msg_gets(msg: *const zmq_msg_t, property: *const c_char) -> *const c_char;

    pub fn zmq_socket(context: *mut c_void, kind: c_int) -> *mut c_void;
    pub fn zmq_close(socket: *mut c_void) -> c_int;
    pub fn zmq_setsockopt(
        socket: *mut c_void,
        option: c_int,
        value: *const c_void,
        size: usize,
    ) -> c_int;
    pub fn zmq_getsockopt(
        socket: *mut c_void,
        option: c_int,
        value: *mut c_void,
        size: *mut usize,
    ) -> c_int;
    pub fn zmq_bind(socket: *mut c_void, endpoint: *const c_char) -> c_int;
    pub fn zmq_unbind(socket: *mut c_void, endpoint: *const c_char) -> c_int;
    pub fn zmq_connect(socket: *mut c_void, endpoint: *const c_char) -> c_int;
    pub fn zmq_disconnect(socket: *mut c_void, endpoint: *const c_char) -> c_int;
    pub fn zmq_recv(socket: *mut c_void, buffer: *mut c_void, size: usize, flags: c_int) -> c_int;
    pub fn zmq_socket_monitor(socket: *mut c_void, endpoint: *const c_char, events: c_int)
        -> c_int;

    pub fn zmq_poll(items: *mut zmq_pollitem_t, count: c_int, timeout: c_long) -> c_int;
    pub fn zmq_proxy(frontend: *mut c_void, backend: *mut c_void, capture: *mut c_void) -> c_int;
    pub fn zmq_proxy_steerable(
        frontend: *mut c_void,
        backend: *mut c_void,
        capture: *mut c_void,
        control: *mut c_void,
    ) -> c_int;

    pub fn zmq_z85_encode(dest: *mut c_char, data: *const u8, size: usize) -> *mut c_char;
    pub fn zmq_z85_decode(dest: *mut u8, string: *const c_char) -> *mut u8;
    pub fn zmq_curve_keypair(public_key: *mut c_char, secret_key: *mut c_char) -> c_int;
}
