//! Every limit of the wire in one place, each with its reason.
//!
//! Decoding checks them before anything is allocated. Limits of a single process (slots, bytes in
//! flight) are settings and stand in that process's `config`.

/// Longest service or instance name, in bytes: longer than any DNS label or `host-pid-random`.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest error that an instance tells of itself, in bytes: a line or two for people, so that a
/// snapshot of instances that all fail is at most twice as large.
pub const ERROR_BYTES_MAX: usize = 200;

/// Largest message that a subscriber may send: a topic has a name's bytes and one, and what opens a
/// connection, with CURVE, some 300.
pub const SUBSCRIPTION_BYTES_MAX: usize = 512;

/// Most subscriptions of one connection, as `zmq-sys` builds libzmq: one counts again for each 80 bytes
/// that it has, and what is subscribed to beyond them is ignored. A worker or client has half as many.
pub const SUBSCRIPTIONS_MAX: usize = 2048;

/// Longest endpoint, in bytes: `tcp://`, a DNS name of 253 bytes, and a port.
pub const ENDPOINT_BYTES_MAX: usize = 268;

/// Most endpoints that one instance may advertise: loopback and three networks.
pub const ENDPOINTS_MAX: usize = 4;

/// Largest control message or job header: a snapshot part and its surroundings fit with room.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Largest part of a snapshot or of changes, so that a part stays below [`CONTROL_BYTES_MAX`].
pub const PART_BYTES_MAX: usize = 48 * 1024;

/// Highest number of a job or an outcome on a connection that is believed. No counter gets there by
/// counting, and from there it can go on.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Most parts of one snapshot: 1024 parts of some 300 entries are far beyond [`INSTANCES_MAX`].
pub const PARTS_MAX: u16 = 1024;

/// Most services of which a sender says how many jobs wait: who waits for more has no quarrel with one.
pub const WAITING_SERVICES_MAX: usize = 8;

/// Most services of which a mapper tells what happens there: a third of a part, and more than people read.
pub const ACTIVITIES_MAX: usize = 192;

/// Most entries in any list of one message: the smallest entry has 16 bytes.
pub const LIST_MAX: usize = 4096;

/// Default for the largest payload of a job or a result: one mebibyte.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1024 * 1024;

/// Largest value that the payload limit can be set to: beyond it, send a path or a URL instead.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest envelope of a REQ socket that is kept until its reply, in bytes: a routing id has at
/// most 255, a correlation takes four, and a proxy or two in between add a few.
pub const ENVELOPE_BYTES_MAX: usize = 512;

/// Least size of a payload that travels in a frame of its own, in bytes: from here on a copy costs
/// more than a frame.
pub const LARGE_BYTES: usize = 4096;

/// Whether a payload of so many bytes travels in a frame of its own.
pub const fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_BYTES
}

/// Most jobs, or outcomes, in one message. Beside its payload a job has at most some 70 bytes, and an
/// outcome, handed over to an instance of the longest name, 130: all of them fit into
/// [`CONTROL_BYTES_MAX`].
pub const BATCH_MAX: usize = 256;

/// Longest text in which a job says how far it is, in bytes: a line for people, which may come ten times a
/// second, and of which one is kept for each job that runs.
pub const PROGRESS_BYTES_MAX: usize = 256;

/// Most of these texts in one message: with 17 bytes more for each, all of them fit into
/// [`CONTROL_BYTES_MAX`], and what comes behind them waits for no more than behind a batch of payloads.
pub const PROGRESS_BATCH_MAX: usize = 128;

/// Most names that a job's metadata has: a dozen for those that trace it, and a few of the user's own.
pub const METADATA_ENTRIES_MAX: usize = 16;

/// Longest name in a job's metadata, in bytes.
pub const METADATA_NAME_BYTES_MAX: usize = 64;

/// Most bytes that a job's metadata takes as it travels: each of a thousand jobs that wait may have as
/// many, and what is larger is a payload.
pub const METADATA_BYTES_MAX: usize = 1024;

/// Most bytes of payloads and metadata in one message, unless it has only one. With more, the rest of a message
/// costs next to nothing, and whatever comes behind it would wait.
pub const BATCH_BYTES_MAX: usize = 32 * 1024;

/// Most frames of a message that are kept. Ours have at most eleven (routing id, message, small
/// payloads, large ones); the rest is slack for other framings. What has more is read to its end and
/// counted.
pub const FRAMES_MAX: usize = 3 + BATCH_BYTES_MAX / LARGE_BYTES + 5;

/// Most frames of a message whose end has not come: libzmq, as `zmq-sys` builds it, ends the
/// connection then, or when they have more bytes than a frame may have.
pub const INCOMPLETE_FRAMES_MAX: usize = 1024;

/// What libzmq's water marks count, as `zmq-sys` builds it: each frame is one unit, and one more for
/// each so many bytes in it. A plain libzmq counts messages.
pub const QUEUE_UNIT_BYTES: usize = 1024;

/// What may wait in either direction of a connection, unless more is needed: as much as the kernel
/// keeps. The message that goes beyond it is taken whole.
pub const QUEUE_BYTES: usize = 1024 * 1024;

/// So many bytes in the units of libzmq's water marks.
pub const fn queue(bytes: usize) -> i32 {
    let units = bytes.div_ceil(QUEUE_UNIT_BYTES);
    if units > i32::MAX as usize { i32::MAX } else { units as i32 }
}

/// Most instances that one mapper holds: 65,536 of some 200 bytes are 13 MB.
pub const INSTANCES_MAX: usize = 65_536;

/// Most instances that are registered over one connection: a process has one or a few, and a proxy of
/// REQ sockets some more. Nobody fills a registry alone.
pub const INSTANCES_PER_CONNECTION_MAX: usize = 64;

/// Most services that one mapper holds: each costs a snapshot every beat.
pub const SERVICES_MAX: usize = 4096;

/// Most attempts that one sender leaves open at one worker, so that a HELLO that lists them all
/// (at most 15 bytes each, until a sender's 2^49th job) fits into one frame.
pub const OPEN_ATTEMPTS_MAX: usize = 4096;

/// Furthest that an incarnation may lie ahead of the mapper's clock: one day. A clock that is
/// further off would otherwise lock its name for as long.
pub const INCARNATION_AHEAD_US_MAX: u64 = 24 * 3600 * 1_000_000;

/// Most connections to one socket from one address, unless [`FILES_FOR_OTHERS`] leaves fewer: far more than
/// processes run on a machine.
pub const CONNECTIONS_PER_ADDRESS_MAX: u64 = 16_384;

/// So many of the files that a process may open, or an eighth of them if that is more, no address takes alone:
/// they are for the process itself, and for somebody else. Of few files it is half.
pub const FILES_FOR_OTHERS: u64 = 64;

/// Most messages that are refused on one connection in a second before it is ended: a peer of another
/// build or a broken client is told what is wrong some times, and nobody keeps others from being read.
pub const BAD_MESSAGES_MAX: u32 = 100;

/// Most keys that may take part in a deployment: one for each host of a large one. All of them go into one
/// message to each worker, of which they take half.
pub const KEYS_MAX: usize = 1024;

/// Most keys that a mapper remembers as revoked, so that nobody else's list brings them back. Beyond
/// them the one that was revoked first is forgotten.
pub const REVOKED_MAX: usize = 512;

/// Most entries in a principal's list of services, each of which may stand for many.
pub const PRINCIPAL_SERVICES_MAX: usize = 8;

/// Principals in one answer about them: as many of the largest as fit into a part.
pub const PRINCIPALS_PAGE: usize = 64;
