//! `svcmap doctor`: every failure that it claims to find is provoked, and found.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Refused, Registration, ToMapper, Welcome};
use svcmap_proto::io::Clock;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation};
use svcmap_tests::batch::{code, text};
use svcmap_tests::keyed::{self, ECHO, Scene};
use svcmap_tests::listed::{nobody, register, registration};
use svcmap_tests::up::{self, MAPPER_ANYWHERE, Up};
use svcmap_tests::{
    Deployment, MAPPER, eventually, executable, plain_deployment, plain_deployment_of, svcmap,
};

/// `svcmap doctor --json` with these mappers.
fn at(mappers: &[&Endpoint]) -> (Value, Option<i32>) {
    let all: Vec<_> = mappers.iter().map(|mapper| mapper.as_str()).collect();
    let mut command = Command::new(executable());
    read(&command.args(["doctor", "--json", "--mapper", &all.join(",")]).output().unwrap())
}

fn of(deployment: &Deployment) -> (Value, Option<i32>) {
    at(&[deployment.mapper()])
}

fn read(output: &Output) -> (Value, Option<i32>) {
    let json = serde_json::from_slice(&output.stdout);
    (json.unwrap_or_else(|_| panic!("{}", text(&output.stderr))), code(output))
}

/// The findings, by their ids.
fn ids(found: &Value) -> Vec<&str> {
    found["checks"].as_array().unwrap().iter().filter_map(|check| check["id"].as_str()).collect()
}

/// That finding.
fn finding<'a>(found: &'a Value, id: &str) -> &'a Value {
    let all = found["checks"].as_array().unwrap();
    all.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {found:#}"))
}

/// It is the only finding, and a failure, with something to do about it.
fn assert_fails(found: &(Value, Option<i32>), id: &str) {
    let (found, code) = found;
    assert_eq!((ids(found), *code), (vec![id], Some(1)), "{found:#}");
    let finding = finding(found, id);
    assert_eq!(finding["level"], "fail");
    assert!(
        finding["remedy"]["text"].as_str().is_some_and(|text| text.ends_with('.')),
        "{finding}"
    );
    assert!(finding["remedy"]["commands"].is_array(), "{finding}");
}

/// The same with a warning, which is no failure.
fn assert_warns(found: &(Value, Option<i32>), id: &str) {
    let (found, code) = found;
    assert_eq!((ids(found), *code), (vec![id], Some(0)), "{found:#}");
    assert_eq!(finding(found, id)["level"], "warn");
    assert!(finding(found, id)["remedy"]["text"].is_string());
}

