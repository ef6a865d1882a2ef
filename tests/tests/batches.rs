//! Batches of `svcmap submit`: lists of any length, results in files, and when some jobs fail.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use svcmap_proto::io::Clock;
use svcmap_tests::batch::{Running, Scene, code, numbers, outcomes, text};
use svcmap_tests::{executable, resident_kb};

const ECHO: &[&str] = &["--builtin", "echo"];

#[test]
fn each_line_of_stdin_is_a_job() {
    let scene = Scene::new("echo", ECHO);
    let lines = scene.submit_with(&["echo", "--lines", "-"], b"a\n\nb\xff\nlast");
    assert_eq!((lines.stdout, lines.status.code()), (b"a\n\nb\xff\nlast\n".to_vec(), Some(0)));
    let nul = scene.submit_with(&["echo", "--lines", "-", "--null", "--json-lines"], b"a\nb\0c\0");
    assert_eq!(text(&nul.stdout).lines().count(), 2);
    let twice = scene.submit_with(&["echo", "--lines", "-", "--count", "2"], b"a\nb\n");
    assert_eq!(text(&twice.stdout), "a\na\nb\nb\n");
    // All of stdin is one job, as ever.
    let one = scene.submit_with(&["echo", "-"], b"a\nb\n");
    assert_eq!(text(&one.stdout), "a\nb\n");
    let too_long = [&vec![b'x'; 2000][..], b"\nb\n"].concat();
    let args = ["echo", "--lines", "-", "--payload-max", "1KiB"];
    let output = scene.submit_with(&args, &too_long);
    assert_eq!((text(&output.stdout).as_str(), code(&output)), ("b\n", Some(1)));
    assert!(text(&output.stderr).contains("larger than 1024 bytes"), "{}", text(&output.stderr));
}

#[test]
fn jobs_start_while_their_list_is_written() {
    let scene = Scene::new("echo", ECHO);
    let mut command = scene.command(["echo", "--lines", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in [b"1\n", b"2\n"] {
        stdin.write_all(line).unwrap();
        let mut result = [0; 2];
        stdout.read_exact(&mut result).unwrap();
        assert_eq!(result, *line);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_endless_list_takes_little_memory_and_a_signal_ends_it() {
    let scene = Scene::new("nap", &["--builtin", "sleep"]);
    let mut command = scene.command(["nap", "--lines", "-", "--unordered"]);
    let line = format!("1ms{}\n", " ".repeat(4000));
    let endless =
        Command::new("yes").arg(line.trim_end_matches('\n')).stdout(Stdio::piped()).spawn();
    let mut endless = Running::new(endless.unwrap());
    let list = endless.child().stdout.take().unwrap();
    let running = command.stdin(list).stdout(Stdio::null()).spawn().unwrap();
    let mut running = Running::new(running);
    scene.wait_for("many jobs", |done, _, _| done > 500);
    let resident = resident_kb(running.child().id());
    assert!(resident < 150_000, "{resident} kB");
    running.signal(Signal::TERM);
    assert_eq!(code(&running.end()), Some(143));
}

#[test]
fn results_in_files_are_whole_and_names_are_bytes() {
    let scene = Scene::new("echo", ECHO);
    let names = [&b"plain.bin"[..], b"new\nline", b"\xff\xfe.bin"].map(OsStr::from_bytes);
    let bytes = |name: &OsStr| -> Vec<u8> {
        let seed = name.len() as u8;
        (0..200_000_u32).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    };
    names.iter().for_each(|name| scene.write(name, bytes(name)));
    let output = ["--output", "out/a/{name}", "--joblog", "log"];
    let all = ["echo"].map(OsStr::new).into_iter().chain(names).chain(output.map(OsStr::new));
    let run = scene.command(all).output().unwrap();
    assert_eq!(
        (code(&run), text(&run.stdout), text(&run.stderr)),
        (Some(0), String::new(), String::new())
    );
    assert_eq!(scene.files("out/a").len(), 3);
    for name in names {
        let result = fs::read(scene.path("out/a").join(name)).unwrap();
        assert!(result == bytes(name), "{name:?}");
    }
    let logged: Vec<_> = scene
        .records("log")
        .into_iter()
        .map(|record| {
            (
                record["input"].as_str().map(str::to_owned),
                record["input_base64"].as_str().map(str::to_owned),
            )
        })
        .collect();
    let base64 = (None, Some("//4uYmlu".to_owned()));
    assert!(logged.contains(&base64) && logged.contains(&(Some("new\nline".to_owned()), None)));
    // From a list, and printed with their names as they are.
    let list: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
    names.iter().for_each(|name| scene.write(name, b"x"));
    let listed = scene.submit_with(&["echo", "--files-from", "-", "--null"], &list);
    assert_eq!(listed.stdout, b"plain.bin: x\nnew\nline: x\n\xff\xfe.bin: x\n");
}

#[test]
fn no_file_is_replaced_unless_that_is_wanted() {
    let scene = Scene::that_notes("0", &[]);
    fs::create_dir(scene.path("b")).unwrap();
    ["a", "b/a", "c"].iter().for_each(|name| scene.write(name, format!("{name}\n")));
    scene.write("c.out", "precious");
    let args = ["work", "a", "b/a", "c", "--output", "{name}.out"];
    let run = scene.submit(&args);
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1));
    assert!(said.contains("b/a: a.out: the result of an input before goes there"), "{said}");
    assert!(said.contains("c: c.out: exists already") && said.contains("--overwrite"), "{said}");
    assert_eq!([scene.read("a.out"), scene.read("c.out")], ["a\n", "precious"]);
    assert_eq!(scene.read("ran"), "a\n", "the others were not sent");
    let run = scene.submit(&[&args[..], &["--overwrite"]].concat());
    assert_eq!((code(&run), scene.read("c.out").as_str()), (Some(1), "c\n"));
    assert!(!scene.files(".").iter().any(|name| name.as_bytes().starts_with(b".svcmap")));
}

#[test]
fn a_template_that_makes_no_sense_is_told_before_anything_is_sent() {
    let scene = Scene::new("echo", ECHO);
    scene.write("a", "a");
    let said = |args: &[&str]| {
        let run = scene.submit(args);
        assert_eq!(code(&run), Some(64));
        text(&run.stderr)
    };
    let known = "{path}, {name}, {stem}, {number}";
    assert!(said(&["echo", "a", "--output", "{nmae}"]).contains(known));
    let of_lines = said(&["echo", "--lines", "a", "--output", "{name}"]);
    assert!(of_lines.contains("only {number} is known"), "{of_lines}");
    assert!(said(&["echo", "--lines", "no-such-list"]).contains("no-such-list cannot be read"));
    assert!(said(&["echo", "a", "--resume"]).contains("--joblog"));
    for many in [&["a", "b"][..], &["--lines", "a"], &["--data", "x", "--count", "2"]] {
        let said = said(&[&["echo", "--output", "out"], many].concat());
        assert!(said.contains("to the same file"), "{said}");
    }
    let run = scene.submit(&["echo", "a", "--output", "out"]);
    assert_eq!((code(&run), scene.read("out").as_str()), (Some(0), "a"));
}

#[test]
fn each_job_is_an_object_when_its_outcome_comes() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--concurrency", "2"]);
    let list = b"300ms\n1ms\nnonsense\n";
    let run = scene.submit_with(&["nap", "--lines", "-", "--json-lines"], list);
    let lines: Vec<Value> =
        text(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = lines.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[2], code(&run)), (3, 1, Some(1)), "{lines:?}");
    let of = |number: u64| lines.iter().find(|line| line["number"] == number).unwrap();
    assert_eq!((&of(1)["outcome"], &of(1)["result"]), (&"done".into(), &"300ms".into()));
    assert_eq!((&of(3)["outcome"], &of(3)["input"]), (&"failed".into(), &"nonsense".into()));
    assert!(of(3)["message"].is_string() && of(1)["by"] == "nap/w-1", "{lines:?}");
    assert_eq!(run.stderr, b"");
    // In order, or as they come.
    let run = scene.submit_with(&["nap", "--lines", "-"], b"300ms\n1ms\n");
    assert_eq!(text(&run.stdout), "300ms\n1ms\n");
    let run = scene.submit_with(&["nap", "--lines", "-", "--unordered"], b"300ms\n1ms\n");
    assert_eq!(text(&run.stdout), "1ms\n300ms\n");
}

