//! `svcmap up` with real processes: what is kept, replaced and stopped, and who is told what.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;
use svcmap_proto::io::Clock;
use svcmap_tests::batch::{numbers, text};
use svcmap_tests::http::ask;
use svcmap_tests::up::{MAPPER_ANYWHERE, Up, cpu_ticks, kill, pid_of};
use svcmap_tests::{children_of, eventually, is_running};

fn topology(services: &str) -> String {
    format!("{MAPPER_ANYWHERE}{services}")
}

const ECHO: &str = "[service.echo]\nbuiltin = \"echo\"\ninstances = 2\n";

#[test]
fn the_first_minute_goes_as_the_screens_say() {
    let mut up = Up::written("");
    std::fs::remove_file(up.path("topology.toml")).unwrap();
    assert!(up.fails(64, &["up"]).contains("svcmap init"));
    assert!(up.fails(69, &["ps"]).contains("fix: svcmap init && svcmap up"));
    up.ok(&["init"]);
    assert!(up.fails(69, &["ps"]).contains("fix: svcmap up\n"));
    assert!(up.fails(64, &["init"]).contains("svcmap init --print"));
    let example = std::fs::read_to_string(up.path("topology.toml")).unwrap();
    assert_eq!(up.ok(&["init", "--print"]), example);
    assert!(up.ok(&["plan"]).contains("4 to start"));
    // The example's port may be somebody else's on this machine.
    up.write(&example.replace("127.0.0.1:5555", "127.0.0.1:0"));
    up.start();
    up.wait_for("all", |all| all.iter().all(|one| one["state"] == "ready"));
    let sum = up.ok(&["submit", "sum", "--data", "hello"]);
    assert!(sum.starts_with("2cf24dba5fb0a30e26e83b2ac5b9e29e"), "{sum}");
    assert!(up.ok(&["status"]).contains("3 of 3 instances ready"));
    assert!(up.ok(&["ps"]).contains("4 of 4 ready"));
    assert!(up.ok(&["logs", "sum/1"]).contains("sum/1 | "));
    assert!(up.ok(&["logs", "up"]).contains("all 4 ready"));
    assert!(up.fails(64, &["logs", "nobody"]).contains("no `nobody`; there are main, sum"));
    assert!(up.fails(64, &["stop", "sum/9"]).contains("no `sum/9`; there are sum/1, sum/2"));
    let again = up.fails(64, &["up"]);
    assert!(again.contains(&format!("pid {}", up.pid())), "{again}");
    up.stop();
    assert!(up.log().contains("draining 3 instances") && up.log().contains("stopped in"));
}

#[test]
fn all_that_is_wrong_in_a_file_is_said_and_nothing_is_started() {
    let up = Up::written("[mapper.main]\n[service.a]\ninstnaces = 3\nexec = 'a'\nqueue = -1\n");
    for command in ["up", "plan"] {
        let said = up.fails(64, &[command]);
        assert!(said.contains("topology.toml:3:1") && said.contains("`instances`?"), "{said}");
        assert!(said.contains("topology.toml:5:9"), "{said}");
    }
}

