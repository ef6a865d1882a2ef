//! A browser without a window, by WebDriver: what somebody sees who opens a page, and what his keys do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::batch::Running;
use crate::eventually;
use crate::http::connect;

/// A browser that starts on a busy machine takes its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Whose turn it is: a browser takes all the processors that there are, and several of them get nowhere.
static TURN: Mutex<()> = Mutex::new(());

/// Keys without a character, as WebDriver numbers them.
pub const ENTER: &str = "\u{e007}";
/// See [`ENTER`].
pub const ESCAPE: &str = "\u{e00c}";
/// See [`ENTER`].
pub const RIGHT: &str = "\u{e014}";
/// See [`ENTER`].
pub const DOWN: &str = "\u{e015}";

/// One window of a Chromium of its own, which ends with this.
pub struct Browser {
    session: String,
    address: String,
    _driver: Running,
    _folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one, with nothing that it knew before, once there is no other.
    pub fn start() -> Self {
        // Of a test that failed nothing is left but that.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let (driver, address) = start_driver(&folder);
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let flags = [
            "--headless",
            // There is no other way as root.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let mut browser =
            Self { session: String::new(), address, _driver: driver, _folder: folder, _turn: turn };
        let session = browser.say("POST", "", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn say(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = connect(&self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        let (Self { session, address, .. }, body) = (self, body.to_string());
        let head = format!(
            "{method} /session{session}{path} HTTP/1.1\r\nhost: {address}\r\n\
            content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let (status, answer) = read(stream).unwrap();
        let mut value: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status, 200, "{method} {path}: {value}");
        value["value"].take()
    }

    /// Goes to a page.
    pub fn open(&self, url: &str) {
        self.say("POST", "/url", &json!({"url": url}));
    }

    /// What a script returns there, or what its promise comes to.
    pub fn run(&self, script: &str) -> Value {
        self.say("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns something true.
    pub fn wait_for(&self, script: &str) {
        eventually(script, || self.run(script) == true);
    }

    /// Presses these keys, one after another.
    pub fn press(&self, keys: &str) {
        let presses = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()}))
        });
        let presses: Vec<Value> = presses.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": presses});
        self.say("POST", "/actions", &json!({"actions": [keyboard]}));
    }

    /// A command of the browser's own protocol.
    pub fn command(&self, name: &str, parameters: &Value) -> Value {
        self.say("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": parameters}))
    }

    /// As somebody has it who likes it `light` or `dark`, in a window of that width.
    pub fn look(&self, scheme: &str, width: u32) {
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        self.command("Emulation.setEmulatedMedia", &json!({"features": [scheme]}));
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", &size);
    }

    /// For how long the process of its page has computed: scripts, styles, layout, painting.
    pub fn busy(&self) -> Duration {
        self.command("Performance.enable", &json!({}));
        let metrics = self.command("Performance.getMetrics", &json!({}));
        let all = metrics["metrics"].as_array().unwrap();
        let busy = all.iter().find(|metric| metric["name"] == "ProcessTime").unwrap();
        Duration::from_secs_f64(busy["value"].as_f64().unwrap())
    }

    /// What it has complained of since this was asked last.
    pub fn complaints(&self) -> Vec<String> {
        let said = self.say("POST", "/se/log", &json!({"type": "browser"}));
        said.as_array().unwrap().iter().map(|line| line["message"].to_string()).collect()
    }

    /// What pages have asked anybody for since this was asked last. The browser has pages of its own.
    pub fn requests(&self) -> Vec<String> {
        let said = self.say("POST", "/se/log", &json!({"type": "performance"}));
        let messages = said.as_array().unwrap().iter().filter_map(|line| {
            let message: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        messages.filter(|url| !url.starts_with("chrome:") && !url.starts_with("data:")).collect()
    }
}

/// A driver, and where it listens. It chooses a port for one protocol of the internet and then wants the
/// same for the other, so now and then it ends at once.
fn start_driver(folder: &TempDir) -> (Running, String) {
    let log = folder.path().join("driver.log");
    let mut started = None;
    eventually("chromedriver to listen", || {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdin(Stdio::null()).env("HOME", folder.path());
        driver.env("TMPDIR", folder.path()).stderr(Stdio::null());
        let driver = driver.stdout(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut driver = Running::new(driver);
        let mut port = None;
        eventually("chromedriver to listen, or to end", || {
            let has_ended = driver.child().try_wait().unwrap().is_some();
            let said = std::fs::read_to_string(&log).unwrap();
            let rest = said.split_once("successfully on port ").map(|(_, rest)| rest);
            port = rest.and_then(|rest| Some(rest.split_once('.')?.0.to_owned()));
            port.is_some() || has_ended
        });
        started = port.map(|port| (driver, format!("127.0.0.1:{port}")));
        started.is_some()
    });
    started.unwrap()
}

/// An answer's status and body. The driver keeps the connection, whatever it is asked.
fn read(stream: TcpStream) -> io::Result<(u16, String)> {
    let (mut stream, mut head, mut line) = (BufReader::new(stream), String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head += &line.to_ascii_lowercase();
    }
    let number = |before: &str| {
        let (_, rest) = head.split_once(before)?;
        rest.trim_start().split(|char: char| !char.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let status = number("http/1.1 ").ok_or(io::ErrorKind::InvalidData)?;
    let length = number("content-length:").ok_or(io::ErrorKind::InvalidData)?;
    let mut body = String::new();
    stream.take(length).read_to_string(&mut body)?;
    Ok((u16::try_from(status).unwrap_or_default(), body))
}

impl Drop for Browser {
    /// The driver ends the browser; killed, it would leave it behind.
    fn drop(&mut self) {
        let Self { session, address, .. } = &*self;
        let ended = connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            write!(stream, "DELETE /session{session} HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
            read(stream)
        });
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}