#[test]
fn a_job_that_failed_is_tried_as_often_as_wanted() {
    let scene = Scene::that_notes("0; exit 3", &[]);
    let run = scene.submit(&["work", "--data", "x", "--retries", "2"]);
    assert_eq!((code(&run), scene.read("ran").as_str()), (Some(1), "x\nx\nx\n"));
    let said = text(&run.stderr);
    assert_eq!(said.lines().count(), 1, "of one job one line: {said}");
}

#[test]
fn a_job_that_failed_and_cannot_be_tried_again_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("once");
    // It is there for one job.
    fs::write(&program, "#!/bin/sh\nrm \"$0\"\nexit 3\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let scene = Scene::new("work", &["--exec", program.to_str().unwrap()]);
    let flags = ["--retries", "1", "--hold", "200ms", "--joblog", "log", "--json-lines"];
    let run = scene.submit(&[&["work", "--data", "x"][..], &flags].concat());
    let [record] = &scene.records("log")[..] else { panic!("{}", scene.read("log")) };
    assert_eq!((code(&run), &record["outcome"]), (Some(1), &"failed".into()), "{record}");
    let shown: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(shown["exit_status"], 3, "{shown}");
}

#[test]
fn nothing_is_begun_after_so_many_failures() {
    let scene = Scene::that_notes("0.02; exit 3", &[]);
    scene.write("list", numbers(500));
    let run = scene.submit(&["work", "--lines", "list", "--stop-after", "3", "--joblog", "log"]);
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1), "{said}");
    assert!(said.contains("--stop-after") && said.contains("x failed: exit status 3"), "{said}");
    let ran = scene.read("ran").lines().count();
    assert!((3..30).contains(&ran), "{ran}");
    assert_eq!(outcomes(&scene.records("log"))["failed"], ran);
}

#[test]
fn without_a_mapper_a_limit_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let submit = |args: &[&str]| {
        let started_at = Clock.now();
        let all = [&["submit", "x", "--data", "x", "--mapper", "tcp://127.0.0.1:1"], args].concat();
        let run = Command::new(executable()).args(all).current_dir(&folder).output().unwrap();
        let said = text(&run.stderr);
        assert_eq!(code(&run), Some(69), "{said}");
        assert!(said.contains("no mapper answers at tcp://127.0.0.1:1"), "{said}");
        assert!(said.matches("WARN").count() <= 1, "{said}");
        Clock.now().since(started_at)
    };
    // They were followed by another question, of three seconds.
    let took = submit(&["--deadline", "3s"]);
    assert!(took > Duration::from_millis(2900) && took < Duration::from_millis(5500), "{took:?}");
    let took = submit(&["--hold", "0"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