#[test]
fn who_is_killed_is_gone_at_once_and_soon_back() {
    let mut up = Up::started(&topology(ECHO));
    let before = pid_of(&up.process("echo/1")).unwrap();
    kill(before);
    // The mapper would find out by itself after three seconds of silence.
    let begun = Clock.now();
    eventually("the mapper to know", || {
        let status = up.ok(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let instances = status["instances"].as_array().unwrap();
        !instances.iter().any(|one| one["pid"].as_u64() == Some(before.into()))
    });
    assert!(Clock.now().since(begun) < Duration::from_secs(2));
    up.wait_state("echo/1", "ready");
    assert_ne!(pid_of(&up.process("echo/1")), Some(before));
    assert_eq!(up.process("echo/1")["deaths"], 1);
    assert!(up.log().contains("echo/1 was ended by signal 9; again in"), "{}", up.log());
    let death = "echo/1 | (up: was ended by signal 9; again in";
    assert!(up.ok(&["logs", "echo/1"]).contains(death));
    // What up has said stands there once.
    assert!(!up.ok(&["logs"]).contains(death));
    up.stop();
}

#[test]
fn with_its_supervisor_everything_dies_also_what_programs_started() {
    let stays = r#"["sh", "-c", 'sleep 1000 & echo "{\"ready\":true}"; cat']"#;
    let loops = format!("[service.stay]\nexec_loop = {stays}\n");
    let mut up = Up::started(&topology(&format!("{ECHO}{loops}")));
    let all = up.descendants();
    // The mapper, three workers, and at least a keeper, a shell, and what that started.
    assert!(all.len() >= 7, "{all:?}");
    let begun = Clock.now();
    up.signal(Signal::KILL);
    up.wait();
    eventually("nobody to be left", || !all.iter().any(|pid| is_running(*pid)));
    assert!(Clock.now().since(begun) < Duration::from_secs(2));
    // And whoever comes next is not kept away by what it left.
    up.start();
    up.wait_for("all", |all| all.iter().all(|one| one["state"] == "ready"));
    up.stop();
}

#[test]
fn a_service_that_cannot_live_is_left_alone_and_the_rest_unharmed() {
    let bad = "[service.bad]\nexec_loop = \"sh -c 'echo no such host smtp >&2; exit 3'\"\n\
               backoff = { first = \"20ms\" }\nflap = { exits = 3 }\n\
               [service.none]\nexec = \"./not-there\"\n";
    let mut up = Up::written(&topology(&format!("{ECHO}{bad}")));
    up.start();
    up.wait_state("none/1", "failed");
    assert_eq!(up.process("none/1")["deaths"], 0, "starting it again is no use");
    let last = up.process("none/1")["last"].clone();
    assert!(last.as_str().unwrap().contains("not-there"), "{last}");
    up.wait_for("the rest", |all| all.iter().filter(|one| one["state"] == "ready").count() >= 3);
    up.ok(&["submit", "echo", "--data", "x"]);
    let ps = up.ok(&["ps"]);
    assert!(ps.contains("✗ failed") && ps.contains("svcmap start"), "{ps}");
    let refused = up.fails(1, &["start", "none"]);
    assert!(refused.contains("none/1 is failed"), "{refused}");
    up.wait_state("bad/1", "failed");
    let plan = up.run(&["plan"]);
    assert!(
        text(&plan.stdout).contains("away: bad/1, none/1: svcmap ps\n"),
        "{}",
        text(&plan.stdout)
    );
    assert_eq!(plan.status.code(), Some(64));
    assert!(text(&plan.stderr).contains("none: `./not-there` is no program"));
    for command in [&["submit", "none", "--data", "x"][..], &["status", "none"], &["why", "none"]] {
        let said = up.fails(69, command);
        assert!(said.contains("svcmap up keeps none: 1 failed"), "{said}");
        assert!(said.contains("fix: svcmap logs none"), "{said}");
    }
    // It waits for what happens, and does not look for it.
    let before = cpu_ticks(up.pid());
    let until = Clock.now() + Duration::from_secs(1);
    svcmap::io::pause_until(until);
    assert!(cpu_ticks(up.pid()) - before <= 10);
    up.stop();
}

#[test]
fn services_are_scaled_stopped_and_started_again() {
    let mut up = Up::started(&topology(ECHO));
    assert!(up.ok(&["scale", "echo", "4"]).ends_with("4 of echo ready\n"));
    assert!(up.ok(&["stop", "echo/1", "echo/2"]).ends_with("2 stopped\n"));
    let states: Vec<_> = up.processes().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["ready", "stopped", "stopped", "ready", "ready"]);
    assert!(up.ok(&["plan"]).contains("away: echo/1, echo/2: svcmap ps\n"));
    let replaced = up.ok(&["restart", "echo"]);
    assert!(replaced.contains("echo/1 stays away") && replaced.ends_with("2 replaced\n"));
    assert!(up.ok(&["start", "echo"]).ends_with("2 ready\n"));
    assert!(up.ok(&["restart", "main"]).ends_with("1 ready\n"));
    assert!(up.ok(&["scale", "echo", "0"]).ends_with("0 of echo ready\n"));
    assert!(up.fails(64, &["scale", "main", "2"]).contains("`main` is a mapper"));
    assert!(up.fails(64, &["restart", "ecko"]).contains("there are main, echo"));
    assert!(up.fails(64, &["scale", "echo", "-1"]).contains("-1 is not in 0.."));
    up.stop();
}

#[test]
fn where_no_mapper_could_start_everybody_is_told_which_one_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let mapper = format!("{MAPPER_ANYWHERE}http = \"{at}\"\nrestart = \"never\"\n");
    let mut up = Up::written(&format!("{mapper}{ECHO}"));
    up.start();
    up.wait_state("main", "failed");
    for command in [&["status"][..], &["start", "echo"], &["scale", "echo", "3"]] {
        let said = up.fails(69, command);
        assert!(said.contains("no mapper runs") && said.contains("svcmap start main"), "{said}");
    }
    up.stop();
}

