//! Batches of `svcmap submit` that do not come to their end at once: signals, closed pipes and crashes,
//! and a job log to go on from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use svcmap::deployment::Deployment;
use svcmap::supervisor::Supervisor;
use svcmap_proto::io::Clock;
use svcmap_tests::batch::{Running, Scene, code, numbers, outcomes, text};
use svcmap_tests::{eventually, executable};

const ECHO: &[&str] = &["--builtin", "echo"];

/// Each of so many lines is done once, as the log has it, and has a whole file.
fn assert_complete(scene: &Scene, count: u32) {
    let mut done = BTreeMap::new();
    for record in scene.records("log") {
        let number = record["number"].as_u64().unwrap();
        assert_eq!(record["input"], number.to_string());
        *done.entry(number).or_insert(0) += u32::from(record["outcome"] == "done");
    }
    assert_eq!(done.len(), count as usize);
    assert!(done.values().all(|times| *times == 1), "{done:?}");
    for number in 1..=count {
        assert_eq!(scene.read(format!("out/{number}")).trim_end(), number.to_string());
    }
}

#[test]
fn ctrl_c_takes_back_what_was_not_begun_and_awaits_what_runs() {
    let scene = Scene::that_notes("0.5", &["--concurrency", "2", "--queue", "50"]);
    scene.write("list", numbers(40));
    let args = ["work", "--lines", "list", "--joblog", "log", "--json"];
    let mut running = scene.start(&args);
    eventually("two to run", || {
        fs::read_to_string(scene.path("ran")).is_ok_and(|ran| ran.lines().count() >= 2)
    });
    running.signal(Signal::INT);
    let run = running.end();
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(130), "{said}");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let (done, refused) = (&report["totals"]["done"], &report["totals"]["refused"]);
    let ran = scene.read("ran").lines().count() as u64;
    assert!(done.as_u64() == Some(ran) && ran < 40, "{ran} {report}");
    assert_eq!(refused.as_u64(), Some(40 - ran), "{report}");
    let records = scene.records("log");
    assert_eq!(records.len(), 40);
    assert!(
        records.iter().all(|record| record["outcome"] == "done" || record["interrupted"] == true)
    );
    // Once more, with words for people: each job ran once.
    let mut running = scene.start(&["work", "--lines", "list", "--joblog", "log", "--resume"]);
    eventually("some more", || scene.read("ran").lines().count() as u64 >= ran + 2);
    running.signal(Signal::INT);
    let run = running.end();
    let said = text(&run.stderr);
    assert!(
        said.contains("Ctrl-C again") && said.contains(" done, ") && said.contains("--resume"),
        "{said}"
    );
    scene.wait_for("the worker to be idle", |_, running, queued| running + queued == 0);
    let ran: Vec<_> = scene.read("ran").lines().map(str::to_owned).collect();
    let once: BTreeSet<_> = ran.iter().collect();
    assert_eq!(ran.len(), once.len());
}

#[test]
fn what_runs_longer_than_the_grace_is_cancelled_and_run_again_later() {
    let scene = Scene::new("nap", &["--builtin", "sleep"]);
    let mut running = scene.start(&["nap", "--data", "60s", "--grace", "100ms", "--joblog", "log"]);
    scene.wait_for("it to run", |_, running, _| running == 1);
    running.signal(Signal::HUP);
    assert_eq!(code(&running.end()), Some(129));
    let [record] = &scene.records("log")[..] else { panic!("{}", scene.read("log")) };
    assert_eq!((&record["outcome"], &record["interrupted"]), (&"failed".into(), &true.into()));
    scene.wait_for("it to be ended", |_, running, _| running == 0);
    let mut running = scene.start(&["nap", "--data", "60s", "--joblog", "log", "--resume"]);
    scene.wait_for("it to run again", |_, running, _| running == 1);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let run = running.end();
    // Of two that come together, either may be the first.
    assert!(matches!(code(&run), Some(130 | 143)), "{}", text(&run.stderr));
    // It may have run, so it is not run again unless that is wanted.
    assert_eq!(scene.records("log")[1]["outcome"], "unknown");
    let run = scene.submit(&["nap", "--data", "60s", "--joblog", "log", "--resume"]);
    assert_eq!(code(&run), Some(1));
}

