//! What a running `svcmap up` tells by HTTP: asked of its one thread, and made a page on another.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use slog::{Discard, Logger, o};

use crate::errors::Failure;
use crate::http::{Listener, Page, Reply, Route, Server, url};
use crate::metrics::up::{Kept, families};

/// Where questions come in.
pub(super) struct Desk {
    asked: Receiver<Reply<Kept>>,
    wake: UnixStream,
    /// Where it is.
    pub(super) url: String,
    /// It serves as long as this lives.
    _server: Server,
}

impl Desk {
    /// One at that address.
    pub(super) fn open(address: SocketAddr) -> Result<Self, Failure> {
        let listener = Listener::bind(address)?;
        let url = url(listener.address());
        let (questions, asked) = channel();
        let (wake, waker) = UnixStream::pair().map_err(Failure::failed)?;
        wake.set_nonblocking(true).map_err(Failure::failed)?;
        waker.set_nonblocking(true).map_err(Failure::failed)?;
        let bell = Bell { questions, waker };
        // What there is to say of it, `svcmap up` says itself.
        let server = listener.serve(routes(&bell)?, &Logger::root(Discard, o!()))?;
        Ok(Self { asked, wake, url, _server: server })
    }

    /// Readable when somebody has asked.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Those who have asked.
    pub(super) fn take(&self) -> Vec<Reply<Kept>> {
        while matches!((&self.wake).read(&mut [0; 64]), Ok(1..)) {}
        self.asked.try_iter().collect()
    }
}

/// The way to a desk.
struct Bell {
    questions: Sender<Reply<Kept>>,
    waker: UnixStream,
}

impl Bell {
    fn ring(&self) -> Result<impl Fn(Reply<Kept>) + Send + 'static, Failure> {
        let questions = self.questions.clone();
        let waker = self.waker.try_clone().map_err(Failure::failed)?;
        Ok(move |reply| {
            // Whoever has ended drops it, which is an answer as well; a full pipe wakes, too.
            let _ = questions.send(reply);
            let _ = (&waker).write(&[0]);
        })
    }
}

fn routes(bell: &Bell) -> Result<Vec<Route>, Failure> {
    Ok(vec![
        Route::new(("/metrics", "metrics, for Prometheus"), bell.ring()?, |kept| {
            Page::metrics(families(&kept).to_text())
        }),
        Route::new(("/healthz", "200 while it looks after its processes"), bell.ring()?, |_| {
            Page::verdict(&[])
        }),
        Route::new(("/readyz", "200 while all of them are ready"), bell.ring()?, |kept| {
            let troubles = kept.troubles();
            Page::verdict(&troubles.iter().map(String::as_str).collect::<Vec<_>>())
        }),
    ])
}
