//! Workers whose program stays, with real processes around them.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use svcmap_tests::{
    Deployment, PATIENCE, children_of, deployment, eventually, executable, is_running, svcmap,
};
use svcmap_worker::{Client, Outcome, Ticket};

/// A program that does what the payload says, in the shell; `say` writes an answer.
const PROGRAM: &str = r#"
say() { printf '{"bytes":%d}\n%s' ${#1} "$1"; }
echo '{"ready":true}'
while read -r line; do
    bytes=${line#*\"bytes\":}
    payload=$(head -c ${bytes%%,*})
    eval "$payload"
done
"#;

/// A mapper, and a worker `w-1` with that program.
struct Scene {
    deployment: Deployment,
    client: Client,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        fs::write(&file, PROGRAM).unwrap();
        let mut deployment = deployment();
        let command = format!("sh {}", file.display());
        let flags = [&["--exec-loop", command.as_str()], flags].concat();
        deployment.start_worker("run", "w-1", &flags).unwrap();
        deployment.wait_ready(&[("run", 1)]).unwrap();
        let client = deployment.client().unwrap();
        Self { deployment, client, folder }
    }

    fn submit(&self, payload: impl Into<String>) -> Ticket {
        self.client.submit("run", payload.into().into_bytes()).unwrap()
    }

    fn run(&self, payload: &str) -> String {
        text(self.submit(payload))
    }

    /// The keepers of its programs, and the programs.
    fn processes(&self) -> (Vec<u32>, Vec<u32>) {
        let keepers = children_of(self.deployment.pid("w-1").unwrap());
        let programs = keepers.iter().flat_map(|keeper| children_of(*keeper)).collect();
        (keepers, programs)
    }
}

fn text(ticket: Ticket) -> String {
    match ticket.wait_timeout(PATIENCE) {
        Ok(Outcome::Done(reply)) => String::from_utf8(reply.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn jobs_are_done_in_order_by_one_program() {
    let scene = Scene::new(&["--queue", "1000"]);
    let tickets: Vec<_> =
        (1..=300).map(|n| scene.submit(format!("n=$((n+1)); say {n},$n"))).collect();
    for (number, ticket) in (1..).zip(tickets) {
        assert_eq!(text(ticket), format!("{number},{number}"));
    }
}

#[test]
fn as_many_programs_run_as_jobs_at_once() {
    let scene = Scene::new(&["--concurrency", "2"]);
    let (keepers, programs) = scene.processes();
    assert_eq!((keepers.len(), programs.len()), (2, 2));
    let both = [scene.submit("sleep .5; say $$"), scene.submit("sleep .5; say $$")].map(text);
    assert_ne!(both[0], both[1]);
}

#[test]
fn a_sender_is_told_how_a_program_failed() {
    let scene = Scene::new(&[]);
    let failure = |payload: &str| match scene.submit(payload).wait() {
        Outcome::Failed(failure) => (failure.error, failure.code),
        other => panic!("{other}"),
    };
    let (error, code) = failure(r#"echo '{"error":"no model","code":3}'"#);
    assert_eq!((error.as_str(), code), ("no model", Some(3)));
    let (error, code) = failure("echo last words >&2; exit 4");
    assert_eq!(error, "the program ended amid the job: exit status 4: last words");
    assert_eq!(code, Some(4));
    let (error, _) = failure("echo loading");
    assert!(error.contains("it wrote `loading` to stdout where an answer was due"), "{error}");
    assert_eq!(scene.run("say ok"), "ok");
}

#[test]
fn a_job_that_hangs_ends_at_its_run_limit_and_the_next_one_works() {
    let scene = Scene::new(&["--kill-after", "100ms"]);
    let job = scene.client.job("run", b"trap '' TERM; sleep 600".to_vec());
    let hung = job.run_limit(Duration::from_millis(300)).submit().unwrap();
    let behind = scene.submit("say ok");
    assert!(matches!(hung.wait(), Outcome::Failed(_)));
    assert_eq!(text(behind), "ok");
}

#[test]
fn a_drain_lets_the_job_in_hand_end_and_then_the_program_by_itself() {
    let mut scene = Scene::new(&[]);
    let begun = scene.folder.path().join("begun");
    let bye = scene.folder.path().join("bye");
    let script = format!(
        "trap 'sleep .2; echo >{}' EXIT; echo >{}; sleep .5; say done",
        bye.display(),
        begun.display()
    );
    let ticket = scene.submit(script);
    eventually("the job", || begun.exists());
    let exit = scene.deployment.terminate("w-1").unwrap();
    assert_eq!(exit.status.code(), Some(0));
    assert_eq!(text(ticket), "done");
    assert!(bye.exists());
}

#[test]
fn no_program_outlives_its_worker() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut scene = Scene::new(&["--grace", "300ms", "--kill-after", "100ms"]);
        let away = scene.run("sleep 600 & a=$!; setsid sleep 600 & say $a,$!");
        // It does not see the end of its stdin.
        assert_eq!(scene.run("say ok; trap '' TERM; sleep 600"), "ok");
        let (keepers, programs) = scene.processes();
        let away = away.split(',').map(|pid| pid.parse().unwrap());
        let all: Vec<u32> = keepers.into_iter().chain(programs).chain(away).collect();
        assert!(all.len() >= 4 && all.iter().all(|pid| is_running(*pid)), "{all:?}");
        let worker = scene.deployment.pid("w-1").unwrap();
        kill_process(Pid::from_raw(worker.cast_signed()).unwrap(), signal).unwrap();
        scene.deployment.wait_end("w-1").unwrap();
        eventually("all to end", || !all.iter().any(|pid| is_running(*pid)));
    }
}

#[test]
fn a_program_that_does_not_work_is_told_at_once() {
    let start = |flag: &str, command: &str| {
        let output = Command::new(executable())
            .args(["worker", "--service", "x", "--mapper", "tcp://127.0.0.1:9", flag, command])
            .output()
            .unwrap();
        let said =
            anstream::adapter::strip_str(&String::from_utf8_lossy(&output.stderr)).to_string();
        (output.status.code(), said)
    };
    let (code, said) = start("--exec-loop", "sh -c 'echo no model >&2; exit 3'");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("before it was ready: exit status 3: no model\n  fix: run it"), "{said}");
    let (code, said) = start("--exec-loop", "/nowhere/program");
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("--exec-loop: `/nowhere/program` is no program here"), "{said}");
    let (code, said) = start("--exec-loop", "a | b");
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("fix: --exec-loop 'sh -c \"a | b\"'"), "{said}");
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What both kinds of programs write to stderr, by the level of the log's line.
#[test]
fn stderr_is_logged_with_the_job_that_it_belongs_to() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, PROGRAM).unwrap();
    let staying = format!("sh {}", program.display());
    let once = r#"sh -c 'eval "$(cat)"'"#;
    for (flag, command, good, bad) in [
        ("--exec-loop", staying.as_str(), "say ok", r#"echo '{"error":"bad"}'"#),
        ("--exec", once, "true", "exit 1"),
    ] {
        let deployment = deployment();
        let log = folder.path().join(flag);
        let mut worker = Command::new(executable())
            .args(["--log-level", "debug", "--log-format", "json", "worker"])
            .args(["--service", "run", flag, command])
            .envs(deployment.environment())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        deployment.wait_ready(&[("run", 1)]).unwrap();
        let client = deployment.client().unwrap();
        let run = |payload: String| {
            let job = client.job("run", payload.into_bytes()).metadata("traceparent", TRACEPARENT);
            job.submit().unwrap().wait()
        };
        assert!(matches!(run(format!("echo fine >&2; {good}")), Outcome::Done(_)));
        // More than may be logged in a second.
        let many = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo line $i >&2; done";
        assert!(matches!(run(format!("{many}; {bad}")), Outcome::Failed(_)));
        kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
        assert!(worker.wait().unwrap().success());
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let logged = |level: &str| -> Vec<(u64, String)> {
            let of_level = lines.iter().filter(|line| line["level"] == level);
            let with_line = of_level.filter(|line| line["line"].is_string());
            let pair = |line: &serde_json::Value| {
                assert_eq!(line["traceparent"], TRACEPARENT);
                (line["job"].as_u64().unwrap(), line["line"].as_str().unwrap().to_owned())
            };
            with_line.map(pair).collect()
        };
        assert_eq!(logged("DEBG"), [(1, "fine".to_owned())]);
        let ten: Vec<_> = (1..=10).map(|i| (2, format!("line {i}"))).collect();
        assert_eq!(logged("INFO"), ten);
        assert!(lines.iter().any(|line| line["lines_left_out"] == 5), "{text}");
        let ends = lines.iter().filter(|line| line["msg"] == "job ended");
        let told = ends.map(|line| {
            assert_eq!(
                (&line["level"], &line["traceparent"]),
                (&"DEBG".into(), &TRACEPARENT.into())
            );
            (line["job"].as_u64().unwrap(), line["outcome"].as_str().unwrap())
        });
        assert_eq!(told.collect::<Vec<_>>(), [(1, "done"), (2, "failed")]);
    }
}

#[test]
fn a_program_is_told_of_its_job_whoever_runs_it() {
    let mut deployment = deployment();
    let printenv = ["--exec", "sh -c 'env | grep ^SVCMAP_ | sort'"];
    deployment.start_worker("run", "w-1", &printenv).unwrap();
    deployment.wait_ready(&[("run", 1)]).unwrap();
    let client = deployment.client().unwrap();
    let job = client.job("run", Vec::new()).metadata("input", "a b.jpg").metadata("owner", "\"x\"");
    let told = text(job.deadline(Duration::from_secs(30)).submit().unwrap());
    for line in [
        "SVCMAP_SERVICE=run\n",
        "SVCMAP_INSTANCE=w-1\n",
        "SVCMAP_JOB=1\n",
        "SVCMAP_ATTEMPT=1\n",
        "SVCMAP_INPUT=a b.jpg\n",
        "SVCMAP_METADATA={\"input\":\"a b.jpg\",\"owner\":\"\\\"x\\\"\"}\n",
        "SVCMAP_SECONDS_LEFT=29.",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    let told = text(client.submit("run", Vec::new()).unwrap());
    assert!(told.contains("SVCMAP_JOB=2\n") && told.contains("SVCMAP_METADATA={}\n"), "{told}");
    assert!(!told.contains("SVCMAP_INPUT") && !told.contains("SVCMAP_SECONDS_LEFT"), "{told}");
}

/// The program on the page, as it stands there.
#[test]
fn the_program_on_the_page_works() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/programs.md")).unwrap();
    let (_, program) = page.split_once("```python shout.py\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    assert!(program.lines().count() <= 15);
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if Command::new(&python).arg("--version").output().is_err() {
        eprintln!("no {python} here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shout.py");
    fs::write(&file, program).unwrap();
    let mut deployment = deployment();
    let command = format!("{python} {}", file.display());
    deployment.start_worker("shout", "w-1", &["--exec-loop", &command]).unwrap();
    deployment.wait_ready(&[("shout", 1)]).unwrap();
    let output =
        svcmap(&deployment, &["submit", "shout", "--data", "hello\nworld", "--count", "50"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "HELLO\nWORLD\n".repeat(50));
    let client = deployment.client().unwrap();
    let large = "x".repeat(1024 * 1024);
    assert_eq!(
        text(client.submit("shout", large.clone().into_bytes()).unwrap()),
        large.to_uppercase()
    );
}
