//! `svcmap mapper`: a standalone mapper.

mod http;
mod keys;
mod systemd;

use std::process::ExitCode;
use std::time::Duration;

use slog::{Logger, info};
use svcmap_mapper::{Mapper, StartError};
use svcmap_proto::names::Endpoint;

use crate::cli::MapperArgs;
use crate::errors::{Error, Failure, print_first_line};
use crate::http::{Listener, suffix};
use crate::io::{StopSignals, end_with_parent, raise_open_files_limit};
use crate::processes::io::collect_orphans;
use crate::systemd::State;
use crate::systemd::io::Told;

fn cannot_start(error: StartError) -> Failure {
    match &error {
        // Most often another one listens there already.
        StartError::Bind(_) => {
            Failure::usage(&error).fix("svcmap status, or choose another --bind and --publish")
        }
        StartError::Zap(_) => Failure::failed(&error).fix("--insecure, or another build"),
        StartError::System(_) => Failure::failed(&error).fix("ulimit -n 65536"),
        StartError::PlainBeyond(_) => {
            Failure::usage(&error).fix("--plain-bind tcp://127.0.0.1:PORT")
        }
        StartError::Endpoint(_) | StartError::Config(_) => {
            Failure::usage(&error).fix("svcmap mapper --help")
        }
    }
}

/// Runs a mapper until a signal ends it.
///
/// # Errors
/// If it cannot listen, or fails later.
pub fn run(args: &MapperArgs, log: &Logger) -> Result<ExitCode, Error> {
    if let Some(parent) = args.supervised.supervised {
        end_with_parent(parent).map_err(Failure::failed)?;
    }
    let signals = StopSignals::catch().map_err(Failure::failed)?;
    collect_orphans().map_err(Failure::failed)?;
    // Each worker and client is an open file or two.
    raise_open_files_limit();
    let http = args.http.http.map(Listener::bind).transpose()?;
    let told = Told::of_environment(log)?;
    let mut builder = Mapper::builder()
        .bind(args.bind.as_str())
        .publish(args.publish().as_str())
        .beat(args.beat)
        .logger(log.clone());
    if let Some(interval) = args.publish_interval {
        builder = builder.publish_interval(interval);
    }
    let keys = keys::keys(args)?;
    if let Some(plain) = &args.plain_bind {
        if keys.is_none() {
            return Err(Failure::usage("--plain-bind is beside keys, and here all is plain text")
                .fix("leave it out, or name a deployment file: --deployment FILE")
                .into());
        }
        builder = builder.plain_bind(plain.as_str());
    }
    if let Some(keys) = &keys {
        builder = builder.keys(keys.own.clone()).key_file(keys.file());
    }
    let mapper = builder.start().map_err(cannot_start)?;
    if let Some(keys) = keys {
        keys.keep(args, mapper.endpoint(), log)?;
    }
    let suffix = suffix(http.as_ref());
    let routes = || http::routes(&mapper.monitor());
    let _http = http.map(|http| http.serve(routes(), log)).transpose()?;
    let plain = mapper.plain_endpoint().map(|plain| format!("{PLAIN}{plain}"));
    let line = listening_line(mapper.endpoint(), mapper.publish_endpoint());
    print_first_line(line + &plain.unwrap_or_default() + &suffix);
    let monitor = mapper.monitor();
    let watched = told.look_after(move |reply| monitor.metrics(reply), systemd::status)?;
    watched.is_ready();
    let (stop, log) = (mapper.stopper(), log.clone());
    let on_signal = move |signal| {
        info!(log, "mapper stops"; "signal" => signal);
        told.tell(&[State::Stopping { within: STOPS_WITHIN }]);
        stop();
    };
    signals.on_first(on_signal).map_err(Failure::failed)?;
    mapper.wait().map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// How long it takes to end, at most.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Before where it listens in plain text as well, in its first line.
const PLAIN: &str = ", in plain text on ";

/// What a mapper prints first, for scripts that let the system choose ports.
pub fn listening_line(bind: &Endpoint, publish: &Endpoint) -> String {
    format!("listening on {bind}, publishing on {publish}")
}

/// The two endpoints of [`listening_line`]: where to talk to the mapper, and where it publishes.
pub fn parse_listening_line(line: &str) -> Option<(Endpoint, Endpoint)> {
    let (bind, publish) = line.strip_prefix("listening on ")?.split_once(", publishing on ")?;
    let publish = publish.split(", ").next()?;
    Some((bind.parse().ok()?, publish.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_can_be_read_back() {
        let [a, b] = ["tcp://*:5555", "tcp://[::1]:7"].map(|t| t.parse::<Endpoint>().unwrap());
        let line = listening_line(&a, &b);
        assert_eq!(line, "listening on tcp://*:5555, publishing on tcp://[::1]:7");
        for more in ["", ", in plain text on tcp://127.0.0.1:9", ", HTTP on http://127.0.0.1:9"] {
            let line = format!("{line}{more}");
            assert_eq!(parse_listening_line(&line), Some((a.clone(), b.clone())));
        }
        assert_eq!(parse_listening_line("listening on x, publishing on y"), None);
    }
}
