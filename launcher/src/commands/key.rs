//! `svcmap key`: who may take part in a deployment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use svcmap_proto::control::{KeyAnswer, KeyRefusal, KeyRequest};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::curve::new_keys;
use svcmap_proto::io::{Clock, look_up_all};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{Endpoint, MapperAddress};
use svcmap_proto::principals::Principal;

use crate::access::{Access, unusable};
use crate::cli::{AddArgs, KeyArgs, KeyCommand, RotateArgs};
use crate::control::{ControlError, PATIENCE, ask_for_keys, ask_for_principals};
use crate::errors::{Error, Failure, print_note, print_out};
use crate::io::stdout_columns;
use crate::table::{Cell, Column, render};
use crate::text::time;

/// Does what is wanted at every mapper.
///
/// # Errors
/// If one of them does not do it, or there are no keys.
pub fn run(args: &KeyArgs) -> Result<ExitCode, Error> {
    let deployment = deployment(args)?;
    match &args.command {
        KeyCommand::List { json } => list(&deployment, *json)?,
        KeyCommand::Add(add) => add_key(&deployment, add)?,
        KeyCommand::Rotate(rotate) => rotate_key(&deployment, rotate)?,
        KeyCommand::Revoke { name } => {
            let revoke = KeyRequest::Revoke { name: name.clone() };
            change(&deployment, &revoke).without_unknown().check()?;
            print_note(&format!("{name} is shut out, at once and for good"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn deployment(args: &KeyArgs) -> Result<Deployment, Failure> {
    let Access { deployment, .. } = args.keys().access_to(Vec::new())?;
    deployment.ok_or_else(|| {
        Failure::usage("there is no deployment file: in plain text there are no keys")
            .fix("svcmap mapper --bind tcp://0.0.0.0:5555 makes one, or name it: --deployment FILE")
    })
}

/// All mappers that the file knows.
fn mappers(deployment: &Deployment) -> Vec<MapperAddress> {
    let named: Vec<_> = deployment.mappers.iter().map(|known| known.address.clone()).collect();
    look_up_all(&named)
}

/// What became of it at the mappers.
#[derive(Default)]
struct Outcome {
    done: Vec<MapperAddress>,
    refused: Vec<(MapperAddress, KeyRefusal)>,
    /// Those that have not answered, and that may have done it all the same.
    silent: Vec<(MapperAddress, ControlError)>,
}

/// Says it to every mapper. It may be said again: who has done it already does nothing more.
fn change(deployment: &Deployment, request: &KeyRequest) -> Outcome {
    let mut outcome = Outcome::default();
    for at in mappers(deployment) {
        match ask_for_keys(&at, deployment, request, PATIENCE) {
            Ok(KeyAnswer::Refused(refusal)) => outcome.refused.push((at, refusal)),
            Ok(KeyAnswer::Done | KeyAnswer::Listed { .. }) => outcome.done.push(at),
            Err(error) => outcome.silent.push((at, error)),
        }
    }
    outcome
}

impl Outcome {
    /// Who is not there is shut out as well, if he was anywhere.
    fn without_unknown(mut self) -> Self {
        let is_unknown =
            |(_, refusal): &(MapperAddress, KeyRefusal)| *refusal == KeyRefusal::Unknown;
        if !self.done.is_empty() || !self.silent.is_empty() {
            self.refused.retain(|refused| !is_unknown(refused));
        }
        self
    }

    /// Whether no mapper has done it, or may have.
    fn is_nothing(&self) -> bool {
        self.done.is_empty() && self.silent.is_empty()
    }

    /// Nothing if all have done it; else who has, and who has not, and what to do.
    fn check(self) -> Result<(), Failure> {
        let Self { mut done, refused, silent } = self;
        let done = match done.len() {
            0 => "done nowhere".to_owned(),
            _ => {
                done.sort();
                format!("done at {}", joined(&done))
            }
        };
        if let Some((at, refusal)) = refused.into_iter().next() {
            return Err(refused_at(&at, refusal, &done));
        }
        let Some((_, error)) = silent.first() else { return Ok(()) };
        let silent: Vec<_> = silent.iter().map(|(at, _)| at.clone()).collect();
        let message = format!("{done}; {} may have done it or not: {error}", joined(&silent));
        Err(Failure::unavailable(message).fix("the same command again, once all of them answer"))
    }
}

fn joined(mappers: &[MapperAddress]) -> String {
    mappers.iter().map(MapperAddress::to_string).collect::<Vec<_>>().join(", ")
}

fn refused_at(mapper: &MapperAddress, refusal: KeyRefusal, done: &str) -> Failure {
    let failure = Failure::failed(format!("{mapper}: {refusal} ({done})"));
    match refusal {
        KeyRefusal::NotOperator | KeyRefusal::Beyond | KeyRefusal::Oneself => {
            failure.fix("--deployment FILE of another operator; svcmap key list shows who you are")
        }
        KeyRefusal::Taken => failure.fix("another name; or svcmap key rotate NAME --output NEW"),
        KeyRefusal::Rotating => {
            failure.fix("svcmap key revoke NAME ends both; then svcmap key add NAME")
        }
        KeyRefusal::Unknown | KeyRefusal::Full | KeyRefusal::Revoked => {
            failure.fix("svcmap key list")
        }
        KeyRefusal::LastOperator => failure.fix("svcmap key add NAME --role operator"),
        KeyRefusal::NoKeys | KeyRefusal::NotKept => failure,
    }
}

fn add_key(deployment: &Deployment, args: &AddArgs) -> Result<(), Failure> {
    let AddArgs { name, role, services, output } = args;
    let path = output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let services_text = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let holder = format!("{name}, {role} of {services_text}");
    with_file(deployment, &path, &holder, |key| {
        let (name, role, services) = (name.clone(), *role, services.clone());
        let principal = Principal { name, role, services, key, ends_at_unix_s: None };
        change(deployment, &KeyRequest::Add(principal))
    })?;
    print_note(&format!(
        "{name} takes part as {role}, with {}\n\
         {} is the deployment file: copy it there as ~/.config/svcmap/svcmap.toml, and remove it here",
        if services_text == "*" { "all services" } else { &services_text },
        path.display(),
    ));
    Ok(())
}

fn rotate_key(deployment: &Deployment, args: &RotateArgs) -> Result<(), Failure> {
    let RotateArgs { name, keep, output } = args;
    let path = output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.new.toml")));
    with_file(deployment, &path, name.as_str(), |key| {
        let keep_s = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX);
        change(deployment, &KeyRequest::Rotate { name: name.clone(), key, keep_s })
    })?;
    let former = match keep.as_secs() {
        0 => "good no more".to_owned(),
        _ => format!("good for {}", time(*keep)),
    };
    print_note(&format!(
        "{name} has another key; the former one is {former}\n\
         {} is the deployment file from now on: copy it to where the former is, start anew what has that, \
         and remove it here",
        path.display(),
    ));
    Ok(())
}

/// Makes a deployment file with a new key, which `enter` makes known to the mappers; or goes on with the
/// one that is there, if some mapper did not answer before. There is none afterwards if none takes it.
fn with_file(
    deployment: &Deployment,
    path: &Path,
    holder: &str,
    enter: impl FnOnce(PublicKey) -> Outcome,
) -> Result<(), Failure> {
    let mappers = || deployment.mappers.clone();
    let there = Deployment::load(path).ok().filter(|there| there.mappers == mappers());
    let is_new = there.is_none();
    let key = match there {
        Some(there) => there.own.public,
        None => {
            let own = new_keys().map_err(|_| Failure::failed("this libzmq cannot encrypt"))?;
            let key = own.public;
            // Before anybody knows it: a key that nobody has is of no use.
            let made = Deployment { own, mappers: mappers() }.create(path, holder);
            made.map_err(|error| unusable(&error).fix("--output FILE, elsewhere"))?;
            key
        }
    };
    let outcome = enter(key);
    if is_new && outcome.is_nothing() {
        // It is ours, a moment old, and good for nothing.
        let _ = std::fs::remove_file(path);
    }
    outcome.check()
}

/// A principal, and the mappers that do not know it.
struct Row {
    principal: Principal,
    missing_at: Vec<Endpoint>,
}

fn list(deployment: &Deployment, is_json: bool) -> Result<(), Error> {
    let mut rows: Vec<Row> = Vec::new();
    let mut heard: Vec<(MapperAddress, Vec<Principal>)> = Vec::new();
    let mut silent = Vec::new();
    for at in mappers(deployment) {
        match ask_for_principals(&at, deployment, PATIENCE) {
            Ok(Ok(all)) => heard.push((at, all)),
            Ok(Err(KeyAnswer::Refused(refusal))) => {
                return Err(refused_at(&at, refusal, "nothing is listed").into());
            }
            Ok(Err(_)) => {}
            Err(error) => silent.push((at, error)),
        }
    }
    for (at, error) in silent {
        if heard.is_empty() {
            return Err(Failure::from(error).into());
        }
        print_note(&format!("! what {at} has is not among these: {error}"));
    }
    for (_, principals) in &heard {
        for principal in principals {
            if rows.iter().any(|row| row.principal.key == principal.key) {
                continue;
            }
            let lacks = |(_, all): &&(MapperAddress, Vec<Principal>)| {
                all.iter().all(|other| other.key != principal.key)
            };
            let missing_at = heard.iter().filter(lacks).map(|(at, _)| at.address.clone()).collect();
            rows.push(Row { principal: principal.clone(), missing_at });
        }
    }
    let now_s = Clock.unix_us() / 1_000_000;
    print_out(&if is_json { to_json(&rows) } else { to_table(&rows, now_s) })
}

fn to_json(rows: &[Row]) -> String {
    let row = |Row { principal, missing_at }: &Row| {
        json!({
            "name": principal.name,
            "role": principal.role,
            "services": principal.services,
            "key": principal.key,
            "ends_at_unix_s": principal.ends_at_unix_s,
            "missing_at": missing_at,
        })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    format!("{}\n", json!({ "principals": rows }))
}

fn to_table(rows: &[Row], now_s: u64) -> String {
    let mut columns = vec![
        Column::text("NAME"),
        Column::text("ROLE"),
        Column::text("SERVICES"),
        Column::text("KEY").leaving(1),
    ];
    let has_end = rows.iter().any(|row| row.principal.ends_at_unix_s.is_some());
    columns.extend(has_end.then_some(Column::text("ENDS IN")));
    let has_missing = rows.iter().any(|row| !row.missing_at.is_empty());
    columns.extend(has_missing.then_some(Column::text("MISSING AT")));
    let cells = |Row { principal, missing_at }: &Row| -> Vec<Cell> {
        let ends =
            principal.ends_at_unix_s.map(|at| time(Duration::from_secs(at.saturating_sub(now_s))));
        let missing: Vec<_> = missing_at.iter().map(Endpoint::as_str).collect();
        let mut cells: Vec<Cell> = vec![
            principal.name.to_string().into(),
            principal.role.to_string().into(),
            principal.services_text().into(),
            principal.key.to_string().into(),
        ];
        cells.extend(has_end.then(|| ends.unwrap_or_default().into()));
        cells.extend(has_missing.then(|| missing.join(",").into()));
        cells
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    render(&columns, &rows, stdout_columns())
}
