//! From what was seen to what is wrong with it: settings, mappers and this host. Pure.

use svcmap_proto::codec;
use svcmap_proto::control::Refused;
use svcmap_proto::io::Probe;
use svcmap_proto::names::{Endpoint, MapperAddress};

use super::observed::{Heard, Machine, Mapper, Observed, Settings};
use super::{Check, Level, Remedy, kept, workers};
use crate::commands::status::reach::SILENT;
use crate::control::{Answer, ControlError, View};
use crate::errors::Failure;
use crate::parse::MAPPER_VARIABLE;
use crate::text::{count, some_of, time};

/// Fewer open files than this are soon used up by whoever sends or serves.
const OPEN_FILES_MIN: u64 = 256;

/// Files that a process has open beside its connections.
const OPEN_FILES_BESIDE: u64 = 64;

/// What a failure says to do is a command if it begins so.
const COMMANDS: [&str; 5] = ["chmod", "export", "ls", "svcmap", "ulimit"];

const SETTINGS: &str = "settings";
const HOST: &str = "this host";

/// All that there is to say.
pub(super) fn all(observed: &Observed) -> Vec<Check> {
    let mut checks = settings(&observed.settings);
    for mapper in &observed.mappers {
        let view = observed.known.as_ref().map(|(view, _)| view);
        checks.extend(one_mapper(mapper, view.and_then(|view| told(view, &mapper.at))));
    }
    if let Some((view, report)) = &observed.known {
        checks.extend(agreement(view));
        checks.extend(workers::all(view, report, &observed.machine));
    }
    checks.extend(kept::all(&observed.kept, observed.known.as_ref().map(|(view, _)| view)));
    let instances = observed.known.as_ref().map_or(0, |(view, _)| view.instances.len());
    checks.extend(this_host(&observed.machine, instances));
    checks
}

