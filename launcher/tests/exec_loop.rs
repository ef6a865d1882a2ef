//! Real programs that stay, and all that they can do wrong.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use slog::{Discard, Logger, o};
use svcmap::exec::{ExecError, Program, Residents, Task};
use svcmap::io::pause_until;
use svcmap_proto::io::Clock;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::InstanceKey;

const LIMIT_BYTES: usize = 200_000;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that does what the payload says, in the shell: `say` writes an answer. What the shell
/// keeps in variables lives as long as the program does.
const PROGRAM: &str = r#"
say() { printf '{"bytes":%d}\n%s' ${#1} "$1"; }
STARTUP
echo '{"ready":true}'
while read -r line; do
    bytes=${line#*\"bytes\":}
    payload=$(head -c ${bytes%%,*})
    eval "$payload"
done
"#;

/// Programs, and a folder that is theirs.
struct Scene {
    folder: tempfile::TempDir,
    residents: Residents,
    /// How far jobs were.
    progress: Mutex<Vec<String>>,
}

impl Scene {
    fn new() -> Self {
        Self::starting("", 1)
    }

    /// So many, which do this before they are ready.
    fn starting(startup: &str, count: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let residents = start(folder.path(), startup, count);
        assert!(residents.wait_ready(|| false).unwrap());
        Self { folder, residents, progress: Mutex::default() }
    }

    fn run_with(
        &self,
        payload: &str,
        limit: Duration,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<String, ExecError> {
        let task = Task {
            number: 17,
            attempt: 2,
            log: &Logger::root(Discard, o!()),
            metadata: &Metadata::new([("input", "a.jpg")]).unwrap(),
            payload: payload.as_bytes(),
            deadline: Some(Clock.now() + limit),
            is_cancelled,
            report: &|text| self.progress.lock().unwrap().push(text),
        };
        let result = self.residents.run(&task, LIMIT_BYTES);
        result.map(|result| String::from_utf8(result).unwrap())
    }

    fn run(&self, payload: &str) -> Result<String, ExecError> {
        self.run_with(payload, PATIENCE, &|| false)
    }

    fn error(&self, payload: &str) -> String {
        self.run(payload).unwrap_err().to_string()
    }

    /// The next job works, with the same program or another.
    fn goes_on(&self) {
        assert_eq!(self.run("say ok").unwrap(), "ok");
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn start(folder: &Path, startup: &str, count: u32) -> Residents {
    let file = folder.join("program");
    std::fs::write(&file, PROGRAM.replace("STARTUP", startup)).unwrap();
    let [service, instance] = ["sum", "a"].map(|name| name.parse().unwrap());
    let program =
        Program::parse(&format!("sh {}", file.display()), InstanceKey { service, instance });
    let program = program.unwrap().started_by(env!("CARGO_BIN_EXE_svcmap"));
    let program = program.killed_after(Duration::from_millis(300));
    Residents::start(program, count, Logger::root(Discard, o!())).unwrap()
}

/// Why such a program does not start.
fn failed_start(startup: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let residents = start(folder.path(), startup, 2);
    residents.wait_ready(|| false).unwrap_err().to_string()
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[test]
fn one_program_does_one_job_after_another() {
    let scene = Scene::new();
    let first = scene.run("n=1; say $$").unwrap();
    for number in 2..100 {
        assert_eq!(scene.run("n=$((n + 1)); say $$,$n").unwrap(), format!("{first},{number}"));
    }
}

#[test]
fn a_job_comes_with_all_that_is_known_of_it() {
    let scene = Scene::new();
    let line: serde_json::Value =
        serde_json::from_str(&scene.run(r#"say "$line""#).unwrap()).unwrap();
    assert!(line["seconds_left"].as_f64().is_some_and(|left| left > 1.0 && left <= 20.0), "{line}");
    let known = serde_json::json!({
        "job": 17, "attempt": 2, "service": "sum", "instance": "a", "bytes": 11,
        "seconds_left": line["seconds_left"], "metadata": { "input": "a.jpg" },
    });
    assert_eq!(line, known);
    assert_eq!(scene.run("say $SVCMAP_SERVICE/$SVCMAP_INSTANCE").unwrap(), "sum/a");
}

#[test]
fn large_jobs_and_results_go_through_whole() {
    let scene = Scene::new();
    let text = "x".repeat(190_000);
    assert_eq!(scene.run(&format!("say {text}")).unwrap(), text);
    assert_eq!(scene.run("say ''").unwrap(), "");
    let large = scene.run(&format!("say {}", "x".repeat(LIMIT_BYTES + 1))).unwrap_err();
    assert!(matches!(large, ExecError::ResultTooLarge { limit_bytes: LIMIT_BYTES }), "{large}");
    scene.goes_on();
}

#[test]
fn a_failure_has_words_and_a_number_and_the_program_stays() {
    let scene = Scene::new();
    let pid = scene.run("say $$").unwrap();
    let error = scene.run(r#"echo '{"error":"no model","code":3}'"#).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code()), ("no model", Some(3)));
    assert_eq!(scene.run("say $$").unwrap(), pid);
}

#[test]
fn a_program_that_dies_is_started_again_and_its_job_has_failed() {
    let scene = Scene::new();
    let error = scene.run("echo no licence >&2; exit 4").unwrap_err();
    assert_eq!(error.to_string(), "the program ended amid the job: exit status 4: no licence");
    assert!(error.was_begun() && error.code() == Some(4));
    scene.goes_on();
    assert_eq!(scene.run("kill -9 $$").unwrap_err().code(), Some(137));
    scene.goes_on();
}

#[test]
fn a_program_that_ends_after_its_job_is_no_trouble() {
    let scene = Scene::new();
    for _ in 0..10 {
        assert_eq!(scene.run("say ok; exit 0").unwrap(), "ok");
    }
}

#[test]
fn what_a_program_prints_is_told() {
    let scene = Scene::new();
    let printed = scene.error("echo loading; say ok");
    assert!(
        printed.contains("`loading` to stdout where an answer was due; print to stderr"),
        "{printed}"
    );
    scene.goes_on();
    let endless = scene.error("head -c 70000 /dev/zero");
    assert!(endless.contains("65536 bytes without a line end"), "{endless}");
    scene.goes_on();
    let too_much = scene.error(r#"printf '{"bytes":2}\nokdone\n'"#);
    assert!(too_much.contains("`done` to stdout and was not asked"), "{too_much}");
    scene.goes_on();
    let other = scene.error(r#"echo '{"job":16,"bytes":0}'"#);
    assert!(other.contains("answered job 16 when it was asked job 17"), "{other}");
    scene.goes_on();
}

#[test]
fn what_is_said_between_two_jobs_is_no_answer_to_the_second() {
    let scene = Scene::new();
    let said = scene.path("said");
    assert_eq!(scene.run(&format!("say ok; (sleep .1; say bad; echo >{said}) &")).unwrap(), "ok");
    while !Path::new(&said).exists() {
        pause_until(Clock.now() + Duration::from_millis(5));
    }
    let error = scene.run("say ok").unwrap_err();
    assert!(!error.was_begun() && error.to_string().contains("was not asked"), "{error}");
    scene.goes_on();
}

#[test]
fn a_program_that_closes_its_pipes_is_ended() {
    let scene = Scene::new();
    let stdout = scene.error("exec >&-; sleep 60");
    assert!(stdout.contains("it closed its stdout"), "{stdout}");
    scene.goes_on();
    assert_eq!(scene.run("exec <&-; say ok; sleep 60").unwrap(), "ok");
    let stdin = scene.error("say ok");
    assert!(stdin.contains("it closed its stdin"), "{stdin}");
    scene.goes_on();
}

#[test]
fn an_answer_before_the_end_of_the_question_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let startup = "echo '{\"ready\":true}'; read -r line; say early; sleep 60";
    let residents = start(folder.path(), startup, 1);
    let scene = Scene { folder, residents, progress: Mutex::default() };
    assert!(scene.residents.wait_ready(|| false).unwrap());
    let error = scene.error(&"x".repeat(190_000));
    assert!(error.contains("before it had read all of the job"), "{error}");
}

#[test]
fn a_job_that_takes_too_long_ends_with_all_that_it_started() {
    let scene = Scene::new();
    let pids = scene.path("pids");
    let hang = format!("trap '' TERM; setsid sleep 600 & echo $$ $! >{pids}; sleep 600");
    let ended = scene.run_with(&hang, Duration::from_secs(1), &|| false);
    assert!(matches!(ended, Err(ExecError::Deadline)), "{ended:?}");
    let pids = std::fs::read_to_string(&pids).unwrap();
    assert!(!pids.split_whitespace().any(is_alive), "{pids}");
    scene.goes_on();
    // One that never ends its answer.
    let ended = scene.run_with("echo '{\"bytes\":9}'", Duration::from_millis(500), &|| false);
    assert!(matches!(ended, Err(ExecError::Deadline)), "{ended:?}");
    scene.goes_on();
}

#[test]
fn cancelling_ends_it_soon() {
    let scene = Scene::new();
    let (start, asked) = (Clock.now(), Cell::new(0));
    let is_cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let ended = scene.run_with("sleep 60", PATIENCE, &is_cancelled);
    assert!(matches!(ended, Err(ExecError::Cancelled)), "{ended:?}");
    assert!(Clock.now().since(start) < Duration::from_secs(5));
    scene.goes_on();
}

#[test]
fn a_program_that_does_not_start_is_told_at_once() {
    let ended = failed_start("echo no model >&2; exit 3");
    assert_eq!(
        ended,
        "the program does not start: it ended before it was ready: exit status 3: no model"
    );
    let printed = failed_start("echo loading");
    assert!(
        printed.contains("first line must be {\"ready\":true}, and it was `loading`"),
        "{printed}"
    );
    let closed = failed_start("exec >&-; sleep 60");
    assert!(closed.contains("it closed its stdout"), "{closed}");
    // It is waited for as long as somebody wants.
    let folder = tempfile::tempdir().unwrap();
    let residents = start(folder.path(), "sleep 60", 1);
    let asked = Cell::new(0);
    let is_stopped = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    assert!(!residents.wait_ready(is_stopped).unwrap());
}

#[test]
fn jobs_are_tried_elsewhere_while_a_program_cannot_be_started() {
    let scene = Scene::starting("[ ! -e $(dirname $0)/broken ] || exit 5", 1);
    let broken = scene.path("broken");
    scene.error(&format!("echo >{broken}; exit 1"));
    let start = Clock.now();
    loop {
        let error = scene.run("say ok").unwrap_err();
        assert!(!error.was_begun(), "{error}");
        if error.to_string().contains("exit status 5") {
            break;
        }
        assert!(Clock.now().since(start) < PATIENCE, "{error}");
    }
    std::fs::remove_file(&broken).unwrap();
    while scene.run("say ok").is_err() {
        assert!(Clock.now().since(start) < PATIENCE);
        pause_until(Clock.now() + Duration::from_millis(20));
    }
}

#[test]
fn what_it_had_not_read_it_has_not_begun() {
    let scene = Scene::new();
    // It lives on without reading, and dies before it has answered any job.
    let folder = tempfile::tempdir().unwrap();
    let startup = "echo '{\"ready\":true}'; sleep .3; exit 6";
    let residents = start(folder.path(), startup, 1);
    assert!(residents.wait_ready(|| false).unwrap());
    let deaf = Scene { folder, residents, progress: Mutex::default() };
    let error = deaf.run("say ok").unwrap_err();
    assert!(!error.was_begun(), "{error}");
    assert!(error.to_string().contains("before it read the job: exit status 6"), "{error}");
    drop(deaf);
    scene.goes_on();
}

#[test]
fn each_job_that_runs_at_a_time_has_a_program_of_its_own() {
    let scene = Scene::starting("", 3);
    let together = Barrier::new(3);
    let pids: BTreeSet<String> = std::thread::scope(|scope| {
        let scene = &scene;
        let job = || {
            together.wait();
            scene.run("sleep .3; say $$").unwrap()
        };
        let threads = [scope.spawn(job), scope.spawn(job), scope.spawn(job)];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(pids.len(), 3, "{pids:?}");
}

#[test]
fn at_the_end_programs_may_end_by_themselves_and_are_ended() {
    let scene = Scene::new();
    let (said, pid) = (scene.path("said"), scene.run("say $$").unwrap());
    scene.run(&format!("trap 'sleep .2; echo bye >{said}' EXIT; say ok")).unwrap();
    scene.residents.finish(Clock.now() + PATIENCE);
    assert_eq!(std::fs::read_to_string(said).unwrap(), "bye\n");
    assert!(!is_alive(&pid));
    let error = scene.run("say ok").unwrap_err();
    assert!(!error.was_begun(), "{error}");

    // One that does not see the end of its stdin.
    let scene = Scene::new();
    let pid = scene.run("say $$").unwrap();
    assert_eq!(scene.run("say ok; trap '' TERM; sleep 600").unwrap(), "ok");
    let start = Clock.now();
    scene.residents.finish(start + Duration::from_millis(200));
    let took = Clock.now().since(start);
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    assert!(!is_alive(&pid));
}

#[test]
fn a_program_that_only_talks_to_stderr_does_not_block() {
    let scene = Scene::new();
    let noisy = "yes error | head -c 3000000 >&2; say ok";
    assert_eq!(scene.run(noisy).unwrap(), "ok");
    // Also while it has no job.
    let said = scene.path("said");
    let later = format!("say ok; yes error | head -c 3000000 >&2; echo >{said}");
    assert_eq!(scene.run(&later).unwrap(), "ok");
    let start = Clock.now();
    while !Path::new(&said).exists() {
        assert!(Clock.now().since(start) < PATIENCE);
        pause_until(Clock.now() + Duration::from_millis(5));
    }
    // It may close it, too.
    assert_eq!(scene.run("exec 2>&-; say ok").unwrap(), "ok");
    scene.goes_on();
}

#[test]
fn before_its_answer_a_program_may_say_how_far_it_is() {
    let scene = Scene::new();
    let payload =
        r#"echo '{"progress":"40 %"}'; sleep .1; echo '{"progress":80}'; sleep .1; say ok"#;
    assert_eq!(scene.run(payload).unwrap(), "ok");
    let progress = std::mem::take(&mut *scene.progress.lock().unwrap());
    assert_eq!(progress.last().map(String::as_str), Some("80"), "{progress:?}");
    scene.goes_on();
}
