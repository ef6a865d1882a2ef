//! The event loop: ZeroMQ sockets, signals and a waker, waited for together through mio.
//!
//! A ZeroMQ socket shows itself to mio as a file that *signals*: something may have changed. Any
//! send, receive or look at its events may consume that signal, so a socket is looked at again
//! after whatever was done to it, and the loop sleeps only after a look that found nothing.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals;
use zmq::Message;

use super::slot::{Slot, read, retry_interrupted};
use super::sockets::{Socket, set_linger};
use super::zap::{Admitted, Zap, ZapError};
use super::{Clock, Spin, raw};
use crate::payload::Frame;
use crate::time::Timestamp;

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const ZAP: Token = Token(2);
const FIRST_SOCKET: usize = 3;

/// Names a socket of an [`EventLoop`]. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey(u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message came. Its frames are borrowed: what is to be kept is taken out by
    /// [`payloads`](super::payloads), as small frames would pin libzmq's receive buffers.
    Received(SocketKey, &'a mut [Message]),
    /// A message of more than [`limits::FRAMES_MAX`](crate::limits::FRAMES_MAX) frames came; these are its first.
    TooManyFrames(SocketKey, &'a mut [Message]),
    /// Somebody was cut off who sent too much that was refused, there, from that address (empty if it is
    /// not known).
    CutOff(SocketKey, &'a str),
    /// A watched socket is connected, or has room again.
    Writable(SocketKey),
    /// A watched socket is not connected any more, or full.
    Unwritable(SocketKey),
    /// A signal came.
    Signal(i32),
    /// Another thread called [`Waker::wake`].
    Woken,
}

/// What somebody makes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing is wrong with it.
    Fine,
    /// A message that was refused. Who sends many of them to a ROUTER is cut off: see
    /// [`limits::BAD_MESSAGES_MAX`](crate::limits::BAD_MESSAGES_MAX).
    Bad,
}

impl From<()> for Heard {
    fn from((): ()) -> Self {
        Self::Fine
    }
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SendError {
    /// The peer does not read, or there is no connection. Keep the message and try again later.
    #[error("the peer takes nothing now")]
    Full,
    /// No peer has that routing id any more. It may come back under another.
    #[error("no such peer")]
    Unreachable,
}

/// Wakes the loop from another thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Wake>,
}

/// Either the loop sees, before it sleeps, that somebody wants it, or whoever does sees that it sleeps:
/// each says its own first and then looks at the other's (Dekker), so the order of all four matters.
#[derive(Debug)]
struct Wake {
    waker: mio::Waker,
    is_wanted: AtomicBool,
    is_asleep: AtomicBool,
}

impl Waker {
    /// Makes the loop deliver [`Event::Woken`] soon. Cheap while one is on its way, or while the loop
    /// has other things to do.
    pub fn wake(&self) {
        let Wake { waker, is_wanted, is_asleep } = &*self.shared;
        if !is_wanted.swap(true, Ordering::SeqCst)
            && is_asleep.load(Ordering::SeqCst)
            && waker.wake().is_err()
        {
            // Nothing was written; the next caller must try again.
            is_wanted.store(false, Ordering::SeqCst);
        }
    }
}

/// See the module.
pub struct EventLoop {
    // Fields drop in this order: the sockets before who says whom they speak with, and all of them
    // before the context that they belong to.
    slots: Vec<Slot>,
    zap: Option<Zap>,
    poll: Poll,
    ready: mio::Events,
    waker: Waker,
    signals: Option<Signals>,
    frames: Vec<Message>,
    /// Something is to come soon, and how that went so far.
    is_expecting: bool,
    spin: Spin,
    next_key: u64,
    first: usize,
    context: zmq::Context,
}

impl EventLoop {
    /// A loop that also delivers these signals, which then have no other effect.
    ///
    /// # Errors
    /// If the process is out of files, or a signal cannot be caught.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let (is_wanted, is_asleep) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Wake { waker, is_wanted, is_asleep });
        let signals = if signals.is_empty() {
            None
        } else {
            let mut caught = Signals::new(signals)?;
            poll.registry().register(&mut caught, SIGNALS, Interest::READABLE)?;
            Some(caught)
        };
        Ok(Self {
            slots: Vec::new(),
            zap: None,
            poll,
            ready: mio::Events::with_capacity(1024),
            waker: Waker { shared },
            signals,
            frames: Vec::new(),
            is_expecting: false,
            spin: Spin::default(),
            next_key: 0,
            first: 0,
            context: zmq::Context::new(),
        })
    }

    /// The context in which sockets for this loop are made.
    pub fn context(&self) -> &zmq::Context {
        &self.context
    }

    /// Sockets of this loop that are [secured](super::curve::secure_server) speak with these and nobody
    /// else. Whoever else tries may try again later. To be called before any such socket is bound; when
    /// this returns, it has been tried.
    ///
    /// # Errors
    /// See [`ZapError`].
    pub fn admit_only(&mut self, admitted: Admitted) -> Result<(), ZapError> {
        let mut zap = Zap::new(&self.context, admitted)?;
        let fd = zap.socket.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), ZAP, Interest::READABLE)?;
        zap.serve();
        self.zap = Some(zap);
        Ok(())
    }

    /// The same for a loop that admits only some already: these instead, and who is connected and is not
    /// among them is cut off.
    pub fn admit(&mut self, admitted: Admitted) {
        self.zap.iter_mut().for_each(|zap| zap.admit(admitted.clone()));
    }

    /// A handle that wakes this loop.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Adds a socket.
    ///
    /// # Errors
    /// If the system cannot watch one more file.
    pub fn add(&mut self, socket: Socket) -> io::Result<SocketKey> {
        let key = SocketKey(self.next_key);
        self.next_key += 1;
        let fd = socket.as_raw_fd();
        let token = Token(FIRST_SOCKET + usize::try_from(key.0).unwrap_or(usize::MAX));
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        let slot = Slot::new(key, socket);
        if let Some(zap) = self.zap.as_mut().filter(|_| slot.is_secured) {
            slot.ports.iter().for_each(|port| zap.watch_port(*port));
        }
        self.slots.push(slot);
        Ok(key)
    }

    /// That socket is bound to this port as well, beside the one that it was bound to last.
    pub fn listens_on(&mut self, key: SocketKey, port: u16) {
        if let Some(slot) = self.slot(key) {
            slot.ports.push(port);
        }
    }

    /// Delivers [`Event::Writable`] and [`Event::Unwritable`] of that socket from now on.
    pub fn watch_writable(&mut self, key: SocketKey) {
        if let Some(slot) = self.slot(key) {
            slot.writable = Some(false);
            slot.hot = true;
        }
    }

    /// Whether that socket had more to deliver in the last turn than one turn takes.
    pub fn is_behind(&self, key: SocketKey) -> bool {
        let index = self.slots.binary_search_by_key(&key, |slot| slot.key);
        index.is_ok_and(|index| self.slots[index].behind)
    }

    /// The socket itself, for subscriptions and addresses. It is looked at in the next turn.
    pub fn socket(&mut self, key: SocketKey) -> Option<&Socket> {
        self.slot(key).map(|slot| {
            slot.hot = true;
            &slot.socket
        })
    }

    /// Closes a socket; what was sent has `linger` to get out, in the background.
    pub fn remove(&mut self, key: SocketKey, linger: Duration) {
        if let Ok(index) = self.slots.binary_search_by_key(&key, |slot| slot.key) {
            let slot = self.slots.remove(index);
            let fd = slot.socket.as_raw_fd();
            // It was registered by `add`; if the system forgot it, so much the better.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            set_linger(&slot.socket, linger);
        }
    }

    /// Closes everything; blocks for at most `linger` until what was sent is out.
    pub fn close(mut self, linger: Duration) {
        for key in self.slots.iter().map(|slot| slot.key).collect::<Vec<_>>() {
            self.remove(key, linger);
        }
    }

    /// Sends a message, now or not at all.
    ///
    /// # Errors
    /// See [`SendError`]. The frames were not consumed: nothing is lost.
    pub fn send<'a>(
        &mut self,
        key: SocketKey,
        frames: impl IntoIterator<Item = impl Into<Frame<'a>>>,
    ) -> Result<(), SendError> {
        let slot = self.slot(key).ok_or(SendError::Unreachable)?;
        slot.hot = true;
        let mut frames = frames.into_iter().peekable();
        while let Some(frame) = frames.next() {
            let frame = frame.into();
            let more = if frames.peek().is_some() { zmq::SNDMORE } else { 0 };
            let flags = zmq::DONTWAIT | more;
            let sent = retry_interrupted(|| match frame {
                Frame::Large(bytes) if !slot.is_within => raw::send(&mut slot.socket, bytes, flags),
                frame => slot.socket.send(frame.bytes(), flags),
            });
            match sent {
                Ok(()) => {}
                Err(zmq::Error::EHOSTUNREACH) => return Err(SendError::Unreachable),
                // A connection that dies between two frames ends here as well; libzmq has then
                // dropped the first, and the whole message may be sent again.
                Err(_) => return Err(SendError::Full),
            }
        }
        Ok(())
    }

    /// Something is to come within microseconds: the next turn looks for it for a moment before it sleeps.
    pub fn expect_soon(&mut self) {
        self.is_expecting = true;
    }

    /// Waits until something happens or the deadline comes, and delivers what happened.
    ///
    /// # Errors
    /// If the system's poll fails, which it does only for reasons that do not pass.
    pub fn turn<R: Into<Heard>>(
        &mut self,
        deadline: Option<Timestamp>,
        mut deliver: impl FnMut(Event<'_>) -> R,
    ) -> io::Result<()> {
        let mut deliver = |event: Event<'_>| deliver(event).into();
        // What was sent to is looked at before the loop sleeps.
        let delivered = self.pump(&mut deliver);
        self.wait(if delivered { Some(Timestamp::default()) } else { deadline })?;
        let mut signalled = false;
        for event in &self.ready {
            match event.token() {
                WAKER => {}
                SIGNALS => signalled = true,
                ZAP => self.zap.iter_mut().for_each(Zap::serve),
                Token(token) => {
                    let key = SocketKey((token - FIRST_SOCKET) as u64);
                    if let Ok(index) = self.slots.binary_search_by_key(&key, |slot| slot.key) {
                        self.slots[index].hot = true;
                    }
                }
            }
        }
        // Before the delivery: what is queued from here on causes another wake-up.
        if self.waker.shared.is_wanted.swap(false, Ordering::SeqCst) {
            deliver(Event::Woken);
        }
        if signalled && let Some(signals) = &mut self.signals {
            for signal in signals.pending() {
                deliver(Event::Signal(signal));
            }
        }
        if !delivered {
            self.pump(&mut deliver);
        }
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Timestamp>) -> io::Result<()> {
        if std::mem::take(&mut self.is_expecting) && self.comes_soon(deadline) {
            return Ok(());
        }
        let Wake { is_wanted, is_asleep, .. } = &*self.waker.shared;
        is_asleep.store(true, Ordering::SeqCst);
        let is_busy = is_wanted.load(Ordering::SeqCst) || self.is_hot();
        let timeout = match is_busy {
            true => Some(Duration::ZERO),
            false => deadline.map(|deadline| deadline.since(Clock.now())),
        };
        let polled = self.poll.poll(&mut self.ready, timeout);
        is_asleep.store(false, Ordering::SeqCst);
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.ready.is_empty() && timeout != Some(Duration::ZERO) {
            // It slept and nothing signalled: an insurance against a signal that was consumed.
            self.slots.iter_mut().for_each(|slot| slot.hot = true);
            self.zap.iter_mut().for_each(Zap::serve);
        }
        Ok(())
    }

    /// Whether something may wait that no signal will tell of.
    fn is_hot(&self) -> bool {
        self.slots.iter().any(|slot| slot.hot)
    }

    /// Looks for a moment whether anything happens, before the loop sleeps until then.
    fn comes_soon(&mut self, deadline: Option<Timestamp>) -> bool {
        let is_due = || deadline.is_some_and(|deadline| deadline <= Clock.now());
        // Nothing is looked for that is there, or while what was delivered waits to be acted on.
        if self.is_hot() || is_due() {
            return false;
        }
        let is_wanted = &self.waker.shared.is_wanted;
        let (poll, ready) = (&mut self.poll, &mut self.ready);
        self.spin.wait(|| {
            // An error comes again with the poll that may sleep.
            let has_polled = poll.poll(ready, Some(Duration::ZERO)).is_ok();
            is_due() || (has_polled && !ready.is_empty()) || is_wanted.load(Ordering::SeqCst)
        })
    }

    /// Reads every hot socket within its budget, another one first each time.
    /// Returns whether anything was delivered.
    fn pump(&mut self, deliver: &mut impl FnMut(Event<'_>) -> Heard) -> bool {
        let mut delivered = false;
        let mut deliver = |event: Event<'_>| {
            delivered = true;
            deliver(event)
        };
        let count = self.slots.len();
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        for offset in 0..count {
            let slot = &mut self.slots[(self.first + offset) % count];
            if slot.hot {
                slot.behind = read(slot, &mut self.frames, &mut self.zap, &mut deliver);
                slot.hot = slot.behind;
            }
        }
        delivered
    }

    fn slot(&mut self, key: SocketKey) -> Option<&mut Slot> {
        let index = self.slots.binary_search_by_key(&key, |slot| slot.key).ok()?;
        self.slots.get_mut(index)
    }
}
