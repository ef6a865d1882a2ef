//! The signals that say something to a `svcmap up`.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use crate::io::{arm_second_signal, stop_signals};

/// SIGINT, SIGTERM and SIGHUP. A second SIGINT or SIGTERM ends this process at once, and all that it has
/// started with it.
pub(super) struct Signals {
    pipe: UnixStream,
    kinds: signal_hook::iterator::Signals,
    had_terminal: bool,
    armed: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn catch() -> std::io::Result<Self> {
        let (armed, all) = (arm_second_signal()?, stop_signals());
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let kinds = signal_hook::iterator::Signals::new(&all)?;
        // After the other: what wakes the loop has been noted.
        for signal in all {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe: read, kinds, had_terminal: has_terminal(), armed })
    }

    pub(super) fn come(&mut self) -> Vec<i32> {
        while matches!((&self.pipe).read(&mut [0; 64]), Ok(1..)) {}
        self.kinds.pending().collect()
    }

    /// Readable when one has come.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// A SIGHUP was meant as the first signal: the next one is the second.
    pub(super) fn arm(&self) {
        self.armed.store(true, SeqCst);
    }

    /// Whether the terminal is gone that this was started from: a SIGHUP means that then.
    pub(super) fn has_terminal_left(&self) -> bool {
        self.had_terminal && !has_terminal()
    }
}

fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}
