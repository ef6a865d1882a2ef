//! `svcmap drain`: instances are told by their mapper to finish their jobs and to end.

use std::process::ExitCode;

use svcmap_proto::control::DrainAnswer;
use svcmap_proto::io::Clock;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::status::{self, InstanceRow};
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
    for key in &args.instances {
        tell(&access, key)?;
        print_out(&format!("{}\n", told(key)))?;
    }
    for key in &args.instances {
        wait(&access, key, begun + args.timeout)?;
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
    for mapper in &access.mappers {
        match ask_to_drain(mapper, access.deployment.as_ref(), key, PATIENCE) {
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

fn wait(access: &Access, key: &InstanceKey, until: Timestamp) -> Result<(), Failure> {
    loop {
        // A mapper that does not answer now may answer soon.
        let row = match status::ask(access, Some(&key.service), PATIENCE) {
            Ok(report) => {
                let is_it = |row: &InstanceRow| row.instance == key.instance;
                report.instances.into_iter().find(is_it)
            }
            Err(error) if Clock.now() >= until => return Err(error.into()),
            Err(_) => continue,
        };
        let Some(row) = row else { return Ok(()) };
        if Clock.now() >= until {
            let (running, queued) = (row.running, row.queued);
            let text = format!("{key} is still there: {running} running, {queued} queued");
            return Err(
                Failure::failed(text).fix("wait longer: --timeout 10m; or kill its process")
            );
        }
        pause_until(Clock.now() + LOOK_INTERVAL);
    }
}