fn signal(deployment: &Deployment, name: &str, signal: Signal) {
    let pid = i32::try_from(deployment.pid(name).unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let deployment = plain_deployment_of("echo", 2, ECHO);
    let (found, exit) = of(&deployment);
    assert_eq!((ids(&found), exit), (vec![], Some(0)), "{found:#}");
    assert_eq!((&found["failed"], &found["warnings"]), (&0.into(), &0.into()));
    let screen = text(&svcmap(&deployment, &["doctor"]).stdout);
    let start = format!("mapper {}\n  ok    answers in ", deployment.mapper());
    assert!(screen.starts_with(&start), "{screen}");
    assert!(screen.contains("  ok    publishes at tcp://127.0.0.1:"), "{screen}");
    assert!(screen.contains("  ok    2 instances reached from "), "{screen}");
    assert!(screen.contains("0 failed, 0 warnings, "), "{screen}");
    assert!(screen.contains("\nnext: svcmap status · "), "{screen}");
    let short = text(&svcmap(&deployment, &["doctor", "--short"]).stdout);
    assert!(short.starts_with("0 failed, ") && short.lines().count() == 1, "{short}");
}

#[test]
fn d01_to_d03_a_mapper_that_nobody_reaches() {
    let mut command = Command::new(executable());
    let name = ["doctor", "--json", "--insecure", "--mapper", "tcp://no-such-host.invalid:5555"];
    assert_fails(&read(&command.args(name).output().unwrap()), "D01");

    assert_fails(&at(&[&nobody()]), "D02");

    let deployment = plain_deployment();
    signal(&deployment, MAPPER, Signal::STOP);
    let stopped = of(&deployment);
    // With another one beside it, that one is well.
    let other = plain_deployment();
    let one_of_two = at(&[deployment.mapper(), other.mapper()]);
    signal(&deployment, MAPPER, Signal::CONT);
    assert_fails(&stopped, "D03");
    assert_fails(&one_of_two, "D03");
    let group = &finding(&one_of_two.0, "D03")["group"];
    assert_eq!(*group, format!("mapper {}", deployment.mapper()));
    let checks = one_of_two.0["checks"].as_array().unwrap();
    let well = format!("mapper {}", other.mapper());
    assert!(checks.iter().any(|check| check["group"] == well && check["level"] == "ok"));

    // Somebody who speaks ZMTP and is no mapper.
    let socket = zmq::Context::new().socket(zmq::ROUTER).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap().parse().unwrap();
    assert_fails(&at(&[&endpoint]), "D03");
}

/// Answers as this says, for so many messages.
fn fake(answer: impl Fn(&ToMapper) -> Option<FromMapper> + Send + 'static) -> Endpoint {
    let socket = zmq::Context::new().socket(zmq::ROUTER).unwrap();
    socket.set_rcvtimeo(8_000).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap().parse().unwrap();
    let serve = move || {
        while let Ok(frames) = socket.recv_multipart(0) {
            let answer = codec::decode(&frames[1]).ok().and_then(|message| answer(&message));
            if let Some(answer) = answer {
                socket.send_multipart([&frames[0][..], &codec::encode(&answer)], 0).unwrap();
            }
        }
    };
    // It ends by itself when nobody has asked for a while, at the latest with this process.
    std::thread::Builder::new().spawn(serve).unwrap();
    endpoint
}

#[test]
fn d04_a_port_of_publications_where_nothing_is_heard() {
    let publish = nobody();
    let dead = publish.clone();
    let mapper = fake(move |message| match message {
        ToMapper::Hello(_) => Some(FromMapper::Welcome(Welcome {
            epoch: Epoch(1),
            warming: false,
            beat_ms: 100,
            expiry_ms: 300,
            publish_ms: 10,
            publish: publish.clone(),
            observed: String::new(),
            highest: None,
        })),
        ToMapper::List { .. } => {
            let (names, more, refused) = (Vec::new(), false, Refused::default());
            Some(FromMapper::Services { names, more, refused, activity: Vec::new() })
        }
        _ => None,
    });
    let found = at(&[&mapper]);
    assert_fails(&found, "D04");
    let finding = finding(&found.0, "D04");
    let message = finding["message"].as_str().unwrap();
    assert!(message.contains(dead.as_str()) && message.contains("300ms"), "{finding}");
    let port = format!("ss -ltn 'sport = :{}'", dead.port().unwrap());
    assert_eq!(finding["remedy"]["commands"][0], port);
}

#[test]
fn d05_another_version() {
    let version = FromMapper::WrongVersion { oldest: 98, newest: 99 };
    assert_fails(&at(&[&fake(move |_| Some(version.clone()))]), "D05");
}

#[test]
fn d06_and_d07_keys_that_are_wanted_and_not_taken() {
    let scene = Scene::new(ECHO);
    let (found, exit) = read(&scene.run(&["doctor", "--json"]));
    assert_eq!((ids(&found), exit), (vec![], Some(0)), "{found:#}");
    assert!(text(&scene.run(&["doctor"]).stdout).contains(", takes our key\n"));

    assert_fails(&at(&[&scene.mapper]), "D06");

    let bob = scene.add_key("bob", &["--role", "client", "--services", "*"]);
    assert_eq!(code(&scene.run(&["key", "revoke", "bob"])), Some(0));
    assert_fails(&read(&scene.run_as(&bob, &["doctor", "--json"])), "D07");
}

#[test]
fn d08_and_d09_a_deployment_file_that_is_of_no_use() {
    let (scene, plain) = (Scene::new(&[]), plain_deployment());
    let file = keyed::file(scene.folder.path());
    let text = fs::read_to_string(&file).unwrap();
    let other = scene.folder.path().join("other.toml");
    fs::write(&other, text.replace(scene.mapper.as_str(), plain.mapper().as_str())).unwrap();
    let readable = |mode| fs::set_permissions(&other, fs::Permissions::from_mode(mode)).unwrap();
    readable(0o600);
    assert_fails(&read(&scene.run_as(&other, &["doctor", "--json"])), "D08");

    readable(0o644);
    let exposed = read(&scene.run_as(&other, &["doctor", "--json"]));
    assert_fails(&exposed, "D09");
    let fix = format!("chmod 600 {}", other.display());
    assert_eq!(finding(&exposed.0, "D09")["remedy"]["commands"][0], fix);
    assert_fails(&read(&scene.run_as(Path::new("/no/such/file"), &["doctor", "--json"])), "D09");
}

#[test]
fn d10_an_environment_that_names_another_mapper_than_the_file() {
    let scene = Scene::new(&[]);
    let plain = plain_deployment();
    let doctor = || keyed::command(scene.folder.path(), &["doctor", "--json"]);
    let file = keyed::file(scene.folder.path());
    // The file was named as well: both cannot be.
    let named = doctor()
        .env("SVCMAP_DEPLOYMENT", &file)
        .env("SVCMAP_MAPPER", plain.mapper().as_str())
        .output();
    assert_fails(&read(&named.unwrap()), "D10");
    // The file lies where it is looked for: it is passed over.
    let folder = scene.folder.path().join("svcmap");
    fs::create_dir(&folder).unwrap();
    fs::copy(&file, folder.join("svcmap.toml")).unwrap();
    let found = read(&doctor().env("SVCMAP_MAPPER", plain.mapper().as_str()).output().unwrap());
    assert_warns(&found, "D10");
    let message = finding(&found.0, "D10")["message"].as_str().unwrap();
    assert!(message.contains(plain.mapper().as_str()), "{message}");
    // No address at all.
    let wrong = doctor().env("SVCMAP_MAPPER", "here").output().unwrap();
    assert_fails(&read(&wrong), "D10");
}

#[test]
fn d11_mappers_that_do_not_list_the_same() {
    let first = plain_deployment_of("echo", 1, ECHO);
    let second = plain_deployment();
    let found = at(&[first.mapper(), second.mapper()]);
    assert_warns(&found, "D11");
    let message = finding(&found.0, "D11")["message"].as_str().unwrap();
    let lacks = format!("{} lacks 1 instance that others list: echo/w-1", second.mapper());
    assert_eq!(message, lacks);
}

#[test]
fn d12_and_d17_clocks_that_are_wrong() {
    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let ahead = |hours: u64| {
        let incarnation = Incarnation(Clock.unix_us() + hours * 3_600_000_000);
        let known = registration("work", &format!("ahead-{hours}"), mapper, Load::default());
        Registration { incarnation, ..known }
    };
    register(mapper, vec![ahead(1)]);
    let found = of(&deployment);
    assert_warns(&found, "D17");
    let message = finding(&found.0, "D17")["message"].as_str().unwrap();
    assert!(message.starts_with("work/ahead-1 says that it starts in "), "{message}");
    // So far ahead that its mapper does not list it.
    let answers = register(mapper, vec![ahead(48)]);
    assert!(matches!(answers[0], FromMapper::RegistrationRefused(_)), "{answers:?}");
    eventually("the first to expire", || {
        let found = of(&deployment);
        ids(&found.0) == ["D12"] && found.1 == Some(0)
    });
}

#[test]
fn d13_workers_that_cannot_be_reached() {
    let nowhere = nobody();
    let lost = [ECHO, &["--advertise", nowhere.as_str()]].concat();
    let mut deployment = plain_deployment_of("echo", 1, &lost);
    let found = of(&deployment);
    assert_fails(&found, "D13");
    let message = finding(&found.0, "D13")["message"].as_str().unwrap();
    assert!(message.starts_with("echo/w-1 cannot be reached from "), "{message}");
    assert!(message.contains(nowhere.as_str()) && message.contains("refused"), "{message}");

    deployment.terminate("w-1").unwrap();
    deployment.start_worker("echo", "w-2", ECHO).unwrap();
    deployment.wait_ready(&[("echo", 1)]).unwrap();
    // It is listed for three beats.
    eventually("it to be found", || {
        signal(&deployment, "w-2", Signal::STOP);
        let found = of(&deployment);
        signal(&deployment, "w-2", Signal::CONT);
        ids(&found.0) == ["D13"] && finding(&found.0, "D13").to_string().contains("says nothing")
    });
}

#[test]
fn nothing_is_wrong_with_who_ends_as_it_is_replaced() {
    let services = "[service.echo]\nbuiltin = \"echo\"\ninstances = 6\n";
    let mut up = Up::started(&format!("{MAPPER_ANYWHERE}{services}"));
    let is_over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let looks = scope.spawn(|| (0..10).map(|_| up.run(&["doctor", "--json"])).collect());
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                up.ok(&["restart", "echo"]);
            }
        });
        let looks: std::thread::Result<Vec<_>> = looks.join();
        is_over.store(true, Relaxed);
        looks.unwrap()
    });
    for look in looks {
        let (found, code) = read(&look);
        assert_eq!((ids(&found), code), (vec![], Some(0)), "{found:#}");
    }
    up.stop();
}