/// A command without `--file` is for the topology of its folder, and for no other.
#[test]
fn who_has_a_topology_steers_no_other_one() {
    let mut up = Up::started(&topology(ECHO));
    let of = |folder: &str, args: &[&str]| {
        let folder = up.path(folder);
        std::fs::create_dir_all(&folder).unwrap();
        if folder.ends_with("other") {
            std::fs::write(folder.join("topology.toml"), topology(ECHO)).unwrap();
        }
        up.command(args).current_dir(&folder).output().unwrap()
    };
    for args in [&["ps"][..], &["stop", "echo"], &["scale", "echo", "1"], &["logs", "echo"]] {
        let output = of("other", args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("other/topology.toml\n  fix: svcmap up\n"), "{said}");
    }
    assert!(up.processes().iter().all(|one| one["state"] == "ready"));
    // Where there is none, the only one that runs is meant, and named.
    let output = of("empty", &["stop", "echo/1"]);
    assert!(output.status.success() && text(&output.stderr).contains("topology.toml:\n"));
    up.stop();
}

#[test]
fn it_tells_by_http_what_it_keeps() {
    let bad = "[service.bad]\nexec = \"./not-there\"\n";
    let mut up = Up::written(&topology(&format!("{ECHO}{bad}")));
    up.start_with(&["--http", "0"]);
    let bad_is_failed =
        |page: &str| page.contains("svcmap_up_processes{of=\"bad\",state=\"failed\"} 1");
    let mut address = String::new();
    eventually("the address", || {
        let log = up.log();
        let found = log.lines().find_map(|line| line.split("HTTP on http://").nth(1));
        address = found.and_then(|rest| rest.split(": ").next()).unwrap_or_default().to_owned();
        !address.is_empty()
    });
    let get = |path: &str| ask(&address, "GET", path, &[]).unwrap();
    eventually("the bad one to have failed", || bad_is_failed(&get("/metrics").body));
    assert_eq!(get("/healthz").status, 200);
    eventually("the others to be ready", || get("/readyz").body.trim() == "bad/1 is failed");
    assert_eq!(get("/readyz").status, 503);
    kill(pid_of(&up.process("echo/1")).unwrap());
    let died = "svcmap_up_deaths_total{of=\"echo\"} 1";
    eventually("the death to be counted", || get("/metrics").body.contains(died));
    up.stop();
}