#[test]
fn results_that_wait_for_their_turn_are_printed_when_the_batch_is_stopped() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--concurrency", "2"]);
    let naps = ["60s", "1ms", "2ms", "3ms", "1ms"].join("\n");
    scene.write("naps", naps);
    let flags = ["--grace", "100ms", "--joblog", "log"];
    let mut running = scene.start(&[&["nap", "--lines", "naps"][..], &flags].concat());
    scene.wait_for("all but the first to be done", |done, running, _| (done, running) == (4, 1));
    running.signal(Signal::INT);
    let run = running.end();
    assert_eq!((text(&run.stdout).as_str(), code(&run)), ("1ms\n2ms\n3ms\n1ms\n", Some(130)));
    let records = outcomes(&scene.records("log"));
    assert_eq!(records, BTreeMap::from([("done".to_owned(), 4), ("failed".to_owned(), 1)]));
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_leaves_nothing_to_the_workers() {
    // Nobody is taken for gone within the patience of this test.
    let supervisor = Supervisor::with_executable(executable());
    let beat = ["--beat", "10s"].map(str::to_owned).to_vec();
    let mut deployment = Deployment::open_with(supervisor, beat).unwrap();
    deployment.start_worker("nap", "w-1", &["--builtin", "sleep", "--queue", "50"]).unwrap();
    deployment.wait_ready(&[("nap", 1)]).unwrap();
    let scene = Scene::of(deployment);
    let args = ["nap", "--data", "60s", "--count", "20", "--instance", "w-1", "--joblog", "log"];
    let mut running = scene.start(&args);
    scene.wait_for("its jobs to be there", |_, running, queued| running == 1 && queued > 5);
    running.signal(Signal::INT);
    scene.wait_for("what waits to be taken back", |_, running, queued| (running, queued) == (1, 0));
    running.signal(Signal::INT);
    assert_eq!(code(&running.end()), Some(130));
    scene.wait_for("nothing to be left", |_, running, _| running == 0);
    let records = outcomes(&scene.records("log"));
    assert_eq!(records, BTreeMap::from([("refused".to_owned(), 19), ("unknown".to_owned(), 1)]));
}

#[test]
fn a_reader_that_has_seen_enough_leaves_nothing_running() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--queue", "50"]);
    let mut child = scene.command(["nap", "--data", "100ms", "--count", "1000"]).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut running = Running::new(child);
    let run = running.end();
    assert_eq!((&first, code(&run), text(&run.stderr)), (b"100ms\n", Some(0), String::new()));
    scene.wait_for("nothing to run", |done, running, queued| running + queued == 0 && done < 100);
}

#[test]
fn a_batch_goes_on_where_it_was_killed() {
    let scene = Scene::that_notes("0.05", &["--concurrency", "2"]);
    scene.write("list", numbers(30));
    let args = ["work", "--lines", "list", "--output", "out/{number}", "--joblog", "log"];
    let mut running = scene.start(&args);
    eventually("some to be done", || scene.path("log").exists() && scene.records_now("log") > 5);
    // No two write the same log.
    let second = scene.submit(&[&args[..], &["--resume"]].concat());
    let said = text(&second.stderr);
    assert_eq!(code(&second), Some(64), "{said}");
    assert!(said.contains(&format!("in use by process {}", running.child().id())), "{said}");
    running.signal(Signal::KILL);
    running.end();
    // What was written last got lost on its way to the disk, as after a crash of the machine.
    let log = fs::read(scene.path("log")).unwrap();
    fs::write(scene.path("log"), &log[..log.len() - 7]).unwrap();
    let again = scene.submit(&args);
    assert_eq!(code(&again), Some(64));
    assert!(text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));
    let resumed = scene.submit(&[&args[..], &["--resume"]].concat());
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    assert_complete(&scene, 30);
    // The log of one list is not that of another.
    scene.write("list", numbers(31).replace("17\n", "x\n"));
    let other = scene.submit(&[&args[..], &["--resume"]].concat());
    let said = text(&other.stderr);
    assert_eq!(code(&other), Some(64), "{said}");
    assert!(said.contains("job 17 of the joblog is another one than line 17 (x)"), "{said}");
}