#[test]
fn d14_an_address_for_one_host_only() {
    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let elsewhere = registration("work", "elsewhere", mapper, Load::default());
    register(mapper, vec![Registration { host: HostId(7), ..elsewhere.clone() }]);
    let found = of(&deployment);
    assert_fails(&found, "D14");
    let message = finding(&found.0, "D14")["message"].as_str().unwrap();
    let expected = format!("work/elsewhere advertises {mapper} only, from another host");
    assert_eq!(message, expected);
    // The other way round: it is here, and somebody is elsewhere, at an address of this machine.
    let other = "tcp://127.0.0.1:1".parse().unwrap();
    let far = Registration { host: HostId(7), endpoints: vec![other], ..elsewhere };
    let here = registration("work", "here", mapper, Load::default());
    register(mapper, vec![far, here]);
    let found = of(&deployment).0;
    let all: Vec<_> = found["checks"].as_array().unwrap().iter().collect();
    let warned = all.iter().find(|check| check["id"] == "D14" && check["level"] == "warn");
    let message = warned.unwrap()["message"].as_str().unwrap();
    assert_eq!(
        message,
        format!("work/here advertises {mapper} only, though there are other hosts")
    );
}

#[test]
fn d15_too_few_files() {
    let deployment = plain_deployment();
    let script = format!("ulimit -n 128; exec {} doctor --json", executable());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).envs(deployment.environment());
    assert_fails(&read(&command.output().unwrap()), "D15");
}

