//! `--http`: what mappers and workers tell of themselves, and whom nobody waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use svcmap::fleet::wire::Process;
use svcmap::metrics::up::{self, Kept};
use svcmap_proto::io::Clock;
use svcmap_tests::batch::{Running, code, text};
use svcmap_tests::http::{Answer, Served, ask, connect, metric};
use svcmap_tests::{PATIENCE, dealer, eventually, executable};
use svcmap_worker::{Client, Outcome};

const NAP: &[&str] = &["--builtin", "sleep", "--queue", "0"];

/// A mapper, and a worker of `nap` with one slot that it lists.
fn mapper_and_worker() -> (Served, Served) {
    let mapper = Served::mapper(&[]);
    let worker = Served::worker("nap", mapper.endpoint(), NAP);
    worker.wait_for("/readyz", 200);
    (mapper, worker)
}

/// What a worker replies to a job in JSON.
fn submit_in_json(worker: &Served, request: &str) -> Value {
    let socket = zmq::Context::new().socket(zmq::REQ).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
    socket.connect(worker.endpoint()).unwrap();
    socket.send(request, 0).unwrap();
    serde_json::from_slice(&socket.recv_bytes(0).unwrap()).unwrap()
}

#[test]
fn counters_are_what_was_done() {
    let (mapper, mut worker) = mapper_and_worker();
    let client = Client::connect(mapper.endpoint()).unwrap();
    let submit = |payload: &'static str| client.submit("nap", payload).unwrap();
    let is_done = |outcome| matches!(outcome, Outcome::Done(_));
    for _ in 0..9 {
        assert!(is_done(submit("2ms").wait_timeout(PATIENCE).unwrap()));
    }
    for _ in 0..2 {
        let outcome = submit("no time").wait_timeout(PATIENCE).unwrap();
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");
    }
    let long = submit("700ms");
    worker.wait_for_metric(r#"svcmap_worker_jobs{service="nap",state="running"}"#, 1.0);
    let request = r#"{"command":"SUBMIT","payload":{"body":"1ms","deadline_ms":5000}}"#;
    let reply = submit_in_json(&worker, request);
    assert_eq!(reply["reason"], "full", "{reply}");
    assert!(is_done(long.wait_timeout(PATIENCE).unwrap()));

    worker.wait_for_metric(r#"svcmap_jobs_finished_total{service="nap",result="done"}"#, 10.0);
    let page = worker.get("/metrics").body;
    let of = |name: &str, label: &str| {
        let series = format!("svcmap_{name}{{service=\"nap\"{label}}}");
        metric(&page, &series).expect(&series)
    };
    assert_eq!(of("jobs_accepted_total", ""), 12.0);
    assert_eq!(of("jobs_finished_total", ",result=\"failed\""), 2.0);
    assert_eq!(of("attempts_rejected_total", ",reason=\"full\""), 1.0);
    let all = page.lines().filter(|line| line.starts_with("svcmap_attempts_rejected_total{"));
    assert_eq!(all.filter(|line| !line.ends_with(" 0")).count(), 1, "{page}");
    assert_eq!([of("job_wait_seconds_count", ""), of("job_service_seconds_count", "")], [12.0; 2]);
    let service_s = of("job_service_seconds_sum", "");
    assert!((0.718..20.0).contains(&service_s), "{service_s}");
    let longest =
        metric(&page, r#"svcmap_job_service_seconds_bucket{le="0.524288",service="nap"}"#);
    assert_eq!(longest, Some(11.0));
    let finished_s = of("handler_last_finish_timestamp_seconds", "");
    let unix_s = Clock.unix_us() as f64 / 1e6;
    assert!((unix_s - 20.0..unix_s + 1.0).contains(&finished_s), "{finished_s}, {unix_s}");
    assert_eq!(of("worker_state", ",state=\"ready\""), 1.0);

    let page = mapper.get("/metrics").body;
    let listed = metric(&page, r#"svcmap_mapper_registrations_total{result="listed"}"#);
    let ready = metric(&page, r#"svcmap_instances{service="nap",state="ready"}"#);
    assert_eq!((listed, ready), (Some(1.0), Some(1.0)));
    assert!(metric(&page, r#"svcmap_mapper_messages_total{kind="report"}"#) > Some(5.0), "{page}");
    let done = r#"svcmap_instance_jobs_done_total{service="nap",instance="w-1"}"#;
    eventually("the mapper to hear of it", || {
        metric(&mapper.get("/metrics/instances").body, done) == Some(10.0)
    });
    // Who is killed expires, and is counted.
    worker.running.signal(Signal::KILL);
    mapper.wait_for_metric(r#"svcmap_mapper_expirations_total{service="nap"}"#, 1.0);
}

#[test]
fn a_worker_is_ready_while_a_mapper_lists_it_and_it_takes_jobs() {
    let mut worker = Served::worker("nap", "tcp://127.0.0.1:1", NAP);
    assert_eq!(worker.wait_for("/readyz", 503).body, "no mapper answers\n");
    assert_eq!(worker.get("/healthz").status, 200);
    worker.running.signal(Signal::TERM);
    assert!(worker.running.end().status.success());

    let (mapper, mut worker) = mapper_and_worker();
    assert_eq!(mapper.wait_for("/readyz", 200).body, "ok\n");
    let client = Client::connect(mapper.endpoint()).unwrap();
    let job = client.submit("nap", "1500ms").unwrap();
    worker.wait_for_metric(r#"svcmap_worker_jobs{service="nap",state="running"}"#, 1.0);
    worker.running.signal(Signal::TERM);
    assert_eq!(worker.wait_for("/readyz", 503).body, "it drains\n");
    assert_eq!(worker.get("/healthz").status, 200);
    assert!(matches!(job.wait_timeout(PATIENCE).unwrap(), Outcome::Done(_)));
    assert!(worker.running.end().status.success());
}

#[test]
fn a_process_that_stands_still_does_not_say_that_it_is_well() {
    for mut served in [Served::mapper(&[]), Served::worker("nap", "tcp://127.0.0.1:1", NAP)] {
        served.wait_for("/healthz", 200);
        served.stand_still();
        let mut stream = connect(&served.http).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let error = Answer::read(&stream).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        served.running.signal(Signal::CONT);
        served.wait_for("/healthz", 200);
    }
}

#[test]
fn who_is_slow_is_dropped_and_nobody_waits_for_him() {
    let mapper = Served::mapper(&[]);
    let mut slow = connect(&mapper.http).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127").unwrap();
    // Another that asks and does not read, and one that is wrong.
    let mut deaf = connect(&mapper.http).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut wrong = connect(&mapper.http).unwrap();
    wrong.write_all(b"\x00\x01 HTTP?\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&wrong).unwrap().status, 400);
    let mut long = connect(&mapper.http).unwrap();
    let line = [b"GET / HTTP/1.1\r\nx: ", &[b'x'; 30_000][..]].concat();
    // It may be gone before it has said all.
    let _ = long.write_all(&line);
    assert_eq!(mapper.get("/metrics").status, 200);
    let began_at = Clock.now();
    let answer = Answer::read(&slow);
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 408));
    assert!(Clock.now().since(began_at) < PATIENCE);
    assert_eq!(mapper.get("/metrics").status, 200);
}

#[test]
fn beyond_64_connections_one_is_told_so_until_another_ends() {
    let mapper = Served::mapper(&[]);
    let mut idle: Vec<_> = (0..64).map(|_| connect(&mapper.http).unwrap()).collect();
    assert_eq!(
        Answer::read(connect(&mapper.http).unwrap()).unwrap().body,
        "too many connections\n"
    );
    let line = "HTTP: no connection, why: there are 64 already, times: 1";
    eventually("the log to say so", || mapper.log().contains(line));
    idle.truncate(60);
    // Who asks may be told before his question is read, and hear nothing of it.
    let get = || ask(&mapper.http, "GET", "/metrics", &[]).map(|answer| answer.status);
    eventually("room", || get().is_ok_and(|status| status == 200));
}

#[test]
fn there_is_nothing_to_change_and_what_there_is_is_said() {
    let worker = Served::worker("nap", "tcp://127.0.0.1:1", NAP);
    let say = |method, path, lines: &[&str]| ask(&worker.http, method, path, lines).unwrap();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = say(method, "/metrics", &["content-length: 0"]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("get, head")), "{method}");
    }
    let answer = say("GET", "/status.json", &[]);
    assert_eq!(answer.status, 404);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(answer.body.lines().any(|line| line.split(' ').next() == Some(path)), "{answer:?}");
    }
    let head = say("HEAD", "/healthz", &[]);
    assert_eq!((head.status, head.header("content-length"), &*head.body), (200, Some("3"), ""));
    // A page from elsewhere that has its name lead here.
    let mut stream = connect(&worker.http).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&stream).unwrap().status, 403);
}

#[test]
fn a_port_that_is_taken_is_said_before_anybody_hears_of_the_process() {
    let mapper = Served::mapper(&[]);
    for command in [
        &["mapper", "--bind", "tcp://127.0.0.1:0"][..],
        &["worker", "--service", "nap", "--mapper", mapper.endpoint(), "--builtin", "sleep"],
    ] {
        let mut process = Command::new(executable());
        process.args(command).args(["--insecure", "--http", &mapper.http]).stdin(Stdio::null());
        let output = process.output().unwrap();
        assert_eq!((code(&output), &*text(&output.stdout)), (Some(64), ""));
        let said = text(&output.stderr);
        let what =
            format!("error: no HTTP on {}: another process listens there\n  fix: ", mapper.http);
        assert!(said.contains(&what), "{said}");
    }
    let listed = metric(
        &mapper.get("/metrics").body,
        "svcmap_mapper_registrations_total{result=\"listed\"}",
    );
    assert_eq!(listed, Some(0.0));
}

/// The same without what grows old.
fn without_ages(text: &str) -> Value {
    let mut report: Value = serde_json::from_str(text).unwrap();
    for list in ["services", "instances"] {
        for row in report[list].as_array_mut().unwrap() {
            let row = row.as_object_mut().unwrap();
            row.retain(|name, _| !matches!(&**name, "age" | "age_ms" | "since_finish_ms"));
        }
    }
    report
}

#[test]
fn the_status_is_that_of_the_command_and_is_not_fetched_twice() {
    let (mapper, _worker) = mapper_and_worker();
    eventually("both to say the same", || {
        let mut command = Command::new(executable());
        command.args(["status", "--json", "--insecure", "--mapper", mapper.endpoint()]);
        let asked = without_ages(&text(&command.output().unwrap().stdout));
        let served = without_ages(&mapper.get("/status.json").body);
        assert_eq!(served["instances"].as_array().map(Vec::len), Some(1), "{served}");
        asked == served
    });
    eventually("it not to have changed", || {
        let etag = mapper.get("/status.json").header("etag").unwrap().to_owned();
        let line = format!("if-none-match: {etag}");
        let again = ask(&mapper.http, "GET", "/status.json", &[&line]).unwrap();
        assert!(again.status == 200 || again.body.is_empty());
        again.status == 304
    });
}

/// A file of the documentation.
fn doc(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// By name: type, unit and labels.
type Families = BTreeMap<String, (String, String, BTreeSet<String>)>;

/// What a page has, by what it says of itself.
fn families_of(page: &str, families: &mut Families) {
    let mut name = String::new();
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", family, kind] => {
                let suffix = [("counter", "_total"), ("info", "_info")];
                let suffix = suffix.into_iter().find(|(its, _)| *its == kind);
                name = family.to_owned() + suffix.map_or("", |(_, suffix)| suffix);
                families.insert(name.clone(), (kind.to_owned(), String::new(), BTreeSet::new()));
            }
            ["#", "UNIT", _, unit] => families.get_mut(&name).unwrap().1 = unit.to_owned(),
            ["#", ..] => {}
            _ => {
                let labels = line.split_once('{').map_or("", |(_, labels)| labels);
                let labels =
                    labels.split(&['{', ','][..]).filter_map(|label| label.split_once('='));
                let labels =
                    labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le");
                families.get_mut(&name).unwrap().2.extend(labels);
            }
        }
    }
}

/// What the tables of the page say.
fn families_documented() -> Families {
    let page = doc("metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `svcmap_"));
    let families = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[4].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].into(), cells[3].into(), labels))
    });
    families.collect()
}

