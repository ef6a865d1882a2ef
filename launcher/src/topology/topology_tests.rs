use super::*;

fn read_text(text: &str) -> Result<Topology, Problems> {
    read(Path::new("app/topology.toml"), Path::new("app"), text)
}

fn topology(text: &str) -> Topology {
    read_text(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Line, column, what is wrong and what would not be.
fn problems(text: &str) -> Vec<(usize, usize, String, String)> {
    let problems = read_text(text).unwrap_err();
    let told = |problem: &Problem| {
        let (line, column) = problems.place(problem);
        (line, column, problem.message.clone(), problem.help.clone().unwrap_or_default())
    };
    problems.all().iter().map(told).collect()
}

fn words(args: &[OsString]) -> Vec<&str> {
    args.iter().map(|arg| arg.to_str().unwrap()).collect()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

const SMALL: &str = "[mapper.main]\n[service.echo]\nbuiltin = \"echo\"\n";

#[test]
fn the_example_is_right_also_with_all_that_is_left_out_in_it() {
    let plain = topology(EXAMPLE);
    assert_eq!(plain.services[&name("sum")].instances, 3);
    assert_eq!(plain.services[&name("sum")].worker.concurrency, 2);
    // What is said to be so without it, is.
    let defaults = [
        "restart",
        "backoff",
        "flap",
        "log =",
        "rolling",
        "queue",
        "grace",
        "kill_after",
        "publish =",
    ];
    let is_default = |line: &str| defaults.iter().any(|key| line.starts_with(&format!("# {key}")));
    let spoken = |wanted: &dyn Fn(&str) -> bool| {
        let lines = EXAMPLE.lines().map(|line| match wanted(line) {
            true => line.trim_start_matches("# "),
            false => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(topology(&spoken(&is_default)), plain);
    // And every key that stands in it behind a # is one.
    let other_kinds = ["exec_loop", "builtin", "mappers", "insecure"];
    let is_key = |line: &str| {
        line.strip_prefix("# ").is_some_and(|line| {
            line.split(" = ").next().is_some_and(|key| !key.contains(' ') && line.contains(" = "))
                && !other_kinds.iter().any(|kind| line.starts_with(kind))
        })
    };
    let all = topology(&spoken(&is_key));
    let sum = &all.services[&name("sum")].worker;
    assert_eq!(sum.deployment.as_deref(), Some(Path::new("app/keys/sum.toml")));
    assert_eq!(sum.run_limit, Some(Duration::from_secs(60)));
    assert_eq!(all.prefix, Some(name("a")));
}

#[test]
fn a_service_has_its_own_values_else_those_of_all_else_usual_ones() {
    let topology = topology(
        r#"
        [mapper.main]
        [defaults]
        concurrency = 4
        env = { A = "1", B = "1" }
        backoff = { first = "1s" }
        log = { dir = "log" }
        [service.a]
        exec = ["./resize", "two words"]
        env = { B = "2" }
        flap = { exits = 3 }
        [service.b]
        exec_loop = "python3 b.py"
        concurrency = 1
        log = "output"
        dir = "/b"
    "#,
    );
    let (a, b) = (&topology.services[&name("a")], &topology.services[&name("b")]);
    assert_eq!(a.worker.handler, Handler::Exec("./resize 'two words'".to_owned()));
    assert_eq!((a.instances, a.worker.concurrency, b.worker.concurrency), (1, 4, 1));
    let env: Vec<_> = a.worker.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=1", "B=2"]);
    assert_eq!(a.keep.backoff.first, Duration::from_secs(1));
    assert_eq!(a.keep.backoff.max, Duration::from_secs(30));
    assert_eq!((a.keep.flap.exits, b.keep.flap.exits), (3, 5));
    let log = Log::Files { dir: "app/log".into(), bytes_max: 10 << 20, keep: 5 };
    assert_eq!((&a.keep.log, &b.keep.log), (&log, &Log::Output));
    assert_eq!(
        (a.worker.dir.as_path(), b.worker.dir.as_path()),
        (Path::new("app"), Path::new("/b"))
    );
}

#[test]
fn all_errors_are_told_at_once_each_with_its_place_and_what_is_allowed() {
    let text = "\
[mapper.main]
bnid = \"tcp://127.0.0.1:1\"
[service.a]
exec = \"cat\"
instnaces = 3
concurrency = 0
grace = \"ten\"
[service.b]
[service.c]
exec = \"cat | sort\"
builtin = \"ecko\"
restart = 'sometimes'
flap = { exits = 0, for = \"1s\" }
[service.main]
builtin = \"echo\"
[service.up]
builtin = \"echo\"
[servcie.d]
";
    let told: Vec<String> = problems(text)
        .into_iter()
        .map(|(line, column, message, help)| format!("{line}:{column}: {message} | {help}"))
        .collect();
    let expected = [
        "2:1: unknown key `bnid` in [mapper.main] | did you mean `bind`?",
        "5:1: unknown key `instnaces` in [service.a] | did you mean `instances`?",
        "6:15: `concurrency` of [service.a] has a wrong value | write a whole number from 1 to 4294967295",
        "7:9: `grace` of [service.a] has a wrong value | write a number and us, ms, s, m or h, such as 500ms",
        "8:10: [service.b] has no handler | one of exec = \"PROGRAM\", exec_loop = \"PROGRAM\", builtin = \"echo\"",
        "11:11: `builtin` of [service.c] has a wrong value | echo, sleep, spin",
        "12:11: `restart` of [service.c] has a wrong value | \"on-failure\", \"always\" or \"never\"",
        "13:18: `exits` of `flap` of [service.c] has a wrong value | write a whole number from 1 to 1000",
        "13:21: unknown key `for` in `flap` of [service.c] | known: exits, within",
        "14:10: a mapper is called `main` as well | give one of them another name",
        "16:10: `up` cannot be a name here | it stands for svcmap up itself: svcmap logs up",
        "18:2: unknown key `servcie` in the file | did you mean `service`?",
    ];
    for line in expected {
        assert!(told.iter().any(|told| told == line), "{line} is missing in\n{}", told.join("\n"));
    }
    let shell = told.iter().find(|line| line.starts_with("10:8:")).unwrap();
    assert!(shell.contains("`|`"), "{shell}");
    assert_eq!(told.len(), expected.len() + 1, "{}", told.join("\n"));
}

#[test]
fn an_error_shows_the_line_that_it_is_in() {
    let shown = read_text("[mapper.main]\n[service.ä]\n").unwrap_err().to_string();
    assert!(shown.starts_with("app/topology.toml has an error\n"), "{shown}");
    let syntax = read_text("[mapper.main\nx = 1\n").unwrap_err().to_string();
    assert!(syntax.contains("app/topology.toml:1:13"), "{syntax}");
    assert!(syntax.contains("[mapper.main"), "{syntax}");
    // However much is wrong, a screen stays a screen.
    let many: String = (0..1000).map(|n| format!("x{n} = 1\n")).collect();
    let shown = read_text(&many).unwrap_err().to_string();
    assert!(shown.ends_with("more") && shown.lines().count() < 150, "{}", shown.lines().count());
}

#[test]
fn mappers_are_ours_or_elsewhere_and_keys_are_where_others_come() {
    assert_eq!(problems("[service.a]\nbuiltin = \"echo\"\n")[0].2, "there is no mapper");
    assert!(problems(&format!("mappers = [\"tcp://h:1\"]\n{SMALL}"))[0].2.contains("both"));
    assert!(problems("mappers = []\n")[0].2.contains("no mapper is named"));
    let elsewhere = topology("mappers = [\"tcp://h:1\", \"tcp://h:2\"]\n");
    assert!(matches!(elsewhere.mappers, Mappers::Elsewhere(mappers) if mappers.len() == 2));
    let open = "[mapper.a]\nbind = \"tcp://0.0.0.0:1\"\n";
    assert!(problems(open)[0].2.contains("has no keys"));
    topology(&format!("insecure = true\n{open}"));
    let keyed = format!("deployment = \"k.toml\"\n{open}");
    topology(&keyed);
    let two = format!("{keyed}[mapper.b]\nbind = \"tcp://0.0.0.0:3\"\n");
    assert!(problems(&two)[0].2.contains("the same deployment file as `a`"));
    topology(&format!("{two}deployment = \"b.toml\"\n"));
}

#[test]
fn instances_of_several_machines_have_different_names() {
    let named = |text: &str| topology(text).named_apart("host.local").prefix;
    assert_eq!(named(SMALL), None);
    let elsewhere = "mappers = [\"tcp://h:1\"]\n";
    assert_eq!(named(elsewhere), Some(name("host-local")));
    assert_eq!(named(&format!("prefix = \"a\"\n{elsewhere}")), Some(name("a")));
}

#[test]
fn arguments_are_those_of_the_commands() {
    let parse = |args: &[OsString]| {
        let all = std::iter::once(OsString::from("svcmap")).chain(args.iter().cloned());
        crate::cli::parse(all).unwrap()
    };
    let all = topology(
        "insecure = true\n[mapper.main]\nbind = \"tcp://0.0.0.0:7\"\nbeat = \"500ms\"\n\
         [service.a]\nexec = \"cat -n\"\nrun_limit = \"1500us\"\npayload_max = \"2MiB\"\n\
         advertise = [\"h\"]\nbind = \"tcp://0.0.0.0:0\"\n",
    );
    let mapper = &all.our_mappers().unwrap()[&name("main")];
    let args = all.mapper_args(mapper, &mapper.bind, &mapper.publish);
    parse(&args);
    assert!(words(&args).contains(&"--publish=tcp://0.0.0.0:8"), "{args:?}");
    let worker = &all.services[&name("a")].worker;
    let mappers = ["tcp://127.0.0.1:7".parse().unwrap()];
    let args = all.worker_args(&name("a"), &name("1"), worker, &mappers);
    let crate::cli::Command::Worker(parsed) = parse(&args).command else { panic!("{args:?}") };
    assert_eq!(parsed.run_limit, Some(Duration::from_micros(1500)));
    assert_eq!(parsed.exec.as_deref(), Some("cat -n"));
    assert!(parsed.mapper.keys.insecure);
    // In plain text on this machine the user's own deployment file is not meant.
    let here = topology(SMALL);
    let worker = &here.services[&name("echo")].worker;
    let args = here.worker_args(&name("echo"), &name("1"), worker, &mappers);
    assert!(words(&args).contains(&"--insecure"), "{args:?}");
    // And a deployment file says itself where its mappers are.
    let keyed = topology(&format!("deployment = \"k\"\n{SMALL}"));
    let args = keyed.worker_args(&name("echo"), &name("1"), worker, &mappers);
    assert!(words(&args).contains(&"--deployment=app/k"), "{args:?}");
    assert!(!words(&args).iter().any(|arg| arg.starts_with("--mapper")), "{args:?}");
}

fn what(old: Option<&str>, new: &str) -> Vec<String> {
    let old = old.map(topology);
    let all = changes(old.as_ref(), &topology(new)).into_iter();
    let told = |c: Change| {
        format!(
            "{}{} [{}] {} {} {}",
            c.sign,
            c.subject,
            c.what.join(","),
            c.starts,
            c.restarts,
            c.stops
        )
    };
    all.map(told).collect()
}

#[test]
fn a_plan_says_what_would_be_started_replaced_and_stopped() {
    assert_eq!(what(None, SMALL), ["+mapper main [] 1 0 0", "+echo [] 1 0 0"]);
    assert_eq!(what(Some(SMALL), SMALL), [" mapper main [] 0 0 0", " echo [] 0 0 0"]);
    let more = format!("{SMALL}instances = 3\n");
    assert_eq!(what(Some(SMALL), &more)[1], "~echo [instances 1 -> 3] 2 0 0");
    let other = format!("{SMALL}instances = 2\nqueue = 1\n");
    assert_eq!(what(Some(&more), &other)[1], "~echo [queue,instances 3 -> 2] 0 2 1");
    let kept = format!("{SMALL}restart = \"always\"\nrolling = {{ surge = 2 }}\n");
    assert_eq!(what(Some(SMALL), &kept)[1], "~echo [rolling,what happens when it ends] 0 0 0");
    let gone = "[mapper.main]\n";
    assert_eq!(what(Some(&more), gone)[1], "-echo [] 0 0 3");
    // Where mappers are, all workers are told.
    let moved = SMALL.replace("[mapper.main]", "[mapper.main]\nbind = \"tcp://127.0.0.1:7\"");
    assert_eq!(
        what(Some(SMALL), &moved),
        ["~mapper main [bind,publish] 0 1 0", "~echo [mappers] 0 1 0"]
    );
    let screen = plan_text(&changes(Some(&topology(SMALL)), &topology(&other)), None);
    assert!(screen.contains("1 to start, 1 to restart, 0 to stop"), "{screen}");
}