#[test]
fn d18_and_d19_instances_where_jobs_fail_or_nothing_is_finished() {
    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let load = Load { sequence: 1, slots: 4, concurrency: 1, ..Load::default() };
    let aside = Load { state: State::Failing, failing: 1000, ..load };
    let aside = registration("work", "aside", mapper, aside);
    let aside = Registration { error: Some("no licence".to_owned()), ..aside };
    register(mapper, vec![registration("work", "good", mapper, load), aside.clone()]);
    let found = of(&deployment);
    assert_warns(&found, "D18");
    let one = finding(&found.0, "D18");
    assert_eq!(one["message"], "work/aside is set aside, as jobs fail there: no licence");
    assert_eq!(one["remedy"]["commands"][0], "svcmap drain work/aside");

    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let often = Load { failing: 480, failed: 18, done: 19, ..load };
    let seldom = Load { failing: 150, failed: 1, done: 40, ..load };
    let all = [("often", often), ("seldom", seldom), ("good", load)];
    let all = all.map(|(name, load)| registration("work", name, mapper, load));
    register(mapper, all.into());
    let found = of(&deployment);
    assert_warns(&found, "D18");
    let said =
        "jobs fail at work/often that do not at its peers: 18 failed and 19 done since its start";
    assert_eq!(finding(&found.0, "D18")["message"], said);

    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let fails = Load { failing: 1000, ..load };
    let fails = ["a", "b"].map(|name| registration("work", name, mapper, fails));
    register(mapper, fails.into());
    let found = of(&deployment);
    assert_fails(&found, "D18");
    let message = finding(&found.0, "D18")["message"].as_str().unwrap();
    let said = "of the last jobs of work most failed at each of the 2 instances that take them";
    assert_eq!(message, said);

    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let silence = Some(41_000);
    let stuck =
        Load { running: 1, queued: 1, oldest_queued_ms: 41_000, since_finish_ms: silence, ..load };
    register(mapper, vec![registration("work", "stuck", mapper, stuck)]);
    let found = of(&deployment);
    assert_fails(&found, "D19");
    let message = finding(&found.0, "D19")["message"].as_str().unwrap();
    assert_eq!(message, "work/stuck is stuck: 1 running, no handler finished for 41s");
}