/// In a container it is process 1, to which all orphans come.
#[test]
fn the_first_process_of_a_container_notices_every_death() {
    const NAMESPACES: [&str; 3] = ["-pf", "--kill-child", "--mount-proc"];
    let can = std::process::Command::new("unshare").args(NAMESPACES).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return eprintln!("not shown: no namespaces here");
    }
    let often = "backoff = { first = \"10ms\", reset_after = \"1ms\" }\nflap = { exits = 1000 }\n";
    let mut up = Up::written(&topology(&format!("{ECHO}{often}")));
    let mut contained = std::process::Command::new("unshare");
    contained.args(NAMESPACES).arg(up.command(&[]).get_program());
    up.start_by(contained);
    let settled =
        |all: &[serde_json::Value]| all.len() == 3 && all.iter().all(|one| one["state"] == "ready");
    up.wait_for("all", settled);
    let first = children_of(up.pid())[0];
    for round in 1..=10 {
        let is_worker = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("--service")
        };
        let workers: Vec<u32> = children_of(first).into_iter().filter(is_worker).collect();
        assert_eq!(workers.len(), 2);
        workers.iter().for_each(|pid| kill(*pid));
        let deaths = |all: &[serde_json::Value]| -> u64 {
            all.iter().filter_map(|one| one["deaths"].as_u64()).sum()
        };
        up.wait_for("all deaths", |all| deaths(all) == 2 * round && settled(all));
    }
    let all = up.descendants();
    kill_of(first, Signal::TERM);
    assert!(up.wait().success(), "{}", up.log());
    assert!(!all.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_mapper_tells_an_instance_to_end_wherever_it_runs() {
    let mut up = Up::started(&topology(ECHO));
    let told = up.ok(&["drain", "echo/2"]);
    assert!(told.contains("echo/2 is gone after"), "{told}");
    // It has ended by itself, as it was done: nobody starts it again but an operator.
    up.wait_state("echo/2", "done");
    assert_eq!(up.process("echo/2")["deaths"], 0);
    assert!(up.fails(69, &["drain", "echo/2"]).contains("no mapper lists echo/2"));
    assert!(up.fails(64, &["drain", "echo"]).contains("SERVICE/INSTANCE"));
    up.ok(&["start", "echo/2"]);
    up.stop();
}

#[test]
fn a_changed_file_is_applied_and_a_wrong_one_is_not() {
    let mut up = Up::started(&topology(ECHO));
    let main = pid_of(&up.process("main"));
    let plan = |up: &Up, status: i32| {
        let output = up.run(&["plan", "--exit-code"]);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    plan(&up, 0);
    let more = "[service.more]\nbuiltin = \"sleep\"\n";
    up.write(&topology(&format!("{ECHO}queue = 3\n{more}")));
    let text = plan(&up, 2);
    assert!(text.contains("1 to start, 2 to restart, 0 to stop"), "{text}");
    assert!(text.contains(&format!("next: kill -HUP {}", up.pid())), "{text}");
    up.signal(Signal::HUP);
    let names = |all: &[serde_json::Value]| {
        let names = all.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let settled = |all: &[serde_json::Value]| all.iter().all(|one| one["state"] == "ready");
    let expected: BTreeSet<String> =
        ["main", "echo/1", "echo/3", "more/1"].iter().map(|&name| name.to_owned()).collect();
    up.wait_for("the new ones", |all| settled(all) && names(all) == expected);
    assert_eq!(pid_of(&up.process("main")), main);
    plan(&up, 0);
    up.write("[service.echo]\n");
    up.signal(Signal::HUP);
    eventually("a word on it", || up.log().contains("the file is not applied"));
    up.wait_for("the same ones", |all| settled(all) && names(all) == expected);
    // One that is right and does not work is not what a death brings.
    up.write(&topology(&format!("[service.echo]\nexec = \"./no\"\ninstances = 2\n{more}")));
    up.signal(Signal::HUP);
    eventually("a word on that", || up.log().contains("goes on with its former settings"));
    kill(pid_of(&up.process("echo/1")).unwrap());
    up.wait_for("it to be back", |all| settled(all) && names(all) == expected);
    let text = plan(&up, 64);
    assert!(text.contains("0 to start, 2 to restart, 0 to stop"), "{text}");
    up.stop();
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let mut up = Up::started(&topology("[service.nap]\nbuiltin = \"sleep\"\n"));
    let mut job =
        up.command(&["submit", "nap", "--data", "1h"]).stderr(Stdio::null()).spawn().unwrap();
    let running = || up.ok(&["status", "--json"]).contains("\"running\": 1");
    eventually("the job to run", running);
    let all = up.descendants();
    up.signal(Signal::TERM);
    up.wait_state("nap/1", "stopping");
    up.signal(Signal::TERM);
    assert_eq!(up.wait().code(), Some(143));
    eventually("nobody to be left", || !all.iter().any(|pid| is_running(*pid)));
    job.kill().unwrap();
    job.wait().unwrap();
}

#[test]
fn nobody_waits_for_who_does_not_read() {
    const FULL_BYTES: usize = 8 * 1024;
    let chatty = "[service.loud]\nexec = \"sh -c 'seq 100000 >&2'\"\nlog = { dir = \"log\", size = \"64KiB\", keep = 2 }\n";
    let mut up = Up::written(&topology(&format!("{ECHO}{chatty}")));
    // A pipe that nobody reads, and that is soon full.
    let mut process =
        up.command(&["up", "--log-level", "debug"]).stdout(Stdio::piped()).spawn().unwrap();
    rustix::pipe::fcntl_setpipe_size(process.stdout.as_ref().unwrap(), FULL_BYTES).unwrap();
    eventually("all to be ready", || {
        up.processes().iter().filter(|one| one["state"] == "ready").count() == 4
    });
    let mut follower = up.command(&["logs", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    for _ in 0..6 {
        up.ok(&["submit", "loud", "--data", "x"]);
        up.ok(&["restart", "echo"]);
    }
    assert!(up.path("log/loud-1.log").exists());
    kill_with(Signal::TERM, &process);
    let begun = Clock.now();
    eventually("svcmap up to end", || process.try_wait().unwrap().is_some());
    assert!(Clock.now().since(begun) < Duration::from_secs(5));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("all 4 ready"), "{said}");
    assert!(said.len() > FULL_BYTES - 1024, "it was not full: {}", said.len());
    up.start();
    up.wait_for("all", |all| all.iter().all(|one| one["state"] == "ready"));
    up.stop();
}

#[test]
fn rude_clients_cost_nobody_else_anything() {
    let mut up = Up::started(&topology(ECHO));
    let mut files = std::fs::read_dir(up.path("svcmap")).unwrap().map(|file| file.unwrap().path());
    let socket = files.find(|path| path.extension().is_some_and(|it| it == "sock")).unwrap();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may have been cut off before all was said.
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(say(b"GET / HTTP/1.1\r\n\r\n").contains("failed"));
    assert!(say(b"{\"do\": {}}\n").contains("failed"));
    assert!(say(&[b'x'; 100_000]).contains("bytes at most"));
    assert!(say(b"\n").contains("failed"));
    // As many as it takes, that stay and read nothing; of those before nobody is left.
    let follow = b"{\"logs\": {\"targets\": [], \"lines\": 0, \"follow\": true}}\n";
    let followers: Vec<UnixStream> = (0..64)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(follow).unwrap();
            stream
        })
        .collect();
    for command in [&["restart", "echo"][..], &["logs"], &["ps"]] {
        let refused = up.fails(75, command);
        assert!(refused.contains("64 commands at a time"), "{refused}");
    }
    drop(followers);
    up.ok(&["ps"]);
    // One that goes at once, and more that say nothing.
    drop(UnixStream::connect(&socket).unwrap());
    let idle: Vec<UnixStream> = (0..80).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    eventually("room for who says something", || up.run(&["ps"]).status.success());
    up.ok(&["restart", "echo"]);
    drop(idle);
    up.stop();
}

fn kill_with(signal: Signal, process: &std::process::Child) {
    kill_of(process.id(), signal);
}

fn kill_of(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn an_encrypted_topology_makes_its_keys_and_needs_no_flags() {
    let keyed =
        topology(ECHO).replace("[mapper.main]", "deployment = \"keys/svcmap.toml\"\n[mapper.main]");
    let mut up = Up::started(&keyed);
    assert!(up.path("keys/svcmap.toml").exists() && up.path("keys/svcmap.mapper.toml").exists());
    up.ok(&["submit", "echo", "--data", "x"]);
    assert!(up.ok(&["key", "list"]).contains("everyone"));
    kill(pid_of(&up.process("echo/1")).unwrap());
    up.wait_state("echo/1", "ready");
    up.stop();
    // The keys stay, and the port may be another one.
    up.start();
    up.stop();
}

/// Two mappers, four services of three instances with real programs, and jobs from all sides.
#[test]
fn services_are_replaced_three_times_under_load_and_no_job_is_lost() {
    let services: String = [
        ("sum", "exec = \"sha256sum\""),
        ("cat", "exec = \"cat\""),
        ("upper", "exec_loop = \"python3 upper.py\""),
        ("count", "exec = \"wc -c\""),
    ]
    .iter()
    .map(|(name, handler)| format!("[service.{name}]\n{handler}\ninstances = 3\nconcurrency = 2\n"))
    .collect();
    let two = format!("{MAPPER_ANYWHERE}[mapper.spare]\nbind = \"tcp://127.0.0.1:0\"\n{services}");
    let mut up = Up::written(&two);
    std::fs::write(up.path("upper.py"), UPPER).unwrap();
    std::fs::write(up.path("jobs"), numbers(BATCH)).unwrap();
    up.start();
    up.wait_for("all", |all| all.len() == 14 && all.iter().all(|one| one["state"] == "ready"));
    let (goes_on, up_while) = (AtomicBool::new(true), &up);
    let done: Vec<usize> = std::thread::scope(|scope| {
        let senders = ["sum", "cat", "upper", "count"].map(|service| {
            let goes_on = &goes_on;
            scope.spawn(move || {
                let mut batches = 0;
                while goes_on.load(Relaxed) {
                    let flags = ["submit", service, "--lines", "jobs", "--json-lines"];
                    let outcomes = up_while.ok(&flags);
                    let is_done = |line: &&str| line.contains("\"outcome\":\"done\"");
                    assert_eq!(outcomes.lines().filter(is_done).count(), BATCH as usize);
                    batches += 1;
                }
                batches
            })
        });
        for _ in 0..3 {
            let answer = up.ok(&["restart", "sum", "cat", "upper", "count"]);
            assert!(answer.ends_with("12 replaced\n"), "{answer}");
        }
        goes_on.store(false, Relaxed);
        senders.map(|sender| sender.join().unwrap()).into()
    });
    assert!(done.iter().all(|batches| *batches > 0), "{done:?}");
    up.stop();
}

/// Jobs that one command sends.
const BATCH: u32 = 100;

/// A program that stays: see docs/programs.md.
const UPPER: &str = r#"
import json, sys
print(json.dumps({"ready": True}), flush=True)
while line := sys.stdin.buffer.readline():
    payload = sys.stdin.buffer.read(json.loads(line)["bytes"])
    answer = payload.upper()
    sys.stdout.buffer.write(json.dumps({"bytes": len(answer)}).encode() + b"\n" + answer)
    sys.stdout.buffer.flush()
"#;
