//! `svcmap status`: what the mappers know of services and their instances.

pub(crate) mod reach;
pub(crate) mod render;

use std::process::ExitCode;
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_proto::names::{MapperAddress, Name};
pub use svcmap_proto::status::{InstanceRow, MapperRow, Report, ServiceRow, Shown};
use svcmap_proto::time::Timestamp;

pub use render::{Screen, instances, services};
pub(crate) use render::{mapper_warning, mappers, why_not_ready};

use crate::access::Access;
use crate::cli::StatusArgs;
use crate::control::{self, Answer, ControlError, PATIENCE, Question, Scope, View, Wait};
use crate::errors::{Error, Failure, print_out};
use crate::fleet::command::Target;
use crate::fleet::io::client::with_what_is_kept;
use crate::io::{pause_until, stdout_columns};
use crate::parse::Wanted;
use crate::text::{some_of, time};

/// Time between two questions while waiting for a condition: short for people, long for a mapper.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// How alike two names have to be (Jaro-Winkler, 0 to 1) for one to be a slip of the other.
const SIMILAR: f64 = 0.8;

/// Asks the mappers, waits if wanted, and prints.
///
/// # Errors
/// With exit code 69 if no mapper answers, nobody serves the service or the wait was in vain.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Error> {
    let access = args.mapper.access()?;
    let mut report = if args.wait.is_empty() {
        ask(&access, args.of.as_ref().map(Target::name), PATIENCE).map_err(Failure::from)?
    } else {
        wait(&access, args, Clock.now() + args.timeout)?
    };
    if let Some(of) = &args.of {
        expect(of, &report).map_err(|failure| with_what_is_kept(failure, of, &access))?;
        // All are tried: the sums are those of the service.
        reach::try_all(&mut report);
        report.retain_instance(of.instance());
    }
    let width = stdout_columns();
    let screen = Screen { width, bars: width.is_some() };
    print_out(&match &args.of {
        _ if args.json => report.to_json(),
        Some(of) => instances(&report, of.name(), screen),
        None => services(&report, screen),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// There is such a service, and such an instance of it.
///
/// # Errors
/// If there is not.
pub(crate) fn expect(of: &Target, report: &Report) -> Result<(), Failure> {
    let service = of.name();
    let mut rows = report.instances.iter().filter(|row| row.service == *service).peekable();
    if rows.peek().is_none() {
        return Err(unknown_service(service, report));
    }
    match of.instance() {
        Some(instance) if !rows.any(|row| row.instance == *instance) => {
            let message = format!("`{service}` has no instance `{instance}`");
            Err(Failure::unavailable(message).fix(format!("svcmap status {service}")))
        }
        _ => Ok(()),
    }
}

/// Asks the mappers for one service, or for everything.
///
/// # Errors
/// See [`ControlError`].
pub fn ask(
    access: impl Into<Access>,
    service: Option<&Name>,
    patience: Duration,
) -> Result<Report, ControlError> {
    let scope = service.cloned().map_or(Scope::Everything, Scope::Service);
    let view = control::ask(access, &Question { scope, ..Question::default() }, patience)?;
    Ok(report(&view, service))
}

/// Asks the mappers for one service, and waits no longer once one lists an instance of it, or that
/// instance.
///
/// # Errors
/// See [`ControlError`].
pub fn find(
    access: &Access,
    service: &Name,
    instance: Option<&Name>,
    patience: Duration,
) -> Result<Report, ControlError> {
    let (scope, wait) = (Scope::Service(service.clone()), Wait::Found(instance.cloned()));
    let view = control::ask(access, &Question { scope, wait, ..Question::default() }, patience)?;
    Ok(report(&view, Some(service)))
}

/// The facts of a view; of one service only, if one is named.
pub(crate) fn report(view: &View, service: Option<&Name>) -> Report {
    let mappers = view.mappers.iter().map(|mapper| {
        let (answer, warming) = match mapper.answer {
            Answer::Complete { warming } => ("complete", warming),
            Answer::Partial => ("partial", false),
            Answer::Silent => ("silent", false),
            Answer::WrongVersion(..) => ("wrong version", false),
        };
        let (MapperAddress { named, address: endpoint }, refused) =
            (mapper.at.clone(), mapper.refused);
        let name = (named != endpoint).then_some(named);
        MapperRow { endpoint, name, answer, warming, refused }
    });
    let entries = view.instances.iter();
    let (services, activity) = (view.services.clone(), view.activity.values());
    let report = Report::new(mappers.collect(), view.agree, services, entries, activity);
    Report { denied: view.denied.clone(), ..report }.only(service)
}

/// Asks again and again until all conditions hold. A mapper that is not there yet may come.
fn wait(access: &Access, args: &StatusArgs, deadline: Timestamp) -> Result<Report, Failure> {
    loop {
        let now = Clock.now();
        let patience = PATIENCE.min(deadline.since(now)).max(ASK_INTERVAL);
        let last = match ask(access, None, patience) {
            Ok(report) => match unmet(&args.wait, &report) {
                None => return Ok(report.only(args.of.as_ref().map(Target::name))),
                Some(failure) => failure.message_after(args.timeout),
            },
            Err(error) if error.may_pass() => error.into(),
            Err(error) => return Err(error.into()),
        };
        if Clock.now() >= deadline {
            return Err(last);
        }
        pause_until(deadline.min(now + ASK_INTERVAL));
    }
}

/// A condition that does not hold yet.
struct Unmet<'a> {
    wanted: &'a Wanted,
    ready: usize,
}

/// The first condition that does not hold.
fn unmet<'a>(conditions: &'a [Wanted], report: &Report) -> Option<Unmet<'a>> {
    conditions.iter().find_map(|wanted| {
        let ready = report.service(&wanted.service).map_or(0, |row| row.ready);
        (ready < wanted.ready).then_some(Unmet { wanted, ready })
    })
}

impl Unmet<'_> {
    fn message_after(&self, timeout: Duration) -> Failure {
        let Self { wanted, ready } = self;
        let timeout = time(timeout);
        Failure::unavailable(format!("still not {wanted} after {timeout}: {ready} ready"))
            .fix(format!("svcmap status {}", wanted.service))
    }
}

/// The error for a service that nobody serves, with what may have been meant.
pub fn unknown_service(service: &Name, report: &Report) -> Failure {
    if report.denied.contains(service) {
        let message = format!("this deployment file has nothing to do with `{service}`");
        return Failure::failed(message).fix("svcmap key list");
    }
    let known: Vec<&str> = report.known.iter().map(Name::as_str).collect();
    let others: Vec<&str> =
        known.iter().copied().filter(|name| *name != service.as_str()).collect();
    let mut message = format!("no worker serves `{service}`");
    if !others.is_empty() {
        message += &format!("; known: {}", some_of(&others));
    }
    if report.mappers.iter().any(|mapper| mapper.warming) {
        message += "\nthe mapper has just started and may not know everybody yet";
    }
    let similar = others
        .iter()
        .map(|name| (likeness(name, service.as_str()), *name))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Failure::unavailable(message).fix(match similar {
        Some((_, name)) => format!("svcmap status {name}"),
        None => format!("svcmap worker --service {service} …"),
    })
}

/// How much two names are alike, from 0 to 1. One slip of a finger makes more of a difference to a
/// short name than it should.
fn likeness(a: &str, b: &str) -> f64 {
    if strsim::osa_distance(a, b) <= 1 { 1.0 } else { strsim::jaro_winkler(a, b) }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
