//! How the processes of a topology are started, when it is time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use svcmap_proto::time::Timestamp;

use super::{Fleet, GOODBYE, MAPPER_GRACE, Member, Output, State, Who};
use crate::topology::Log;

/// How a process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The command of this executable, and its flags.
    pub args: Vec<OsString>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// Where.
    pub dir: Option<PathBuf>,
    /// Where what it writes goes.
    pub log: Log,
    /// How long it may take to end.
    pub grace: Duration,
}

impl Fleet {
    pub(super) fn start_due(&mut self, now: Timestamp) {
        let due = |(who, member): (Who, &Member)| match member.state {
            State::Pausing { until } if until <= now => Some(who),
            _ => None,
        };
        let due: Vec<Who> = self.members().filter_map(due).collect();
        for who in due {
            let Some(launch) = self.launch(&who) else { continue };
            if let Some((member, _)) = self.member_mut(&who) {
                member.enter(State::Starting { since: now }, now);
                member.grace = launch.grace;
            }
            self.output.push_back(Output::Start(who, Box::new(launch)));
        }
    }

    /// How that process is started.
    fn launch(&self, who: &Who) -> Option<Launch> {
        match who {
            Who::Mapper(name) => {
                let mapper = self.mappers.get(name)?;
                let spec = &mapper.spec;
                let (bind, publish) = mapper
                    .endpoints
                    .as_ref()
                    .unwrap_or(&(spec.bind.clone(), spec.publish.clone()))
                    .clone();
                let args = self.topology.mapper_args(spec, &bind, &publish);
                let (env, dir, log) = (BTreeMap::new(), None, spec.keep.log.clone());
                Some(Launch { args, env, dir, log, grace: MAPPER_GRACE })
            }
            Who::Worker(key) => {
                let spec = &self.crews.get(&key.service)?.spec;
                let worker = &spec.worker;
                let mappers = self.mapper_endpoints();
                if mappers.is_empty() {
                    return None;
                }
                let args = self.topology.worker_args(&key.service, &key.instance, worker, &mappers);
                let (env, dir) = (worker.env.clone(), Some(worker.dir.clone()));
                let grace = worker.grace + worker.kill_after + GOODBYE;
                Some(Launch { args, env, dir, log: spec.keep.log.clone(), grace })
            }
        }
    }
}
