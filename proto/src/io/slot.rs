//! One socket of an event loop: what it has is read within a budget, and what is not for its owner stays
//! here.

use std::time::Duration;

use zmq::{Message, PollEvents};

use super::Clock;
use super::event_loop::{Event, Heard, SocketKey};
use super::sockets::Socket;
use super::zap::{Origin, Zap};
use crate::conduct::Conduct;
use crate::limits;
use crate::names::Endpoint;

/// Messages that one socket may deliver before the others get their turn.
const BUDGET: usize = 256;

/// Time that their delivery may take, whatever they are: deadlines and beats wait no longer.
const TURN: Duration = Duration::from_millis(10);

/// Messages between two looks at the clock.
const LOOK: usize = 4;

/// A message with more bytes is looked at the clock after: reading what is in it may take as long as
/// hundreds of small ones.
const LOOK_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct Slot {
    pub(super) key: SocketKey,
    pub(super) socket: Socket,
    /// Something may wait here that no signal will tell of.
    pub(super) hot: bool,
    /// More waited here than was read the last time.
    pub(super) behind: bool,
    /// Its messages stay in this process: who receives one may write into it.
    pub(super) is_within: bool,
    /// Who is at the other ends has proven that, or did not have to.
    pub(super) is_secured: bool,
    /// Others connect to it, and send.
    is_router: bool,
    /// On which ports, as far as is known.
    pub(super) ports: Vec<u16>,
    /// Who has sent what was refused there.
    conduct: Conduct<(i32, Vec<u8>)>,
    /// Its messages are subscriptions, each of which is decided on here.
    is_publisher: bool,
    /// Its last known writability, if anybody wants to know.
    pub(super) writable: Option<bool>,
}

impl Slot {
    pub(super) fn new(key: SocketKey, socket: Socket) -> Self {
        let is_within = is_within_process(&socket);
        let is_secured = socket.is_curve_server().unwrap_or(false);
        let kind = socket.get_socket_type();
        let (is_router, conduct) = (kind == Ok(zmq::ROUTER), Conduct::default());
        let bound = socket.get_last_endpoint().ok().and_then(Result::ok);
        let bound = bound.and_then(|bound| bound.parse::<Endpoint>().ok());
        let ports = bound.and_then(|bound| bound.port()).into_iter().collect();
        let is_publisher = is_secured && kind == Ok(zmq::XPUB);
        // The signal may have come before anybody waited for it: look once.
        let (hot, behind, writable) = (true, false, None);
        Self {
            key,
            socket,
            hot,
            behind,
            is_within,
            is_secured,
            is_router,
            ports,
            conduct,
            is_publisher,
            writable,
        }
    }
}

/// Delivers what a socket has, and returns whether there may be more.
pub(super) fn read(
    slot: &mut Slot,
    frames: &mut Vec<Message>,
    zap: &mut Option<Zap>,
    deliver: &mut impl FnMut(Event<'_>) -> Heard,
) -> bool {
    let mut left = BUDGET;
    let until = Clock.now() + TURN;
    loop {
        // Looking at the events is what makes the next signal possible, so it comes last as well.
        let Ok(events) = retry_interrupted(|| slot.socket.get_events()) else { return false };
        let before = left;
        while left > 0 && events.contains(PollEvents::POLLIN) {
            let received = receive(&slot.socket, frames);
            let is_large = frames.iter().map(|frame| frame.len()).sum::<usize>() > LOOK_BYTES;
            let mut zap = zap.as_mut().filter(|_| slot.is_secured);
            let heard = match received {
                Received::Nothing => break,
                Received::Message if !is_for_owner(slot, zap.as_deref_mut(), frames) => Heard::Fine,
                Received::Message => deliver(Event::Received(slot.key, frames)),
                Received::TooManyFrames => deliver(Event::TooManyFrames(slot.key, frames)),
            };
            if heard == Heard::Bad {
                handle_bad(slot, zap, frames, deliver);
            }
            left -= 1;
            if (is_large || left.is_multiple_of(LOOK)) && Clock.now() >= until {
                left = 0;
            }
        }
        frames.clear();
        if left == 0 {
            return true;
        }
        if left == before {
            let writable = events.contains(PollEvents::POLLOUT);
            if slot.writable.is_some_and(|known| known != writable) {
                slot.writable = Some(writable);
                deliver(if writable {
                    Event::Writable(slot.key)
                } else {
                    Event::Unwritable(slot.key)
                });
            }
            return false;
        }
    }
}

/// Cuts off who has sent so much that was refused, and says so.
fn handle_bad(
    slot: &mut Slot,
    zap: Option<&mut Zap>,
    frames: &mut [Message],
    deliver: &mut impl FnMut(Event<'_>) -> Heard,
) {
    let now = Clock.now();
    if !slot.is_router {
        return;
    }
    let Some(origin) = Origin::of(frames) else { return };
    // Another may have that file's number while what was under way still comes, but not its routing id.
    let id = frames.first().map(|id| id.to_vec()).unwrap_or_default();
    if !slot.conduct.handle_bad(now, (origin.file, id)) {
        return;
    }
    origin.cut_off(&slot.ports);
    if let Some(zap) = zap {
        zap.bar(now, frames);
    }
    let address = frames.last_mut().and_then(|frame| frame.gets("Peer-Address"));
    deliver(Event::CutOff(slot.key, address.unwrap_or_default()));
}

/// Whether the owner gets that message: if the socket is secured, who sent it is admitted, and it is no
/// subscription, which is decided on here.
fn is_for_owner(slot: &Slot, zap: Option<&mut Zap>, frames: &mut [Message]) -> bool {
    let Some(zap) = zap else { return true };
    let is_heard = zap.hears(frames);
    if slot.is_publisher
        && let Some((verb, topic)) = frames.first().and_then(|frame| frame.split_first())
    {
        let (verb, topic) = (*verb, topic.to_vec());
        // Where that fails nobody hears anything, or somebody goes on to hear what he may.
        let _ = match verb {
            1 if is_heard && zap.may_hear(frames, &topic) => slot.socket.set_subscribe(&topic),
            0 => slot.socket.set_unsubscribe(&topic),
            _ => Ok(()),
        };
    }
    is_heard && !slot.is_publisher
}

enum Received {
    Message,
    TooManyFrames,
    Nothing,
}

/// Receives one message frame by frame: what has too many is read to its end and not kept whole.
fn receive(socket: &Socket, frames: &mut Vec<Message>) -> Received {
    frames.clear();
    let mut count = 0;
    loop {
        let mut frame = Message::new();
        if retry_interrupted(|| socket.recv(&mut frame, zmq::DONTWAIT)).is_err() {
            // Messages are atomic: nothing can be missing once the first frame came.
            return Received::Nothing;
        }
        let more = frame.get_more();
        count += 1;
        if count <= limits::FRAMES_MAX {
            frames.push(frame);
        }
        if !more {
            break;
        }
    }
    if count > limits::FRAMES_MAX { Received::TooManyFrames } else { Received::Message }
}

/// Whether a socket's last address is of this process only.
fn is_within_process(socket: &Socket) -> bool {
    let endpoint = socket.get_last_endpoint();
    !endpoint.is_ok_and(|endpoint| endpoint.is_ok_and(|text| !text.starts_with("inproc:")))
}

pub(super) fn retry_interrupted<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            result => return result,
        }
    }
}
