//! What clients of the JSON dialect say to a mapper, and what they are told.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use svcmap_proto::control::Admission;
use svcmap_proto::json::{self, Command, JsonError, Whole};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Share;
use svcmap_proto::names::{Endpoint, InstanceKey, Name};
use svcmap_proto::status::Report;

/// Shortest lease that a worker can ask for, in seconds: below it, a pause of its interpreter looks
/// like silence.
const EXPIRY_S_MIN: f64 = 0.1;

/// Longest lease that a worker can ask for, in seconds: news that is older is of no use, and who died
/// takes up room for as long.
const EXPIRY_S_MAX: f64 = 600.0;

/// Reports within one lease: five may be lost or late, as with the original's 5 s and 30 s.
const BEATS: u32 = 6;

/// Most tags of one worker: they are for people, and listed with each.
const TAGS_MAX: usize = 16;

/// Longest tag.
const TAG_BYTES_MAX: usize = 64;

/// A request, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// List this worker.
    Register(Worker),
    /// That worker is alive, and this is its load.
    UpdateHealth {
        /// The name under which it registered.
        name: String,
        /// Its load.
        share: Share,
    },
    /// Who is that, or who serves that?
    GetPeer {
        /// A service, `service/instance`, or a name under which a worker registered.
        name: String,
    },
    /// Who is there?
    ListPeers {
        /// Only those of that service, and how much room each has.
        service: Option<String>,
    },
    /// That worker leaves.
    Deregister {
        /// The name under which it registered.
        name: String,
        /// Its process: a late word must not remove a successor.
        pid: u32,
    },
    /// Whose connections is a worker of that service to take?
    ListKeys {
        /// Which one.
        service: String,
    },
    /// What `svcmap status --json` prints.
    Status,
    /// None of these.
    Unknown,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The name by which it reports and leaves.
    pub name: Name,
    /// Its service and its name there; that name for both, if it does not say.
    pub key: InstanceKey,
    /// Where its REP socket is.
    pub address: Endpoint,
    /// Its process id.
    pub pid: u32,
    /// Room for jobs; 0 if it does not say.
    pub slots: u32,
    /// Jobs that can run at once; 0 if it does not say.
    pub concurrency: u32,
    /// Words of its own.
    pub tags: Vec<String>,
    /// Whether it answers a job when that has ended, with its result.
    pub gives_results: bool,
    /// How long it may be silent.
    pub expiry: Duration,
    /// Whether it said more than a worker of the original system can.
    pub is_extended: bool,
}

#[derive(Deserialize)]
struct Registration {
    name: String,
    address: String,
    pid: Whole,
    #[serde(flatten)]
    extension: Extension,
}

/// What a worker of the original system does not say.
#[derive(Default, Deserialize, PartialEq)]
struct Extension {
    service: Option<String>,
    instance: Option<String>,
    slots: Option<Whole>,
    concurrency: Option<Whole>,
    tags: Option<Vec<String>>,
    results: Option<bool>,
    expiry_s: Option<f64>,
}

#[derive(Deserialize)]
struct Health {
    name: String,
    load: f64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Wanted {
    service: Option<String>,
}

#[derive(Deserialize)]
struct Served {
    service: String,
}

#[derive(Deserialize)]
struct Process {
    name: String,
    pid: Whole,
}

/// Reads the body of a request.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(body: &[u8]) -> Result<Request, JsonError> {
    let command = Command::read(json::object(body)?)?;
    Ok(match command.name().as_deref() {
        Some("REGISTER") => Request::Register(worker(command.payload()?)?),
        Some("UPDATE_HEALTH") => {
            let Health { name, load } = command.payload()?;
            let share = Share::new(load).ok_or_else(|| wrong("load", "use 0.0 to 1.0"))?;
            Request::UpdateHealth { name, share }
        }
        Some("GET_PEER") => Request::GetPeer { name: command.payload::<Named>()?.name },
        Some("LIST_PEERS") => Request::ListPeers { service: command.payload::<Wanted>()?.service },
        Some("DEREGISTER") => {
            let Process { name, pid } = command.payload()?;
            Request::Deregister { name, pid: pid.0 }
        }
        Some("LIST_KEYS") => Request::ListKeys { service: command.payload::<Served>()?.service },
        Some("STATUS") => Request::Status,
        _ => Request::Unknown,
    })
}

fn worker(said: Registration) -> Result<Worker, JsonError> {
    let is_extended = said.extension != Extension::default();
    let Extension { service, instance, slots, concurrency, tags, results, expiry_s } =
        said.extension;
    Ok(Worker {
        name: parsed("name", &said.name)?,
        key: InstanceKey {
            service: parsed("service", service.as_ref().unwrap_or(&said.name))?,
            instance: parsed("instance", instance.as_ref().unwrap_or(&said.name))?,
        },
        address: parsed("address", &said.address)?,
        pid: said.pid.0,
        slots: slots.unwrap_or_default().0,
        concurrency: concurrency.unwrap_or_default().0,
        tags: checked(tags.unwrap_or_default())?,
        gives_results: results.unwrap_or_default(),
        expiry: expiry(expiry_s)?,
        is_extended,
    })
}

