use svcmap_proto::control::Entry;
use svcmap_proto::io::Probe;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, MapperAddress};
use svcmap_proto::status::Report;

use super::observed::{Kept, Machine, Mapper, Observed, Settings};
use super::*;
use crate::control::ControlError;

fn machine() -> Machine {
    Machine {
        host: HostId(1),
        name: "here".to_owned(),
        unix_us: 1_700_000_000_000_000,
        open_files_max: 1024,
        libzmq: "4.3.5".to_owned(),
        has_curve: true,
        libzmq_doubt: None,
    }
}

fn mapper(endpoint: &str) -> Mapper {
    Mapper {
        at: MapperAddress::of(&endpoint.parse().unwrap()),
        is_encrypted: true,
        unresolved: None,
        port: Probe::Reached,
        silence: None,
        heard: None,
    }
}

fn judged(mapper: Option<Mapper>, machine: Machine) -> Vec<Check> {
    let settings = Settings { unusable: None, file: None, variable: Vec::new() };
    let mappers = mapper.into_iter().collect();
    findings::all(&Observed { settings, mappers, known: None, machine, kept: Kept::default() })
}

fn found(checks: &[Check]) -> Vec<(&'static str, Level)> {
    checks.iter().filter_map(|check| Some((check.id?, check.level))).collect()
}

#[test]
fn a_libzmq_that_cannot_encrypt_fails_and_one_that_is_not_ours_is_told() {
    assert_eq!(found(&judged(None, machine())), []);
    let plain = Machine { has_curve: false, ..machine() };
    assert_eq!(found(&judged(None, plain)), [("D16", Level::Fail)]);
    let other = Machine { libzmq_doubt: Some("another build"), ..machine() };
    assert_eq!(found(&judged(None, other)), [("D16", Level::Warn)]);
}

#[test]
fn one_that_answers_only_in_part_is_slow_or_stopped() {
    let checks = judged(Some(mapper("tcp://10.0.0.5:5555")), machine());
    assert_eq!(found(&checks), [("D03", Level::Fail)]);
    let at: Endpoint = "tcp://10.0.0.5:5555".parse().unwrap();
    let silence = Some(ControlError::Poll("out of memory".to_owned()));
    let checks = judged(Some(Mapper { silence, ..mapper(at.as_str()) }), machine());
    assert_eq!(found(&checks), [("D03", Level::Fail)]);
}

#[test]
fn what_is_to_be_typed_on_another_machine_says_so() {
    let port = Probe::Failed("refused".to_owned());
    let checks = judged(Some(Mapper { port, ..mapper("tcp://10.0.0.5:5555") }), machine());
    let commands = &checks[0].remedy.as_ref().unwrap().commands;
    assert_eq!(commands[0], "on 10.0.0.5:  ss -ltn 'sport = :5555'");
    assert_eq!(commands[1], "on 10.0.0.5:  svcmap mapper --bind tcp://10.0.0.5:5555");
}

#[test]
fn what_others_wrote_moves_no_cursor() {
    let remedy = Remedy::new("text").command("kill\u{1b}[2J");
    let mut check = Check::found("group\n", (Level::Warn, "D99"), "said\u{1b}[2J\nfake", remedy);
    render::make_printable(&mut check);
    let screen = render::screen(&[check], true);
    assert!(!screen.contains("\u{1b}[2J") && screen.lines().count() == 5, "{screen}");
}

/// Instances of one service, and whether each was reached.
fn report(all: &[(&str, bool)]) -> Report {
    let entries = all.iter().map(|(instance, _)| {
        let key =
            InstanceKey { service: "a".parse().unwrap(), instance: instance.parse().unwrap() };
        let entry = Entry {
            instance: key.instance.clone(),
            incarnation: Incarnation(1),
            endpoints: vec![Endpoint::tcp("127.0.0.1", 7).unwrap()],
            host: HostId(1),
            pid: 1,
            load: Load::default(),
            age_ms: 10,
            error: None,
            key: None,
        };
        (key, entry)
    });
    let entries: Vec<_> = entries.collect();
    let entries = entries.iter().map(|(key, entry)| (key, entry));
    let services = [entries.clone().next().unwrap().0.service.clone()].into();
    let mut report = Report::new(Vec::new(), true, services, entries, std::iter::empty());
    for (row, (_, is_reached)) in report.instances.iter_mut().zip(all) {
        row.reachable = Some(*is_reached);
        row.unreachable = (!is_reached).then(|| "tcp://127.0.0.1:7: refused".to_owned());
    }
    report.count_reached();
    report
}

#[test]
fn who_is_not_reached_once_may_be_ending_and_twice_is_missed() {
    let first = report(&[("ended", false), ("gone", false), ("well", true)]);
    let mut second = report(&[("ending", false), ("gone", false), ("well", false)]);
    let found = |second: &Report| {
        let second = workers::without_passing(&first, second.clone());
        let reached: Vec<_> = second.instances.iter().map(|row| row.reachable).collect();
        (reached, second.services[0].unreachable)
    };
    assert_eq!(found(&second), (vec![None, Some(false), None], Some(1)));
    second.instances[1].incarnation += 1;
    assert_eq!(found(&second), (vec![None; 3], None));
}