/// What a failure of ours says of itself, as a finding.
fn failure(group: &str, finding: (Level, &'static str), failure: &Failure, text: &str) -> Check {
    let is_command = |fix: &str| COMMANDS.contains(&fix.split(' ').next().unwrap_or_default());
    let remedy = match failure.fix.as_deref() {
        Some(fix) if is_command(fix) => Remedy::new(text).command(fix),
        Some(fix) => Remedy::new(format!("{text} To mend it: {fix}.")),
        None => Remedy::new(text),
    };
    Check::found(group, finding, &failure.message, remedy)
}

fn settings(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    let level = if settings.unusable.is_some() { Level::Fail } else { Level::Warn };
    let Some(file) = &settings.file else {
        if let Some(unusable) = &settings.unusable {
            let text = "Nothing can be asked with these settings.";
            checks.push(failure(SETTINGS, (Level::Fail, "D10"), unusable, text));
        }
        return checks;
    };
    let path = file.path.display();
    let known = match &file.mappers {
        Ok(known) => known,
        Err(error) => {
            let text = "The deployment file is of no use as it is.";
            return vec![failure(SETTINGS, (level, "D09"), error, text)];
        }
    };
    match settings.variable.iter().find(|mapper| !known.contains(mapper)) {
        Some(mapper) => {
            let message = format!("{MAPPER_VARIABLE} names {mapper}, which {path} does not know");
            let text = "The variable goes over the file. Unset it, or add the mapper to the file.";
            let remedy = Remedy::new(text).command(format!("unset {MAPPER_VARIABLE}"));
            checks.push(Check::found(SETTINGS, (level, "D10"), message, remedy));
        }
        None => {
            if let Some(unusable) = &settings.unusable {
                let text = "Nothing can be asked with these settings.";
                checks.push(failure(SETTINGS, (Level::Fail, "D10"), unusable, text));
            }
        }
    }
    if checks.is_empty() && file.is_used {
        checks.push(Check::ok(SETTINGS, format!("{path} is used, only its owner can read it")));
    }
    checks
}

/// How far a mapper told what it was asked, and what it has refused.
fn told(view: &View, at: &MapperAddress) -> Option<(Answer, Refused)> {
    view.mappers
        .iter()
        .find(|mapper| mapper.at == *at)
        .map(|mapper| (mapper.answer, mapper.refused))
}

fn one_mapper(mapper: &Mapper, told: Option<(Answer, Refused)>) -> Vec<Check> {
    let group = format!("mapper {}", mapper.at);
    if let Some(check) = unreached(&group, mapper) {
        return vec![check];
    }
    let Some(heard) = &mapper.heard else { return vec![unheard(&group, mapper)] };
    let mut checks = vec![answers(&group, mapper, heard), publishes(&group, mapper, heard)];
    if let Some((Answer::Complete { warming: true }, _)) = told {
        let said = "has just started: others may still register";
        checks.push(Check::ok(&group, said));
    }
    let Refused { registrations, messages } = told.map_or_else(Refused::default, |told| told.1);
    if registrations + messages > 0 {
        let message = format!(
            "has refused {} and {} since its start",
            count(registrations, "registration"),
            count(messages, "bad message")
        );
        let text = "Its log says whose, and why: a clock that is wrong, a key that may not serve, a \
                    full registry. Builds of other versions send bad messages.";
        checks.push(Check::found(&group, (Level::Warn, "D12"), message, Remedy::new(text)));
    }
    checks
}

/// Why nobody is met at that address, if so.
fn unreached(group: &str, mapper: &Mapper) -> Option<Check> {
    let Mapper { at: MapperAddress { address: endpoint, .. }, unresolved, port, .. } = mapper;
    let host = endpoint.host();
    if let Some(error) = unresolved {
        let text = "Correct the name, or name the mappers by their addresses. It is looked up again by \
                    workers and clients.";
        let remedy = Remedy::new(text).command(format!("getent hosts {host}"));
        let message = format!("the name {host} leads nowhere: {error}");
        return Some(Check::found(group, (Level::Fail, "D01"), message, remedy));
    }
    Some(match port {
        Probe::Reached | Probe::Untried => return None,
        Probe::Failed(error) => {
            let text = "No mapper runs there, or a firewall is between.";
            let start = there(endpoint, &format!("svcmap mapper --bind {endpoint}"));
            let look = there(endpoint, &listening(endpoint));
            let remedy = Remedy::new(text).command(look).command(start);
            let message = format!("nobody answers from here: {error}");
            Check::found(group, (Level::Fail, "D02"), message, remedy)
        }
        Probe::Silent => stopped(group, endpoint, SILENT),
    })
}

fn stopped(group: &str, endpoint: &Endpoint, message: &str) -> Check {
    let text =
        "The process there is stopped (kill -CONT), out of files (its log says so), or no mapper.";
    let port = endpoint.port().unwrap_or(0);
    let remedy = Remedy::new(text).command(there(endpoint, &format!("ss -ltnp 'sport = :{port}'")));
    Check::found(group, (Level::Fail, "D03"), message, remedy)
}

/// Who greets there, and then tells nothing.
fn unheard(group: &str, mapper: &Mapper) -> Check {
    let Some(error) = &mapper.silence else {
        return stopped(
            group,
            &mapper.at.address,
            "greets, and does not answer everything in time",
        );
    };
    let (id, text) = match error {
        ControlError::WrongVersion { .. } => {
            ("D05", "All builds of one deployment speak one version.")
        }
        ControlError::WantsKeys { .. } => ("D06", "Everything is encrypted there."),
        ControlError::KeyRefused { .. } => {
            ("D07", "Whoever runs the mapper knows: svcmap key list.")
        }
        ControlError::NotEncrypted { .. } => ("D08", "Nothing is sent to it in plain text."),
        _ => {
            let said = "greets, and says nothing that a mapper says";
            return stopped(group, &mapper.at.address, said);
        }
    };
    let said = Failure::from(error.clone());
    failure(group, (Level::Fail, id), &said, text)
}

fn answers(group: &str, mapper: &Mapper, heard: &Heard) -> Check {
    let version = codec::VERSION;
    let keys = if mapper.is_encrypted { "takes our key" } else { "in plain text" };
    Check::ok(
        group,
        match heard.round_trip {
            Some(took) => format!("answers in {}, protocol version {version}, {keys}", time(took)),
            None => format!("answers, protocol version {version}, {keys}"),
        },
    )
}

fn publishes(group: &str, mapper: &Mapper, heard: &Heard) -> Check {
    let Heard { publish, is_published, awaited, .. } = heard;
    if *is_published {
        return Check::ok(group, format!("publishes at {publish}"));
    }
    let message = format!("nothing comes from {publish} (subscribed for {})", time(*awaited));
    let text = "Nothing listens there, or a firewall drops it: it is a second port. Senders ask each \
                beat instead, and know less.";
    let remedy = Remedy::new(text).command(there(&mapper.at.address, &listening(publish)));
    Check::found(group, (Level::Fail, "D04"), message, remedy)
}

/// Whether anybody listens at that port, asked on its machine.
fn listening(endpoint: &Endpoint) -> String {
    let port = endpoint.port().unwrap_or(0);
    format!("ss -ltn 'sport = :{port}'")
}

/// A command that is to be typed on another machine, if it is another.
fn there(endpoint: &Endpoint, command: &str) -> String {
    match endpoint.is_loopback() {
        true => command.to_owned(),
        false => format!("on {}:  {command}", endpoint.host()),
    }
}

/// Which mappers list whom, if not all the same.
fn agreement(view: &View) -> Vec<Check> {
    let group = "mappers";
    let complete = view.mappers.iter().zip(&view.listings);
    let complete = complete.filter(|(it, _)| it.answer.is_complete());
    let complete: Vec<_> = complete.collect();
    if complete.len() < 2 {
        return Vec::new();
    }
    let mut checks = Vec::new();
    for (mapper, listing) in &complete {
        let lacks = view.instances.iter().filter(|(key, entry)| {
            listing.instances.get(*key).is_none_or(|own| own.incarnation != entry.incarnation)
        });
        let lacks: Vec<String> =
            lacks.map(|(key, _)| format!("{}/{}", key.service, key.instance)).collect();
        if !lacks.is_empty() {
            let message = format!(
                "{} lacks {} that others list: {}",
                mapper.at,
                count(lacks.len(), "instance"),
                some_of(&lacks)
            );
            let text = "They were started with other mappers, or cannot reach this one. Start each with \
                        all mappers.";
            let remedy = Remedy::new(text).command("svcmap worker --mapper ENDPOINT,ENDPOINT …");
            checks.push(Check::found(group, (Level::Warn, "D11"), message, remedy));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(group, format!("all {} list the same instances", complete.len())));
    }
    checks
}

fn this_host(machine: &Machine, instances: usize) -> Vec<Check> {
    let max = machine.open_files_max;
    let connections = u64::try_from(instances).unwrap_or(u64::MAX);
    let needed =
        OPEN_FILES_MIN.max(connections.saturating_mul(2).saturating_add(OPEN_FILES_BESIDE));
    let files = match max >= needed {
        true => Check::ok(HOST, format!("may open {max} files")),
        false => {
            let message = format!("may open {max} files only, and {needed} are wanted");
            let text = "Each connection is a file. Raise the limit before programs are started.";
            let remedy = Remedy::new(text).command("ulimit -n 65536");
            Check::found(HOST, (Level::Fail, "D15"), message, remedy)
        }
    };
    vec![files, libzmq(machine)]
}

fn libzmq(machine: &Machine) -> Check {
    let version = &machine.libzmq;
    let text = "Build svcmap with the libzmq that comes with it.";
    match (machine.has_curve, machine.libzmq_doubt) {
        (false, _) => {
            let message = format!("libzmq {version} cannot encrypt");
            Check::found(HOST, (Level::Fail, "D16"), message, Remedy::new(text))
        }
        (true, Some(doubt)) => Check::found(HOST, (Level::Warn, "D16"), doubt, Remedy::new(text)),
        (true, None) => Check::ok(HOST, format!("libzmq {version} with curve")),
    }
}