fn parsed<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, JsonError> {
    text.parse().map_err(|error| wrong(field, error))
}

fn wrong(field: &str, why: impl Display) -> JsonError {
    JsonError::new(format_args!("payload: {field}: {why}"))
}

fn expiry(seconds: Option<f64>) -> Result<Duration, JsonError> {
    let Some(seconds) = seconds else { return Ok(json::LEASE) };
    if !(EXPIRY_S_MIN..=EXPIRY_S_MAX).contains(&seconds) {
        return Err(wrong("expiry_s", format_args!("use {EXPIRY_S_MIN} to {EXPIRY_S_MAX}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn checked(tags: Vec<String>) -> Result<Vec<String>, JsonError> {
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > TAG_BYTES_MAX) {
        return Err(wrong(
            "tags",
            format_args!("use at most {TAGS_MAX} of {TAG_BYTES_MAX} bytes each"),
        ));
    }
    Ok(tags)
}

/// A listed instance, as clients are told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer<'a> {
    /// Where it is reached best from where the client is.
    pub address: &'a Endpoint,
    /// Its process id.
    pub pid: u32,
    /// Share of its room that is taken, 0.0 to 1.0.
    pub load: f64,
    /// When it was last heard: Unix time in seconds.
    pub last_seen: f64,
    /// Words of its own.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub tags: &'a [String],
    /// Jobs that it has room for, if that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Who answers there, if everything is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
}

/// Says that what was wanted is done.
pub fn ok() -> Vec<u8> {
    json::ok(&BTreeMap::<&str, ()>::new())
}

/// Tells a worker that it is listed, and how often to report if it may not know.
pub fn registered(worker: &Worker) -> Vec<u8> {
    #[derive(Serialize)]
    struct Registered {
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        beat_s: Option<f64>,
    }
    let beat_s = worker.is_extended.then(|| (worker.expiry / BEATS).as_secs_f64());
    json::ok(&Registered { message: format!("registered {}", worker.name), beat_s })
}

/// Tells of one instance.
pub fn peer(peer: Option<Peer<'_>>) -> Vec<u8> {
    match peer {
        Some(peer) => json::ok(&BTreeMap::from([("peer", peer)])),
        None => json::error("peer not found"),
    }
}

/// Tells of all instances, by name.
pub fn peers(peers: &BTreeMap<String, Peer<'_>>) -> Vec<u8> {
    json::ok(&BTreeMap::from([("peers", peers)]))
}

/// Tells of the instances of a service, and whether there may be others.
pub fn service(peers: &BTreeMap<String, Peer<'_>>, warming: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Listed<'a> {
        warming: bool,
        peers: &'a BTreeMap<String, Peer<'a>>,
    }
    json::ok(&Listed { warming, peers })
}

/// Tells a worker whose connections it is to take.
pub fn keys(admission: &Admission) -> Vec<u8> {
    json::ok(admission)
}

/// Tells everything that people are told.
pub fn status(report: &Report) -> Vec<u8> {
    json::ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(command: &str, payload: &str) -> Result<Request, String> {
        let body = format!(r#"{{"command":"{command}","payload":{payload}}}"#);
        read(body.as_bytes()).map_err(|error| error.to_string())
    }

    fn register(payload: &str) -> Worker {
        match ask("REGISTER", payload) {
            Ok(Request::Register(worker)) => worker,
            other => panic!("{other:?}"),
        }
    }

    fn text(reply: Vec<u8>) -> String {
        String::from_utf8(reply).unwrap()
    }

    #[test]
    fn an_original_worker_has_one_name_for_everything() {
        let worker = register(r#"{"name":"w1","address":"tcp://localhost:6001","pid":7}"#);
        assert_eq!(worker.key.to_string(), "w1/w1");
        assert_eq!((worker.expiry, worker.is_extended), (json::LEASE, false));
        assert!(!worker.gives_results);
        assert_eq!(text(registered(&worker)), r#"{"status":"ok","message":"registered w1"}"#);
    }

    #[test]
    fn others_can_say_more() {
        let worker = register(
            r#"{"name":"w1","address":"tcp://h:1","pid":7,"service":"video","instance":"v-1",
                "slots":8,"concurrency":2,"tags":["gpu"],"results":true,"expiry_s":3}"#,
        );
        assert!(worker.gives_results);
        assert_eq!(worker.key.to_string(), "video/v-1");
        assert_eq!((worker.slots, worker.concurrency, &*worker.tags[0]), (8, 2, "gpu"));
        assert_eq!(
            text(registered(&worker)),
            r#"{"status":"ok","message":"registered w1","beat_s":0.5}"#
        );
    }

    #[test]
    fn whole_numbers_may_be_written_as_others() {
        let worker = register(
            r#"{"name":"w1","address":"tcp://h:1","pid":7.0,"slots":8.0,"concurrency":2e0,
                "expiry_s":3}"#,
        );
        assert_eq!((worker.pid, worker.slots, worker.concurrency), (7, 8, 2));
        assert_eq!(
            ask("DEREGISTER", r#"{"name":"a","pid":3.0}"#),
            Ok(Request::Deregister { name: "a".to_owned(), pid: 3 })
        );
        let half = ask("DEREGISTER", r#"{"name":"a","pid":3.5}"#).unwrap_err();
        assert!(half.contains("3.5") && half.contains("a whole number"), "{half}");
    }

    #[test]
    fn commands_and_what_they_need() {
        let [a, ab] = ["a", "a/b"].map(str::to_owned);
        assert_eq!(
            ask("UPDATE_HEALTH", r#"{"name":"a","load":1}"#),
            Ok(Request::UpdateHealth { name: a.clone(), share: Share::new(1.0).unwrap() })
        );
        assert_eq!(ask("GET_PEER", r#"{"name":"a/b"}"#), Ok(Request::GetPeer { name: ab }));
        assert_eq!(
            ask("DEREGISTER", r#"{"name":"a","pid":3}"#),
            Ok(Request::Deregister { name: a, pid: 3 })
        );
        let list =
            |service: Option<&str>| Ok(Request::ListPeers { service: service.map(str::to_owned) });
        assert_eq!(ask("LIST_PEERS", "null"), list(None));
        assert_eq!(ask("LIST_PEERS", r#"{"service":"video"}"#), list(Some("video")));
        assert_eq!(read(br#"{"command":"STATUS"}"#), Ok(Request::Status));
        for other in [r#"{"command":"PING"}"#, r#"{"command":1}"#, "{}", r#"{"task":"x"}"#] {
            assert_eq!(read(other.as_bytes()), Ok(Request::Unknown));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |fields: &str| ask("REGISTER", fields).unwrap_err();
        assert_eq!(error("{}"), "payload: missing field `name`");
        assert_eq!(error(r#"{"name":"a","address":"tcp://h:1"}"#), "payload: missing field `pid`");
        assert!(error(r#"{"name":"a b","address":"tcp://h:1","pid":1}"#).contains("name: `a b`"));
        assert!(
            error(r#"{"name":"a","address":"ipc://x","pid":1}"#).contains("address: `ipc://x`")
        );
        assert!(error(r#"{"name":"a","address":"tcp://h:1","pid":-1}"#).contains("-1"));
        let with = |field: &str| {
            error(&format!(r#"{{"name":"a","address":"tcp://h:1","pid":1,{field}}}"#))
        };
        assert!(with(r#""service":"""#).contains("service: ``"));
        assert_eq!(with(r#""expiry_s":0"#), "payload: expiry_s: use 0.1 to 600");
        assert!(with(r#""slots":"many""#).contains("many"));
        assert!(with(r#""slots":1,"slots":2"#).contains("duplicate field `slots`"));
        assert!(with(r#""tags":["a",1]"#).contains("expected a string"));
        assert!(with(r#""results":"yes""#).contains("expected a boolean"));
        let long = format!(r#""tags":["{}"]"#, "x".repeat(65));
        assert_eq!(with(&long), "payload: tags: use at most 16 of 64 bytes each");
        let health = ask("UPDATE_HEALTH", r#"{"name":"a","load":1.5}"#).unwrap_err();
        assert_eq!(health, "payload: load: use 0.0 to 1.0");
        assert_eq!(ask("GET_PEER", "[]").unwrap_err(), "`payload` must be an object");
    }

    #[test]
    fn the_words_of_the_replies() {
        let address = "tcp://h:1".parse().unwrap();
        let known = Peer {
            address: &address,
            pid: 7,
            load: 0.0,
            last_seen: 1.5,
            tags: &[],
            slots: None,
            key: None,
        };
        let body = r#"{"address":"tcp://h:1","pid":7,"load":0.0,"last_seen":1.5}"#;
        assert_eq!(text(ok()), r#"{"status":"ok"}"#);
        assert_eq!(text(peer(Some(known.clone()))), format!(r#"{{"status":"ok","peer":{body}}}"#));
        assert_eq!(text(peer(None)), r#"{"status":"error","message":"peer not found"}"#);
        assert_eq!(
            text(peers(&[("a".to_owned(), known)].into())),
            format!(r#"{{"status":"ok","peers":{{"a":{body}}}}}"#)
        );
    }
}
