//! What a process tells by HTTP: pages that can be read, and nothing that could be changed.

pub mod io;

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use io::{Listener, Server};

/// Where to listen: a port on loopback, such as `9100` or `:9100`, or an address in full.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "write a port, or an IP address and a port: 0.0.0.0:9100".to_owned())
}

/// The URL of what listens there.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The end of a first line on stdout: where the pages are, if anywhere.
pub fn suffix(listener: Option<&Listener>) -> String {
    listener.map(|listener| format!(", HTTP on {}", url(listener.address()))).unwrap_or_default()
}

/// A page as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status, such as 200.
    pub status: u16,
    /// What it is.
    pub content_type: &'static str,
    /// The page.
    pub body: Bytes,
    /// What names this state of it, where that is of use.
    pub etag: Option<String>,
}

impl Page {
    /// Text for people, with that status.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let body = Bytes::from(text.into());
        Self { status, content_type: "text/plain; charset=utf-8", body, etag: None }
    }

    /// All is well, or these are the reasons why not.
    pub fn verdict(reasons: &[&str]) -> Self {
        match reasons {
            [] => Self::text(200, "ok\n"),
            reasons => Self::text(503, reasons.join("\n") + "\n"),
        }
    }

    /// Metrics in the OpenMetrics text format.
    pub fn metrics(text: String) -> Self {
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Self { status: 200, content_type, body: text.into(), etag: None }
    }

    /// JSON, which those who have it need not fetch again.
    pub fn json(text: String) -> Self {
        Self::tagged("application/json", text.into())
    }

    /// What is in this executable and stays as it is, which those who have it need not fetch again.
    pub fn part(content_type: &'static str, text: &'static str) -> Self {
        Self::tagged(content_type, Bytes::from_static(text.as_bytes()))
    }

    fn tagged(content_type: &'static str, body: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&body);
        let etag = Some(format!("\"{:016x}\"", hasher.finish()));
        Self { status: 200, content_type, body, etag }
    }

    /// Whether that is what a client has who says so in `If-None-Match`.
    fn is_one_of(&self, if_none_match: &str) -> bool {
        let mut known = if_none_match.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        self.etag.as_ref().is_some_and(|etag| known.any(|tag| tag == etag || tag == "*"))
    }
}

/// Makes a page of what was answered.
pub type Render = Box<dyn FnOnce() -> Page + Send>;

/// A page that there is.
pub struct Route {
    path: &'static str,
    about: &'static str,
    /// For how long whoever asks gets what was made for another.
    kept: Duration,
    ask: Box<dyn Fn(oneshot::Sender<Render>) + Send>,
}

/// What a thread does with its answer, as [`Route::new`] hands it to it.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

impl Route {
    /// A page at that path, with a few words on what it is; without any, nobody is told of it. `ask` has another thread call what it is given
    /// with an answer, of which `render` then makes the page, here. Who does not answer drops it.
    pub fn new<T: Send + 'static>(
        (path, about): (&'static str, &'static str),
        ask: impl Fn(Reply<T>) + Send + 'static,
        render: impl Fn(T) -> Page + Clone + Send + 'static,
    ) -> Self {
        let ask = move |reply: oneshot::Sender<Render>| {
            let render = render.clone();
            ask(Box::new(move |answer| {
                // Perhaps nobody waits for it any more.
                let _ = reply.send(Box::new(move || render(answer)));
            }));
        };
        Self { path, about, kept: KEPT, ask: Box::new(ask) }
    }

    /// A page that is always the same.
    pub fn fixed(about: (&'static str, &'static str), page: Page) -> Self {
        Self::new(about, |reply: Reply<()>| reply(()), move |()| page.clone())
    }

    /// The same for a page that costs more to make.
    #[must_use]
    pub fn costly(self) -> Self {
        Self { kept: COSTLY_KEPT, ..self }
    }
}

/// However many ask, a process makes a page at most so often.
const KEPT: Duration = Duration::from_millis(200);

/// The same for pages with all instances: mappers hear of most once in a beat.
const COSTLY_KEPT: Duration = Duration::from_secs(1);

/// What a request is about, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    /// Under which name, if it says so.
    host: Option<&'a str>,
}

/// The place of the page that is asked for, or what to say instead.
fn find(routes: &[Route], is_local: bool, asked: Asked<'_>) -> Result<usize, Page> {
    if !matches!(asked.method, "GET" | "HEAD") {
        return Err(Page::text(405, "there is nothing to change here: GET and HEAD only\n"));
    }
    if is_local && !asked.host.is_none_or(is_of_this_machine) {
        let why = "asked for under a name that is not this machine's: use 127.0.0.1 or localhost\n";
        return Err(Page::text(403, why));
    }
    routes.iter().position(|route| route.path == asked.path).ok_or_else(|| {
        let told = routes.iter().filter(|route| !route.about.is_empty());
        let lines = told.map(|route| format!("{:<19}{}\n", route.path, route.about));
        Page::text(404, format!("there is no such page, but\n{}", lines.collect::<String>()))
    })
}

/// Whether that host, perhaps with a port, is an address, or is known to name this machine. With any other
/// name, a page from elsewhere would have a browser read what is here.
fn is_of_this_machine(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !host.ends_with(']') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback_and_anything_else_is_said_in_full() {
        for (text, wanted) in [
            ("9100", "127.0.0.1:9100"),
            (":9100", "127.0.0.1:9100"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), wanted);
        }
        for text in ["", ":", "70000", "localhost", "host:9100", "tcp://127.0.0.1:1", "0.0.0.0"] {
            assert!(address(text).unwrap_err().contains("0.0.0.0:9100"), "{text}");
        }
    }

    #[test]
    fn what_there_is_is_found_and_the_rest_is_refused_with_a_reason() {
        let route =
            |path| Route::new((path, "what it is"), |_: Reply<()>| {}, |()| Page::verdict(&[]));
        let routes = [route("/metrics"), route("/healthz")];
        let asked = Asked { method: "GET", path: "/healthz", host: Some("localhost:1") };
        assert_eq!(find(&routes, true, asked), Ok(1));
        assert_eq!(find(&routes, true, Asked { method: "HEAD", ..asked }), Ok(1));
        let status = |local, asked| find(&routes, local, asked).unwrap_err().status;
        assert_eq!(status(true, Asked { method: "POST", ..asked }), 405);
        let other = Asked { path: "/metrics/", ..asked };
        let page = find(&routes, true, other).unwrap_err();
        assert_eq!(page.status, 404);
        assert!(String::from_utf8_lossy(&page.body).contains("\n/healthz           what it is\n"));
        let other = Asked { host: Some("a.example:9100"), ..asked };
        assert_eq!(status(true, other), 403);
        assert_eq!(find(&routes, false, other), Ok(1));
    }

    #[test]
    fn addresses_and_localhost_are_this_machine_and_no_other_name() {
        for host in ["127.0.0.1:9100", "localhost", "LOCALHOST:1", "[::1]:9100", "[::1]"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in ["a.example", "a.example:80", "localhost.a.example", "", ":80", "[localhost]"] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }

    #[test]
    fn who_has_a_page_already_is_known_by_its_tag() {
        let page = Page::json("{}".to_owned());
        let etag = page.etag.clone().unwrap();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            assert!(page.is_one_of(&known), "{known}");
        }
        assert!(!page.is_one_of("\"x\""));
        assert!(!Page::json("[]".to_owned()).is_one_of(&etag));
        assert!(!Page::text(200, "{}").is_one_of("*"));
    }
}
