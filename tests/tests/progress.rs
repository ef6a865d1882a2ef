//! How far a running job is, as its sender sees it.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_tests::{PATIENCE, deployment, deployment_of, eventually, svcmap};
use svcmap_worker::{HandlerError, Job, Outcome};

#[test]
fn a_ticket_sees_what_its_handler_says_of_how_far_it_is() {
    let deployment = deployment();
    let (go_on, waits) = mpsc::channel();
    let waits = Mutex::new(waits);
    let handler = move |job: &Job| -> Result<Vec<u8>, HandlerError> {
        let wait = || waits.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        wait();
        job.progress("half of it");
        wait();
        // From whatever thread has the job.
        std::thread::scope(|scope| scope.spawn(|| job.progress("é".repeat(200))).join().unwrap());
        wait();
        Ok(b"all of it".to_vec())
    };
    let _worker = deployment.access().worker("slow").serve(handler).unwrap();
    let client = deployment.client().unwrap();
    let ticket = client.submit("slow", "").unwrap();
    assert_eq!(ticket.progress(), None);
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE).as_deref(), Some("half of it"));
    assert_eq!(ticket.progress().as_deref(), Some("half of it"));
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE), Some("é".repeat(128)));
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE), None, "the outcome comes");
    let Ok(Outcome::Done(reply)) = ticket.wait_timeout(Duration::ZERO) else { panic!("not done") };
    assert_eq!(&reply[..], b"all of it");
}

#[test]
fn a_handler_that_says_much_costs_few_messages() {
    let deployment = deployment();
    let spoken = |job: &Job| -> Result<Vec<u8>, HandlerError> {
        let (began_at, mut count) = (Clock.now(), 0_u32);
        while Clock.now().since(began_at) < Duration::from_millis(500) {
            count += 1;
            job.progress(count.to_string());
        }
        job.progress("the end");
        while !job.is_cancelled() {
            std::thread::yield_now();
        }
        Ok(count.to_string().into_bytes())
    };
    let _worker = deployment.access().worker("chatty").serve(spoken).unwrap();
    let client = deployment.client().unwrap();
    let began_at = Clock.now();
    let ticket = client.submit("chatty", "").unwrap();
    eventually("the newest", || ticket.progress().as_deref() == Some("the end"));
    ticket.cancel();
    let Ok(Outcome::Done(reply)) = ticket.wait_timeout(PATIENCE) else { panic!("not done") };
    let count: u64 = std::str::from_utf8(&reply).unwrap().parse().unwrap();
    // One in 100 ms, and those around the job: HELLO, credits, a beat each second and its answer.
    let messages = client.statistics().messages;
    let expected = 20 + 20 * (1 + Clock.now().since(began_at).as_secs());
    assert!(count > expected && messages < expected, "{messages} messages, {count} words");
}

/// The file of that name on the page on programs.
fn on_the_page(language: &str, name: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/programs.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, program) = page.split_once(&format!("```{language} {name}\n")).expect(name);
    program.split_once("```").unwrap().0.to_owned()
}

/// What `submit --follow` says of one job with that payload, whose worker runs that command with that
/// file: how far it is, and its result.
fn followed(flag: &str, command: &str, program: &str, payload: &str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program");
    fs::write(&file, program).unwrap();
    let command = format!("{command} {}", file.display());
    let deployment = deployment_of("slow", 1, &[flag, &command]);
    let output = svcmap(&deployment, &["submit", "slow", "--data", payload, "--follow"]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let lines = text(output.stderr).lines().map(str::to_owned).collect();
    (lines, text(output.stdout))
}

/// That these follow each other, some of which a busy machine may not have shown.
fn assert_in_order(lines: &[String], all: &[&str]) {
    let mut left = all.iter();
    assert!(lines.iter().all(|line| left.any(|one| one == line)), "{lines:?}");
    assert!(!lines.is_empty());
}

#[test]
fn submit_shows_how_far_a_program_is_that_runs_once() {
    let (lines, result) = followed("--exec", "sh", &on_the_page("sh", "encode.sh"), "hello");
    let all = ["--data: part 1 of 3", "--data: part 2 of 3", "--data: part 3 of 3"];
    assert_in_order(&lines, &all);
    assert_eq!(result, "hello");
}

#[test]
fn submit_shows_how_far_a_program_is_that_stays() {
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if Command::new(&python).arg("--version").output().is_err() {
        eprintln!("no {python} here");
        return;
    }
    let program = on_the_page("python", "count.py");
    let (lines, result) = followed("--exec-loop", &python, &program, "4");
    assert_in_order(&lines, &["--data: 0 %", "--data: 25 %", "--data: 50 %", "--data: 75 %"]);
    assert_eq!(result, "done");
}

#[test]
fn how_far_a_program_was_is_not_among_its_last_words() {
    let script = "sh -c 'echo progress: half >&2; echo no model >&2; exit 3'";
    let deployment = deployment_of("slow", 1, &["--exec", script]);
    let client = deployment.client().unwrap();
    let ticket = client.submit("slow", "").unwrap();
    let Ok(Outcome::Failed(failure)) = ticket.wait_timeout(PATIENCE) else { panic!("it failed") };
    assert_eq!(failure.error, "exit status 3: no model");
}
