//! The socket of a service manager, and the thread that tells it how a process is.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use slog::{Logger, warn};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::{
    Pulse, SOCKET_VARIABLE, State, WATCHDOG_PID_VARIABLE, WATCHDOG_VARIABLE, to_text, watchdog,
};
use crate::errors::Failure;
use crate::http::Reply;

/// How long it may take to be told, when much is told to it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the thread that does the work may take to say how it is: longer, and it does not turn.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A service manager that wants to be told. All that is told to it is lost if it is gone.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    /// As the environment has it.
    name: String,
    address: io::Result<SocketAddr>,
    is_lost: AtomicBool,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names, if any.
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn of_environment() -> Result<Option<Self>, Failure> {
        let Some(name) = env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let address = address(&name);
        let name = name.to_string_lossy().into_owned();
        let socket = UnixDatagram::unbound().map_err(Failure::failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(Failure::failed)?;
        let [usec, pid] =
            [WATCHDOG_VARIABLE, WATCHDOG_PID_VARIABLE].map(|name| env::var(name).ok());
        let watchdog = watchdog(usec.as_deref(), pid.as_deref(), std::process::id());
        Ok(Some(Self { socket, name, address, is_lost: AtomicBool::new(false), watchdog }))
    }

    /// When to tell it what.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.watchdog)
    }

    /// Tells it that. What is wrong is returned the first time; nothing ends for it.
    pub fn tell(&self, states: &[State]) -> Option<String> {
        if states.is_empty() {
            return None;
        }
        let sent = match &self.address {
            Ok(address) => self
                .socket
                .send_to_addr(to_text(states).as_bytes(), address)
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let error = sent.err().filter(|_| !self.is_lost.swap(true, Ordering::Relaxed))?;
        Some(format!(
            "the service manager at {} ({SOCKET_VARIABLE}) cannot be told how this process is: {error}",
            self.name
        ))
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some((b'@', name)) = name.as_bytes().split_first() {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

/// That it reads its settings again, from now on.
pub fn reloading() -> State {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::try_from(now).unwrap_or_default();
    State::Reloading { monotonic_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX) }
}

/// The way to a service manager, if there is one.
#[derive(Clone, Debug)]
pub struct Told(Option<(Arc<Manager>, Logger)>);

impl Told {
    /// Whom the environment names.
    ///
    /// # Errors
    /// See [`Manager::of_environment`].
    pub fn of_environment(log: &Logger) -> Result<Self, Failure> {
        let manager = Manager::of_environment()?;
        Ok(Self(manager.map(|manager| (Arc::new(manager), log.clone()))))
    }

    /// Tells it that.
    pub fn tell(&self, states: &[State]) {
        if let Some((manager, log)) = &self.0
            && let Some(trouble) = manager.tell(states)
        {
            warn!(log, "{}", trouble);
        }
    }

    /// From now on it is told how a process is whose other thread answers to `ask`, as long as that
    /// turns, and until what this returns is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn look_after<T: Send + 'static>(
        &self,
        ask: impl Fn(Reply<T>) + Send + 'static,
        status: impl Fn(&T) -> String + Send + 'static,
    ) -> Result<Watched, Failure> {
        let (words, heard) = channel();
        if let Some((manager, _)) = &self.0 {
            let (pulse, told) = (manager.pulse(), self.clone());
            let look = move || look(&told, pulse, &heard, ask, status);
            Builder::new().name("systemd".to_owned()).spawn(look).map_err(Failure::failed)?;
        }
        Ok(Watched(words))
    }
}

/// It is ready.
struct Ready;

/// A process that is looked after until this is dropped.
#[derive(Clone, Debug)]
pub struct Watched(Sender<Ready>);

impl Watched {
    /// It does what it is there for: told once, by another thread, as this one may have no time.
    pub fn is_ready(&self) {
        // Without a service manager nobody hears it.
        let _ = self.0.send(Ready);
    }
}

fn look<T: Send + 'static>(
    told: &Told,
    mut pulse: Pulse,
    words: &Receiver<Ready>,
    ask: impl Fn(Reply<T>),
    status: impl Fn(&T) -> String,
) {
    let (mut is_ready, mut look_at) = (false, Timestamp::default());
    loop {
        match words.recv_timeout(look_at.since(Clock.now())) {
            Ok(Ready) if is_ready => continue,
            Ok(Ready) => {
                is_ready = true;
                told.tell(&[State::Ready]);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let (answer, answered) = channel();
        ask(Box::new(move |counted| {
            // It may have come too late.
            let _ = answer.send(counted);
        }));
        let answered = answered.recv_timeout(ANSWER_WITHIN);
        let now = Clock.now();
        if let Ok(counted) = answered {
            told.tell(&pulse.handle_turn(now, status(&counted)));
        }
        look_at = pulse.poll_timeout().filter(|at| *at > now).unwrap_or(now + LOOK_AGAIN);
    }
}

/// When nobody answered, it is asked again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
