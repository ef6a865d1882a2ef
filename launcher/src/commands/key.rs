//! `svcmap key`: who may take part in a deployment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use svcmap_proto::control::{KeyAnswer, KeyRefusal, KeyRequest};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::Clock;
use svcmap_proto::io::curve::new_keys;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{Endpoint, Name};
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
            change(&deployment, &KeyRequest::Revoke { name: name.clone() })?;
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

/// Says it to every mapper: what one has done and another has not is said, and can be repeated.
fn change(deployment: &Deployment, request: &KeyRequest) -> Result<(), Failure> {
    for known in &deployment.mappers {
        let answer = ask_for_keys(&known.address, deployment, request, PATIENCE);
        match answer.map_err(|error| unheard(&known.address, error))? {
            KeyAnswer::Refused(refusal) => return Err(refused(&known.address, refusal)),
            KeyAnswer::Done | KeyAnswer::Listed { .. } => {}
        }
    }
    Ok(())
}

fn unheard(mapper: &Endpoint, error: ControlError) -> Failure {
    let failure = Failure::from(error);
    let message = format!("{}: nothing has changed at {mapper}", failure.message);
    Failure { message, ..failure }
}

fn refused(mapper: &Endpoint, refusal: KeyRefusal) -> Failure {
    let failure = Failure::failed(format!("{refusal} (the mapper at {mapper})"));
    match refusal {
        KeyRefusal::NotOperator => failure.fix("--deployment FILE of an operator"),
        KeyRefusal::Taken => failure.fix("another name, or svcmap key rotate NAME"),
        KeyRefusal::Unknown | KeyRefusal::Rotating | KeyRefusal::Full | KeyRefusal::Revoked => {
            failure.fix("svcmap key list")
        }
        KeyRefusal::LastOperator => failure.fix("svcmap key add NAME --role operator"),
        KeyRefusal::NoKeys | KeyRefusal::NotKept => failure,
    }
}

fn add_key(deployment: &Deployment, args: &AddArgs) -> Result<(), Failure> {
    let AddArgs { name, role, services, output } = args;
    let path = output.clone().unwrap_or_else(|| file_of(name));
    let services_text = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    with_new_file(deployment, &path, |key| {
        let (name, role, services) = (name.clone(), *role, services.clone());
        let principal = Principal { name, role, services, key, ends_at_unix_s: None };
        change(deployment, &KeyRequest::Add(principal))
    })?;
    print_note(&format!(
        "{name} takes part as {role}, with {}\n\
         {} is his deployment file: copy it to him as ~/.config/svcmap/svcmap.toml",
        if services_text == "*" { "all services" } else { &services_text },
        path.display(),
    ));
    Ok(())
}

fn rotate_key(deployment: &Deployment, args: &RotateArgs) -> Result<(), Failure> {
    let RotateArgs { name, keep, output } = args;
    let path = output.clone().unwrap_or_else(|| file_of(name));
    with_new_file(deployment, &path, |key| {
        let keep_s = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX);
        change(deployment, &KeyRequest::Rotate { name: name.clone(), key, keep_s })
    })?;
    print_note(&format!(
        "{name} has another key; the former one is good for {}\n\
         {} is his deployment file from now on: copy it to where the former is, and start anew what has that",
        time(*keep),
        path.display(),
    ));
    Ok(())
}

fn file_of(name: &Name) -> PathBuf {
    PathBuf::from(format!("{name}.toml"))
}

/// Makes a deployment file with a new key, which `enter` makes known to the mappers. There is none
/// afterwards if they do not take it.
fn with_new_file(
    deployment: &Deployment,
    path: &Path,
    enter: impl FnOnce(PublicKey) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let own = new_keys().map_err(|_| Failure::failed("this libzmq cannot encrypt"))?;
    let key = own.public;
    // Before anybody knows it: a key that nobody has is of no use.
    Deployment { own, mappers: deployment.mappers.clone() }
        .create(path)
        .map_err(|error| unusable(&error).fix("another name, or --output FILE"))?;
    enter(key).inspect_err(|_| {
        // It is ours, a moment old, and good for nothing.
        let _ = std::fs::remove_file(path);
    })
}

/// A principal, and the mappers that do not know it.
struct Row {
    principal: Principal,
    missing_at: Vec<Endpoint>,
}

fn list(deployment: &Deployment, is_json: bool) -> Result<(), Error> {
    let mut rows: Vec<Row> = Vec::new();
    let mut heard: Vec<(Endpoint, Vec<Principal>)> = Vec::new();
    let mut silent = None;
    for known in &deployment.mappers {
        match ask_for_principals(&known.address, deployment, PATIENCE) {
            Ok(Ok(all)) => heard.push((known.address.clone(), all)),
            Ok(Err(KeyAnswer::Refused(refusal))) => {
                return Err(refused(&known.address, refusal).into());
            }
            Ok(Err(_)) => {}
            Err(error) => silent = Some(Failure::from(error)),
        }
    }
    if let (Some(failure), true) = (silent, heard.is_empty()) {
        return Err(failure.into());
    }
    for (_, principals) in &heard {
        for principal in principals {
            if rows.iter().any(|row| row.principal.key == principal.key) {
                continue;
            }
            let lacks = |(_, all): &&(Endpoint, Vec<Principal>)| {
                all.iter().all(|other| other.key != principal.key)
            };
            let missing_at = heard.iter().filter(lacks).map(|(at, _)| at.clone()).collect();
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