/// A mapper, a worker that has done a job, and a sender with one that waits, with everything counted once that
/// has a label.
fn busy_mapper_and_worker() -> (Served, Served, Client) {
    let mapper = Served::mapper(&["--beat", "200ms"]);
    let mut killed = Served::worker("gone", mapper.endpoint(), NAP);
    let worker = Served::worker("nap", mapper.endpoint(), NAP);
    killed.wait_for("/readyz", 200);
    worker.wait_for("/readyz", 200);
    killed.running.signal(Signal::KILL);
    let strangers = [mapper.endpoint(), worker.endpoint()].map(dealer);
    strangers.iter().for_each(|stranger| stranger.send(&b"no message"[..], 0).unwrap());
    let client = Client::connect(mapper.endpoint()).unwrap();
    let outcome = client.submit("nap", "1ms").unwrap().wait_timeout(PATIENCE).unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    mapper.wait_for_metric(r#"svcmap_mapper_expirations_total{service="gone"}"#, 1.0);
    let series = r#"svcmap_mapper_messages_refused_total{reason="wrong version"}"#;
    mapper.wait_for_metric(series, 1.0);
    worker.wait_for_metric(&series.replace("mapper", "worker"), 1.0);
    client.submit("gone", "").unwrap();
    mapper.wait_for_metric(r#"svcmap_jobs_waiting{service="gone"}"#, 1.0);
    (mapper, worker, client)
}

#[test]
fn the_page_on_metrics_and_the_dashboard_name_what_is_served_and_nothing_else() {
    let (mapper, worker, _client) = busy_mapper_and_worker();
    let mut served = Families::new();
    for page in [mapper.get("/metrics"), mapper.get("/metrics/instances"), worker.get("/metrics")] {
        families_of(&page.body, &mut served);
    }
    let process = Process { name: "nap/1".to_owned(), ..Process::default() };
    let deaths = [("nap".to_owned(), 1)].into();
    let kept = up::families(&Kept { processes: vec![process], deaths });
    families_of(&kept.to_text(), &mut served);
    let documented = families_documented();
    for (name, family) in &documented {
        assert_eq!(served.get(name), Some(family), "{name}");
    }
    assert_eq!(served.len(), documented.len(), "{served:#?}");
    let page = doc("metrics.md") + &doc("grafana.json");
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("svcmap_")) {
        let name = word.strip_suffix("_bucket").unwrap_or(word);
        // The two crates.
        let is_known = matches!(name, "svcmap_mapper" | "svcmap_worker");
        assert!(is_known || served.contains_key(name), "{name}");
    }
}

#[test]
#[ignore = "needs the Python package prometheus_client: see .ci/run"]
fn a_parser_of_others_reads_what_is_served() {
    let script = "import json, sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        families = list(parse(sys.stdin.read()))\n\
        samples = [[s.name, s.labels, s.value] for f in families for s in f.samples]\n\
        print(json.dumps([len(families), samples]))";
    let (mapper, worker, _client) = busy_mapper_and_worker();
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (served, path) in
        [(&mapper, "/metrics"), (&mapper, "/metrics/instances"), (&worker, "/metrics")]
    {
        let page = served.get(path);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(page.header("content-type"), Some(kind));
        let mut process = Command::new(&python);
        process.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = process.spawn().unwrap();
        process.stdin.take().unwrap().write_all(page.body.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", page.body);
        let parsed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let is_sample = |line: &&str| !line.starts_with('#');
        let samples = parsed[1].as_array().unwrap();
        assert_eq!(samples.len(), page.body.lines().filter(is_sample).count());
        assert_eq!(parsed[0], page.body.matches("# TYPE ").count());
        if served.endpoint() == worker.endpoint() {
            let done =
                json!(["svcmap_jobs_finished_total", {"service": "nap", "result": "done"}, 1]);
            assert!(samples.contains(&done), "{samples:?}");
        }
    }
}

/// A Prometheus that scrapes these, in a folder of its own.
struct Prometheus {
    _running: Running,
    folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[&str], rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}}\n\
            rule_files: [rules.yml]\n\
            scrape_configs: [{{job_name: svcmap, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        std::fs::write(path("prometheus.yml"), config).unwrap();
        let mut prometheus = Command::new("prometheus");
        prometheus.arg(format!("--config.file={}", path("prometheus.yml")));
        prometheus.arg(format!("--storage.tsdb.path={}", path("data")));
        prometheus.arg("--web.listen-address=127.0.0.1:0").stdin(Stdio::null());
        let log = std::fs::File::create(path("log")).unwrap();
        let child = prometheus.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { _running: Running::new(child), folder }
    }

    /// Waits until it answers queries.
    fn wait_ready(&self) {
        let is_ready = |answer: Answer| answer.status == 200;
        let ask = || ask(&self.address(), "GET", "/-/ready", &["connection: close"]);
        eventually("Prometheus to be ready", || ask().is_ok_and(is_ready));
    }

    /// Where it listens, once it does.
    fn address(&self) -> String {
        let mut address = None;
        eventually("Prometheus to listen", || {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""));
            address = line.and_then(|line| Some(line.split_once("address=")?.1.trim().to_owned()));
            address.is_some()
        });
        address.unwrap()
    }

    /// What comes of a query.
    fn query(&self, query: &str) -> Value {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={query}");
        let answer = ask(&self.address(), "GET", &path, &["connection: close"]).unwrap();
        let (from, to) = (answer.body.find('{').unwrap(), answer.body.rfind('}').unwrap());
        serde_json::from_str(&answer.body[from..=to]).unwrap()
    }
}

