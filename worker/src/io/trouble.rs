//! What the log says of a worker that cannot be reached: its address, and what the system says of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slog::{Logger, warn};
use svcmap_proto::codec;
use svcmap_proto::io;
use svcmap_proto::names::{Endpoint, InstanceKey};

use crate::sender::Trouble;

/// How long a connection may take that is made only to learn what is wrong.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// So many of these at a time: where a rack is gone, one address says as much as a thousand.
const PROBES_MAX: usize = 4;

static PROBES: AtomicUsize = AtomicUsize::new(0);

/// Says that a worker could not be reached, for so many times in a row.
pub(super) fn warn(
    log: &Logger,
    worker: &InstanceKey,
    endpoint: Endpoint,
    failures: u32,
    trouble: Trouble,
) {
    match trouble {
        Trouble::OtherHost => {
            warn!(log, "a worker cannot be reached: its address is one for its own host only, so start \
                it with --advertise"; "worker" => %worker, "endpoint" => %endpoint);
        }
        Trouble::WrongVersion => {
            warn!(log, "a worker cannot be used: it speaks other protocol versions";
                "worker" => %worker, "endpoint" => %endpoint, "ours" => codec::VERSION);
        }
        Trouble::TurnedAway => {
            warn!(log, "a worker has no room for one more sender"; "worker" => %worker,
                "endpoint" => %endpoint, "failures" => failures);
        }
        Trouble::NoAnswer => {
            let probes = PROBES.fetch_add(1, Ordering::Relaxed);
            if probes >= PROBES_MAX {
                PROBES.fetch_sub(1, Ordering::Relaxed);
                warn!(log, "a worker cannot be reached"; "worker" => %worker,
                    "endpoint" => %endpoint, "failures" => failures);
                return;
            }
            let (log, worker) = (log.clone(), worker.clone());
            // libzmq connects in the background and tells nobody why it fails; the system does, to
            // whoever tries. That may take a while, so it is not for this thread.
            let tell = move || {
                let found = io::probe(std::slice::from_ref(&endpoint), PROBE_LIMIT);
                PROBES.fetch_sub(1, Ordering::Relaxed);
                let error = cause(found.into_iter().next().unwrap_or(io::Probe::Untried));
                warn!(log, "a worker cannot be reached"; "worker" => %worker,
                    "endpoint" => %endpoint, "error" => error, "failures" => failures);
            };
            // Without a thread to spare there are other lines in the log.
            if std::thread::Builder::new().name("svcmap-probe".to_owned()).spawn(tell).is_err() {
                PROBES.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Why no worker answers, where this was found.
fn cause(found: io::Probe) -> String {
    match found {
        io::Probe::Failed(error) => error,
        io::Probe::Reached => "something listens there, but does not answer as this worker".into(),
        io::Probe::Silent => {
            "it takes connections and says nothing: stopped, or out of files".into()
        }
        io::Probe::Untried => "this process is out of files: raise ulimit -n".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_out_of_files_blames_nobody_else() {
        assert!(cause(io::Probe::Untried).contains("ulimit -n"));
        assert!(cause(io::Probe::Reached).contains("something listens there"));
        assert_eq!(cause(io::Probe::Failed("refused".to_owned())), "refused");
    }
}