#[test]
fn d20_what_a_topology_has_given_up() {
    let bad = "[service.bad]\nexec = \"./not-there\"\n";
    let mut up = Up::written(&format!("{MAPPER_ANYWHERE}{bad}"));
    up.start();
    up.wait_state("bad/1", "failed");
    let found = read(&up.run(&["doctor", "--json"]));
    assert_fails(&found, "D20");
    let one = finding(&found.0, "D20");
    let message = one["message"].as_str().unwrap();
    assert!(
        message.starts_with("bad/1 is given up: ") && message.contains("not-there"),
        "{message}"
    );
    assert_eq!(
        one["remedy"]["commands"],
        serde_json::json!(["svcmap logs bad/1", "svcmap start bad/1"])
    );
    up.stop();
}

#[test]
fn d21_an_instance_of_a_topology_that_hangs() {
    let mut up = Up::started(&format!("{MAPPER_ANYWHERE}[service.echo]\nbuiltin = \"echo\"\n"));
    let pid = up::pid_of(&up.process("echo/1")).unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // It may have been ready for ten seconds, and is listed for three.
    eventually("it to be missed", || {
        let (found, code) = read(&up.run(&["doctor", "--json"]));
        ids(&found) == ["D21"] && code == Some(1)
    });
    let (found, _) = read(&up.run(&["doctor", "--json"]));
    let one = finding(&found, "D21");
    assert!(one["message"].as_str().unwrap().starts_with("echo/1 runs, pid "), "{one}");
    assert_eq!(one["remedy"]["commands"][1], "svcmap restart echo/1");
    kill_process(pid, Signal::CONT).unwrap();
    eventually("it to be heard", || ids(&read(&up.run(&["doctor", "--json"])).0).is_empty());
    up.stop();
}

#[test]
fn d22_a_service_that_goes_on_with_what_its_file_does_not_say() {
    let service = |handler: &str| format!("{MAPPER_ANYWHERE}[service.echo]\n{handler}\n");
    let mut up = Up::started(&service("builtin = \"echo\""));
    up.write(&service("exec = \"./not-there\""));
    up.signal(Signal::HUP);
    eventually("it to be given up", || up.log().contains("goes on with its former settings"));
    let found = read(&up.run(&["doctor", "--json"]));
    assert_fails(&found, "D22");
    let message = finding(&found.0, "D22")["message"].as_str().unwrap();
    assert!(message.starts_with("echo goes on with its former settings"), "{message}");
    up.stop();
}

#[test]
fn the_page_lists_what_it_finds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let code = ["findings", "workers", "kept"]
        .map(|name| read(&format!("launcher/src/commands/doctor/{name}.rs")));
    let page = read("docs/doctor.md");
    let listed: BTreeSet<_> = page.lines().filter_map(|line| line.get(2..5)).collect();
    let listed = listed.into_iter().filter(|id| id.starts_with('D')).collect::<Vec<_>>();
    let code = code.concat();
    let given = code.split('"').filter(|word| word.len() == 3 && word.starts_with('D'));
    let given: BTreeSet<_> = given.collect();
    assert!(given.len() > 10);
    assert_eq!(listed, given.into_iter().collect::<Vec<_>>());
}

#[test]
fn what_failed_is_short_enough_to_paste() {
    let mapper = nobody();
    let mut command = Command::new(executable());
    let output = command.args(["doctor", "--short", "--mapper", mapper.as_str()]).output().unwrap();
    let screen = text(&output.stdout);
    assert_eq!(code(&output), Some(1));
    let expected = format!(
        "mapper {mapper}\n  FAIL  nobody answers from here: Connection refused (os error 111)  [D02]\n        \
         No mapper runs there, or a firewall is between.\n        fix: ss -ltn 'sport = :{}'\n        \
         fix: svcmap mapper --bind {mapper}\n1 failed, 0 warnings, 2 ok\n",
        mapper.port().unwrap()
    );
    assert_eq!(screen, expected);
}
