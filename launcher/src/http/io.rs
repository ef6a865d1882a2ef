//! The thread that serves pages: one, with a runtime of its own. Whoever is slow is dropped, and nobody waits
//! for another.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::{Logger, info, warn};
use svcmap_proto::io::Clock;
use svcmap_proto::rarely::Rarely;
use svcmap_proto::time::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::LocalSet;

use super::{Asked, Page, Render, Route, find, url};
use crate::errors::Failure;

/// Connections at once: those who scrape, probe and look are few.
const CONNECTIONS_MAX: usize = 64;

/// How long the head of a request may take to come.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// Bytes that the head of a request has at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long a connection lasts: each is for one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// How long the thread that knows may take to answer. It turns at least once in a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the system gives no connection, as it is out of files, it is asked again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who comes when there is no room gets this.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n\
    content-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n";

/// A port on which nobody is served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens there.
    ///
    /// # Errors
    /// With exit code 64 if another has the port, or the address is not of this machine.
    pub fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
                io::ErrorKind::AddrNotAvailable => "it is no address of this machine".to_owned(),
                _ => error.to_string(),
            };
            Failure::usage(format!("no HTTP on {address}: {what}"))
                .fix("choose another, or let the system choose the port: --http :0")
        })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves these pages, on a thread of its own.
    ///
    /// # Errors
    /// If the system gives no thread or file.
    pub fn serve(self, routes: Vec<Route>, log: &Logger) -> Result<Server, Failure> {
        let Self { listener, address } = self;
        info!(log, "serves HTTP"; "url" => url(address));
        if !address.ip().is_loopback() {
            warn!(log, "whoever reaches this address can read what is served there";
                "url" => url(address));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::failed)?;
        let ((stop, stopped), log) = (oneshot::channel(), log.clone());
        let run = move || {
            let is_local = address.ip().is_loopback();
            let kept = routes.iter().map(|_| Mutex::default()).collect();
            let desk = Rc::new(Desk { routes, kept, is_local });
            let tasks = LocalSet::new();
            tasks.spawn_local(accept(listener, desk, log));
            // It is dropped, which is an answer as well.
            let _ = tasks.block_on(&runtime, stopped);
        };
        let thread = Builder::new().name("http".to_owned()).spawn(run).map_err(Failure::failed)?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

/// Pages are served until this is dropped.
#[derive(Debug)]
#[must_use = "it serves until it is dropped"]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, desk: Rc<Desk>, log: Logger) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(log, "no HTTP"; "error" => %error),
    };
    let (room, mut trouble) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Rarely::default());
    let mut say = |what: &str| {
        if let Some(times) = trouble.admit(Clock.now()) {
            warn!(log, "HTTP: no connection"; "why" => what, "times" => times);
        }
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                say(&error.to_string());
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            say("there are 64 already");
            // Fresh, so it takes these few bytes; if not, its end says the same.
            let _ = stream.try_write(NO_ROOM);
            continue;
        };
        let desk = Rc::clone(&desk);
        tokio::task::spawn_local(async move {
            converse(stream, &desk).await;
            drop(place);
        });
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, desk: &Desk) {
    let service = service_fn(async |request| Ok::<_, Infallible>(desk.answer(&request).await));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever is gone, slow or wrong has had its answer, or gets none.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
}

/// The pages, and what was made of them lately.
struct Desk {
    routes: Vec<Route>,
    kept: Vec<Mutex<Kept>>,
    is_local: bool,
}

/// One page as it was made last.
#[derive(Default)]
struct Kept {
    made_at: Timestamp,
    page: Option<Page>,
    /// A question without an answer: nothing is asked again before.
    pending: Option<oneshot::Receiver<Render>>,
}

impl Desk {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        // What is no text is nothing that is known here.
        let text = |value: &'_ HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let said = |name| request.headers().get(name).map(text);
        let host = said(header::HOST);
        let (method, path) = (request.method().as_str(), request.uri().path());
        let asked = Asked { method, path, host: host.as_deref() };
        let page = match find(&self.routes, self.is_local, asked) {
            Ok(place) => self.page(place).await,
            Err(page) => page,
        };
        let is_known = said(header::IF_NONE_MATCH).is_some_and(|known| page.is_one_of(&known));
        respond(page, is_known)
    }

    /// The page at that place: the one that was made a moment ago, or a new one.
    async fn page(&self, place: usize) -> Page {
        let route = &self.routes[place];
        let mut kept = self.kept[place].lock().await;
        if let Some(page) = &kept.page
            && Clock.now().since(kept.made_at) < route.kept
        {
            return page.clone();
        }
        // An answer that came when nobody waited for it any more is an old one.
        let is_asked = kept.pending.as_mut().map(oneshot::Receiver::try_recv);
        if !matches!(is_asked, Some(Err(TryRecvError::Empty))) {
            let (reply, answer) = oneshot::channel();
            (route.ask)(reply);
            kept.pending = Some(answer);
        }
        let Some(pending) = &mut kept.pending else { return Page::verdict(&[ENDED]) };
        let page = match tokio::time::timeout(PATIENCE, pending).await {
            Ok(answered) => {
                kept.pending = None;
                answered.map_or_else(|_| Page::verdict(&[ENDED]), |render| render())
            }
            Err(_) => Page::verdict(&[SILENT]),
        };
        (kept.made_at, kept.page) = (Clock.now(), Some(page.clone()));
        page
    }
}

const ENDED: &str = "it has not started yet, or has ended";
const SILENT: &str = "its I/O thread has not answered for a second";

/// What a browser is to know of all that is served here: it runs and loads only what comes from here,
/// shows none of it within another's page, and tells nobody that it was here.
const ALWAYS: [(HeaderName, &str); 4] = [
    // Fetched again each time, or asked whether it changed.
    (header::CACHE_CONTROL, "no-cache"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn respond(page: Page, is_known: bool) -> Response<Full<Bytes>> {
    let Page { status, content_type, body, etag } = page;
    let (status, body) = if is_known { (304, Bytes::new()) } else { (status, body) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let headers: &mut HeaderMap = response.headers_mut();
    if !is_known {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if status == 405 {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