#[test]
fn what_failed_is_done_again() {
    let scene = Scene::new("show", &["--exec", "sh -c 'cat \"$(cat)\"'", "--concurrency", "2"]);
    let files: Vec<_> = (1..=4).map(|number| scene.path(format!("{number}"))).collect();
    files[..2].iter().for_each(|file| fs::write(file, "x\n").unwrap());
    let list: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    scene.write("list", list);
    let args = ["show", "--lines", "list", "--joblog", "log"];
    let first = scene.submit(&args);
    let said = text(&first.stderr);
    assert_eq!((code(&first), text(&first.stdout).as_str()), (Some(1), "x\nx\n"), "{said}");
    assert!(said.contains("2 done, 2 failed"), "{said}");
    fs::write(&files[2], "y\n").unwrap();
    let resumed = scene.submit(&[&args[..], &["--resume"]].concat());
    assert_eq!((code(&resumed), resumed.stdout.len()), (Some(1), 0));
    assert!(
        text(&resumed.stderr).contains("2 failed: --resume-failed"),
        "{}",
        text(&resumed.stderr)
    );
    let again = scene.submit(&[&args[..], &["--resume-failed"]].concat());
    assert_eq!((code(&again), text(&again.stdout).as_str()), (Some(1), "y\n"));
    fs::write(&files[3], "z\n").unwrap();
    let again = scene.submit(&[&args[..], &["--resume-failed"]].concat());
    assert_eq!((code(&again), text(&again.stdout).as_str()), (Some(0), "z\n"));
}

#[test]
fn a_log_that_cannot_be_written_stops_the_batch_and_is_mended_later() {
    let scene = Scene::new("echo", ECHO);
    scene.write("list", numbers(500));
    let full = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} submit echo --lines list --joblog log",
        executable()
    );
    let run = Command::new("bash")
        .args(["-c", &full])
        .current_dir(scene.folder.path())
        .envs(scene.deployment.environment())
        .output()
        .unwrap();
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1), "{said}");
    assert!(said.contains("joblog log cannot be written") && said.contains("--resume"), "{said}");
    assert!(!scene.read("log").ends_with('\n'), "it was cut within a line");
    let resumed = scene.submit(&["echo", "--lines", "list", "--joblog", "log", "--resume"]);
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    assert_eq!(outcomes(&scene.records("log"))["done"], 500);
}

/// Some bytes less than a record of a small job.
const RECORD_BYTES: u64 = 90;

fn pause(time: Duration) {
    svcmap::io::pause_until(Clock.now() + time);
}

/// A batch that is interrupted ten times, at random moments and in all ways.
fn interrupt(jobs: u32) {
    let scene = Scene::new("echo", &["--builtin", "echo", "--concurrency", "2"]);
    scene.write("list", numbers(jobs));
    let args = ["echo", "--lines", "list", "--output", "out/{number}", "--joblog", "log"];
    let resume = [&args[..], &["--resume", "--idempotent"]].concat();
    let seed = svcmap_proto::io::random_u64();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let logged = || fs::metadata(scene.path("log")).map_or(0, |log| log.len());
    for round in 0..10 {
        let before = logged();
        let more = u64::from(random.u32(..jobs / 12)) * RECORD_BYTES;
        let mut running = scene.start(&resume);
        while logged() < before + more && running.child().try_wait().unwrap().is_none() {
            pause(Duration::from_micros(200));
        }
        pause(Duration::from_micros(random.u64(..3000)));
        let signals: &[Signal] = match round % 4 {
            0 => &[Signal::KILL],
            1 => &[Signal::INT],
            2 => &[Signal::INT, Signal::INT],
            _ => &[Signal::TERM],
        };
        for &signal in signals {
            // It may have ended by itself.
            if running.child().try_wait().unwrap().is_none() {
                running.signal(signal);
            }
        }
        let status = running.end().status;
        println!("{signals:?} at {before} + {more}: {status}, now {}", logged());
    }
    println!("{} records before the end", scene.records_now("log"));
    let last = scene.submit(&resume);
    assert_eq!(code(&last), Some(0), "{}", text(&last.stderr));
    assert_complete(&scene, jobs);
    let is_ours = |name: &OsString| text(&name.clone().into_vec()).parse::<u32>().is_ok();
    let others = scene.files("out").into_iter().filter(|name| !is_ours(name)).count();
    // Only who is killed leaves what it had begun to write.
    assert!(others <= 3, "{others}");
}

#[test]
fn a_batch_that_is_interrupted_ten_times_is_done_once() {
    interrupt(2_000);
}

#[test]
#[ignore = "takes a while: cargo test -p svcmap-tests --test interrupted -- --ignored"]
fn a_batch_interrupted_at_a_random_moment_and_resumed_ten_times() {
    interrupt(20_000);
}
