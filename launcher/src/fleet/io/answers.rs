//! What a running `svcmap up` says of itself to who asks.

use std::process::id;

use svcmap_proto::io::Clock;

use super::super::CommandError;
use super::super::command::{CommandId, Target};
use super::super::lines::Line;
use super::super::wire::{Process, Reply, Request};
use super::Keeper;
use super::clients::matches;
use super::http::Desk;
use crate::metrics::up::Kept;
use crate::topology::{OWN_NAME, Protection};

impl Keeper<'_> {
    pub(super) fn handle_question(&mut self, client: u64, question: Result<Request, String>) {
        match question {
            Err(why) => {
                let why = CommandError::NotUnderstood(why);
                self.clients.reply(client, &Reply::Failed(why));
            }
            Ok(Request::Do(command)) => {
                self.next_command += 1;
                let id = CommandId(self.next_command);
                self.clients.awaits(client, id);
                self.is_settled = true;
                self.fleet.handle_command(Clock.now(), id, command);
            }
            Ok(Request::List) => {
                for process in self.processes() {
                    self.clients.reply(client, &Reply::Process(process));
                }
                self.clients.reply(client, &Reply::Done(self.path.display().to_string()));
            }
            Ok(Request::File) => {
                let services = self.fleet.topology().services.iter();
                let instances = services.map(|(name, it)| (name.clone(), it.instances)).collect();
                let (text, former, pid) = (self.text.clone(), self.former.clone(), id());
                let reverted = self.fleet.reverted();
                let topology = Reply::Topology { text, instances, reverted, former, pid };
                self.clients.reply(client, &topology);
                self.clients.reply(client, &Reply::Done(String::new()));
            }
            Ok(Request::Access) => {
                let Protection { deployment, insecure } = self.fleet.topology().protection.clone();
                let is_named = deployment.is_some();
                let mappers = if is_named { Vec::new() } else { self.fleet.mapper_endpoints() };
                if !is_named && mappers.is_empty() {
                    let missing = self.fleet.missing_mapper().cloned();
                    let no_mapper = missing.map(|name| CommandError::NoMapper { name });
                    let why = no_mapper.unwrap_or(CommandError::TooEarly);
                    return self.clients.reply(client, &Reply::Failed(why));
                }
                self.clients.reply(client, &Reply::Access { mappers, deployment, insecure });
                self.clients.reply(client, &Reply::Done(String::new()));
            }
            Ok(Request::Logs { targets, lines, follow }) => {
                let is_own = |target: &Target| matches(target, OWN_NAME);
                let mut others = targets.iter().filter(|target| !is_own(target));
                if let Err(unknown) = others.try_for_each(|target| self.fleet.expect(target)) {
                    return self.clients.reply(client, &Reply::Failed(unknown));
                }
                let is_wanted = |name: &str| {
                    targets.is_empty() || targets.iter().any(|target| matches(target, name))
                };
                for (name, recent) in self.recent.iter().filter(|(name, _)| is_wanted(name)) {
                    // Whoever looks at all sees what was said of them with what `up` has said.
                    let is_wanted = |line: &&Line| !line.is_about || !targets.is_empty();
                    for line in recent.last(lines).filter(is_wanted) {
                        self.clients.history(client, name, &line.text);
                    }
                }
                if follow {
                    self.clients.follows(client, targets);
                } else {
                    self.clients.reply(client, &Reply::Done(String::new()));
                }
            }
        }
    }

    pub(super) fn answer_by_http(&self) {
        for reply in self.desk.iter().flat_map(Desk::take) {
            let deaths = self.fleet.deaths().iter();
            let deaths = deaths.map(|(name, count)| (name.to_string(), *count)).collect();
            reply(Kept { processes: self.processes(), deaths });
        }
    }

    fn processes(&self) -> Vec<Process> {
        let now = Clock.now();
        let all = self.fleet.members().map(|(who, member)| {
            let child = self.living.get(&who).map(|living| living.child);
            Process {
                name: who.to_string(),
                is_mapper: who.service().is_none(),
                state: member.state.word().to_owned(),
                since_ms: u64::try_from(now.since(member.since).as_millis()).unwrap_or(u64::MAX),
                pid: child.and_then(|child| self.supervisor.pid(child)),
                deaths: member.deaths.total,
                last: member.last.clone(),
            }
        });
        all.collect()
    }
}
