//! `svcmap drain`: instances are told by their mapper to finish their jobs and to end.

use std::process::ExitCode;

use svcmap_proto::control::DrainAnswer;
use svcmap_proto::io::{Clock, look_up_all};
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::status::{self, InstanceRow, Shown};
use crate::access::Access;
use crate::cli::DrainArgs;
use crate::control::{ControlError, PATIENCE, ask_to_drain};
use crate::errors::{Error, Failure, print_out};
use crate::io::pause_until;
use crate::text::time;

/// Time between two looks at whether they are gone.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// Tells all of them, and waits until nobody lists them.
///
/// # Errors
/// If one cannot be told, or takes longer.
pub fn run(args: &DrainArgs) -> Result<ExitCode, Error> {
    let access = args.mapper.access()?;
    let begun = Clock.now();
    let mut known = Vec::new();
    for key in &args.instances {
        let pid = listed(&access, key).map_err(Failure::from)?.map(|row| row.pid);
        tell(&access, key)?;
        print_out(&format!("{}\n", told(key)))?;
        known.push((key, pid));
    }
    for (key, pid) in known {
        wait(&access, (key, pid), begun + args.timeout)?;
        print_out(&format!("{key} is gone after {}\n", time(Clock.now().since(begun))))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be said of an instance that was told.
pub(super) fn told(key: &InstanceKey) -> String {
    format!("{key} takes no more jobs and finishes what it has")
}

/// Tells it to an instance. One mapper that lists it is enough.
pub(super) fn tell(access: &Access, key: &InstanceKey) -> Result<(), Failure> {
    let mut answers = Vec::new();
    for mapper in look_up_all(&access.mappers) {
        match ask_to_drain(&mapper, access.deployment.as_ref(), key, PATIENCE) {
            Ok(DrainAnswer::Told) => return Ok(()),
            answer => answers.push(answer),
        }
    }
    // What was answered says more than that nobody answered.
    answers.sort_by_key(|answer| match answer {
        Ok(DrainAnswer::CannotBeTold) => 0,
        Ok(DrainAnswer::NotAllowed) => 1,
        Ok(_) => 2,
        Err(_) => 3,
    });
    Err(match answers.into_iter().next() {
        Some(answer) => failure(key, answer),
        None => Failure::usage("no mapper is named"),
    })
}

fn failure(key: &InstanceKey, answer: Result<DrainAnswer, ControlError>) -> Failure {
    match answer {
        Err(error) => error.into(),
        Ok(DrainAnswer::CannotBeTold) => {
            Failure::failed(format!("{key} speaks JSON, in which a mapper cannot tell it anything"))
                .fix("end its process with SIGTERM")
        }
        Ok(DrainAnswer::NotAllowed) => {
            Failure::failed(format!("only an operator for `{}` may end {key}", key.service))
                .fix("svcmap key list shows who is one")
        }
        Ok(DrainAnswer::Unknown | DrainAnswer::Told) => {
            Failure::unavailable(format!("no mapper lists {key}"))
                .fix(format!("svcmap status {}", key.service))
        }
    }
}

/// What the mappers list of it.
fn listed(access: &Access, key: &InstanceKey) -> Result<Option<InstanceRow>, ControlError> {
    let report = status::ask(access, Some(&key.service), PATIENCE)?;
    Ok(report.instances.into_iter().find(|row| row.instance == key.instance))
}

/// Until the process is gone that had that name; another one may have it by then.
fn wait(
    access: &Access,
    (key, pid): (&InstanceKey, Option<u32>),
    until: Timestamp,
) -> Result<(), Failure> {
    loop {
        let found = listed(access, key);
        let is_over = Clock.now() >= until;
        match found {
            Ok(None) => return Ok(()),
            Ok(Some(row)) if Some(row.pid) != pid => return Ok(()),
            Ok(Some(InstanceRow { running, queued, .. })) if is_over => {
                let text = format!("{key} is still there: {running} running, {queued} queued");
                let fix = "wait longer: --timeout 10m; or kill its process";
                return Err(Failure::failed(text).fix(fix));
            }
            // It may have been lost with a connection.
            Ok(Some(row)) if row.state != Shown::Draining => drop(tell(access, key)),
            Ok(Some(_)) => {}
            Err(error) if is_over => return Err(error.into()),
            // A mapper that does not answer now may answer soon.
            Err(_) => {}
        }
        pause_until(Clock.now() + LOOK_INTERVAL);
    }
}