#[test]
#[ignore = "needs the program prometheus: see .ci/run"]
fn prometheus_scrapes_both_and_takes_the_rules_and_the_dashboard() {
    let (mapper, worker, _client) = busy_mapper_and_worker();
    let page = doc("metrics.md");
    let mut blocks =
        page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let rules = blocks.find(|block| block.starts_with("groups:")).unwrap();
    let prometheus = Prometheus::start(&[&mapper.http, &worker.http], rules);
    prometheus.wait_ready();
    let value = |query: &str| {
        let answer = prometheus.query(query);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    for (query, wanted) in [
        (r#"svcmap_jobs_finished_total{result="done"}"#, "1"),
        (r#"svcmap_instances{service="nap",state="ready"}"#, "1"),
        (r#"svcmap_mapper_expirations_total{service="gone"}"#, "1"),
        ("svcmap_job_service_seconds_count", "1"),
        (r#"sum(up{job="svcmap"})"#, "2"),
    ] {
        eventually(query, || value(query).as_deref() == Some(wanted));
    }
    let dashboard: Value = serde_json::from_str(&doc("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    for target in targets {
        let query = target["expr"].as_str().unwrap();
        value(&query.replace("$service", ".*").replace("$__rate_interval", "1m"));
    }
    assert!(panels.len() > 5);
}
