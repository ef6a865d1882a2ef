use std::path::PathBuf;

use clap::CommandFactory;

use super::*;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(shlex::split(line).unwrap())
}

#[derive(Debug, Parser)]
struct Only<A: Args> {
    #[command(flatten)]
    args: A,
}

fn args<A: Args>(line: &str) -> Result<A, clap::Error> {
    Only::<A>::try_parse_from(shlex::split(line).unwrap()).map(|only| only.args)
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
    Only::<WorkerArgs>::command().debug_assert();
    Only::<SubmitArgs>::command().debug_assert();
}

#[test]
fn a_mapper_has_defaults_for_everything() {
    let Command::Mapper(args) = parsed("svcmap mapper").unwrap().command else { unreachable!() };
    assert_eq!(args.bind.as_str(), "tcp://127.0.0.1:5555");
    assert_eq!(args.publish().as_str(), "tcp://127.0.0.1:5556");
    assert_eq!(args.beat, Duration::from_secs(1));
    assert_eq!(args.publish_interval, None);
    assert_eq!(args.supervised, SupervisedOptions::default());
    assert!(parsed("svcmap mapper --beat 0").is_err());
}

#[test]
fn a_supervisor_adds_its_pid_and_an_incarnation() {
    let line = "svcmap mapper --supervised 7 --incarnation 1700000000000000";
    let Command::Mapper(args) = parsed(line).unwrap().command else { unreachable!() };
    assert_eq!(args.supervised.supervised, Some(7));
    assert_eq!(args.supervised.incarnation, Some(Incarnation(1_700_000_000_000_000)));
}

#[test]
fn status_waits_for_conditions() {
    let line = "svcmap status --wait 'resize>=3' --wait 'ocr>=1' --timeout 500ms --json";
    let cli = parsed(line).unwrap();
    assert!(cli.json());
    let Command::Status(args) = cli.command else { unreachable!() };
    assert_eq!(args.wait.len(), 2);
    assert_eq!(args.timeout, Duration::from_millis(500));
    assert!(parsed("svcmap status --timeout 1s").is_err());
    assert!(parsed("svcmap status 're size'").is_err());
}

#[test]
fn a_worker_needs_exactly_one_handler() {
    let worker = |rest: &str| args::<WorkerArgs>(&format!("x --service resize {rest}"));
    let good = worker("--exec 'convert - -' --mapper tcp://a:1,tcp://b:2 --advertise h").unwrap();
    assert_eq!(good.exec.as_deref(), Some("convert - -"));
    assert_eq!(good.mapper.mapper.len(), 2);
    assert_eq!(good.advertise[0].as_str(), "tcp://h:*");
    assert_eq!((good.concurrency.get(), good.queue, good.payload_max), (1, 10, 1 << 20));
    assert_eq!((good.grace, good.kill_after), (Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!(worker("--builtin spin").unwrap().builtin, Some(Builtin::Spin));
    assert!(worker("").is_err());
    assert!(worker("--builtin echo --exec cat").is_err());
    assert_eq!(worker("--exec-loop 'a b'").unwrap().exec_loop.as_deref(), Some("a b"));
    assert!(worker("--exec-loop a --exec b").is_err());
    assert!(worker("--exec-loop a --builtin echo").is_err());
    assert!(worker("--builtin echo --concurrency 0").is_err());
}

#[test]
fn a_submission_needs_a_payload() {
    let submit = |rest: &str| args::<SubmitArgs>(&format!("x resize {rest}"));
    assert_eq!(submit("a.jpg b.jpg").unwrap().files.len(), 2);
    assert_eq!(submit("-").unwrap().files, [PathBuf::from("-")]);
    assert_eq!(submit("--data '' --hold 0").unwrap().hold, Some(Duration::ZERO));
    assert!(submit("").is_err());
    assert!(submit("--data x a.jpg").is_err());
    assert!(submit("--data x --deadline 0").is_err());
}

#[test]
fn usage_errors_have_our_form() {
    let failure = |line: &str| {
        let args: Vec<_> = line.split(' ').map(OsString::from).collect();
        usage_failure(&parsed(line).unwrap_err(), &args)
    };
    let beat = failure("svcmap mapper --beat 0");
    assert_eq!(beat.message, "invalid value '0' for '--beat <TIME>': must be longer than 0");
    assert_eq!((beat.exit, beat.fix.as_deref()), (Exit::Usage, Some("svcmap mapper --help")));
    let count = failure("svcmap submit x --data y --count 0");
    assert!(count.message.ends_with("write a number from 1 on"), "{}", count.message);
    let count = failure("svcmap submit x --data y --count 5000000000");
    assert!(count.message.ends_with("too large"), "{}", count.message);
    assert_eq!(failure("svcmap smubit").fix.as_deref(), Some("svcmap --help"));
}
