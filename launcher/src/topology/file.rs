//! A topology from the text of its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use svcmap_proto::names::{Endpoint, Name};
use toml::de::{DeTable, DeValue};

use super::fields::{Fields, flag, not, text, texts, whole};
use super::problem::{Problem, Problems};
use super::{
    Backoff, Flap, Handler, INSTANCES_MAX, Keep, Log, Mapper, Mappers, PREFIX_BYTES_MAX,
    Protection, Restart, Rolling, Service, Topology, Worker,
};
use crate::cli::Builtin;
use crate::exec::Program;
use crate::parse;

/// Most new instances that are started at a time while a service is replaced.
const SURGE_MAX: u32 = 100;

/// Most ends that are looked back at.
const EXITS_MAX: u32 = 1000;

/// The smallest and the largest log file.
const LOG_BYTES: std::ops::RangeInclusive<u64> = 4096..=(1 << 40);

/// What a file of that name says. Paths in it begin at that folder.
///
/// # Errors
/// All that is wrong with it.
pub fn read(path: &Path, folder: &Path, text: &str) -> Result<Topology, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            span: error.span().unwrap_or(0..0),
            message: error.message().to_owned(),
            help: None,
        })
        .collect();
    if !problems.is_empty() {
        // What was misread would only add errors that are none.
        return Err(Problems::new(path, text, problems));
    }
    let (topology, found) =
        Reader { folder }.topology(Fields::new("the file", 0..0, table.get_ref()));
    problems.extend(found);
    match topology {
        Some(topology) if problems.is_empty() => Ok(topology),
        _ => Err(Problems::new(path, text, problems)),
    }
}

struct Reader<'a> {
    folder: &'a Path,
}

/// What `[defaults]` and a service may say alike.
#[derive(Clone, Debug, Default)]
struct Common {
    instances: Option<u32>,
    concurrency: Option<u32>,
    queue: Option<u32>,
    env: BTreeMap<String, String>,
    dir: Option<PathBuf>,
    bind: Option<Endpoint>,
    advertise: Option<Vec<String>>,
    run_limit: Option<Duration>,
    grace: Option<Duration>,
    kill_after: Option<Duration>,
    payload_max: Option<usize>,
    rolling: Option<Rolling>,
    keep: Keep,
}

impl Reader<'_> {
    fn topology(&self, mut fields: Fields<'_>) -> (Option<Topology>, Vec<Problem>) {
        let mut problems = Vec::new();
        let protection = Protection {
            deployment: fields.get("deployment", text(|path| self.path(path))),
            insecure: fields.get("insecure", flag).unwrap_or(false),
        };
        let prefix = fields.get("prefix", text(prefix));
        let elsewhere = fields.value("mappers").map(|value| (value.span(), value));
        let named = fields.get("mappers", texts(parse::peer));
        let defaults = match fields.table("defaults") {
            Some(mut table) => {
                let common = self.common(&mut table, Common::default());
                problems.extend(table.finish());
                common
            }
            None => Common::default(),
        };
        let mappers = self.mappers(&mut fields, &protection, &mut problems);
        let services = self.services(&mut fields, (&defaults, &mappers), &mut problems);
        match (&elsewhere, mappers.is_empty()) {
            (Some((span, _)), false) => fields.problem(
                span.clone(),
                "both `mappers` and [mapper.NAME] are there".to_owned(),
                Some(
                    "the first is for those that somebody else runs: leave one of them out"
                        .to_owned(),
                ),
            ),
            (None, true) => fields.problem(
                0..0,
                "there is no mapper".to_owned(),
                Some(
                    "write [mapper.main], or name those of others: mappers = [\"tcp://HOST:5555\"]"
                        .to_owned(),
                ),
            ),
            _ => {}
        }
        let named = named.filter(|named| !named.is_empty());
        let mappers = match (named, elsewhere) {
            (Some(named), _) => Some(Mappers::Elsewhere(named)),
            (None, None) => Some(Mappers::Ours(mappers)),
            (None, Some((span, _))) => {
                fields.problem(span, "no mapper is named".to_owned(), None);
                None
            }
        };
        problems.extend(fields.finish());
        (mappers.map(|mappers| Topology { mappers, protection, prefix, services }), problems)
    }

    fn mappers(
        &self,
        fields: &mut Fields<'_>,
        protection: &Protection,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<Name, Mapper> {
        let mut found: BTreeMap<Name, Mapper> = BTreeMap::new();
        for (called, mut table) in fields.tables("mapper") {
            let bind = table.get("bind", text(endpoint)).unwrap_or_else(default_bind);
            let publish = table.get("publish", text(endpoint));
            let mapper = Mapper {
                publish: publish.unwrap_or_else(|| parse::beside(&bind)),
                bind,
                advertise: table.get("advertise", text(|host| Ok(host.to_owned()))),
                plain_bind: table.get("plain_bind", text(endpoint)),
                deployment: table.get("deployment", text(|path| self.path(path))),
                beat: table.get("beat", text(parse::duration_nonzero)),
                publish_interval: table.get("publish_interval", text(parse::duration_nonzero)),
                http: table.get("http", text(crate::http::address)),
                keep: self.keep(&mut table, Keep::default()),
            };
            self.check_name(called, &mut table);
            check_keys(&mut table, &mapper, protection, &found);
            problems.extend(table.finish());
            if let Ok(name) = called.parse() {
                found.insert(name, mapper);
            }
        }
        found
    }

    fn services(
        &self,
        fields: &mut Fields<'_>,
        (defaults, mappers): (&Common, &BTreeMap<Name, Mapper>),
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<Name, Service> {
        let mut found = BTreeMap::new();
        for (called, mut table) in fields.tables("service") {
            let service = self.service(&mut table, defaults);
            self.check_name(called, &mut table);
            if mappers.contains_key(called) {
                let message = format!("a mapper is called `{called}` as well");
                table.problem(
                    table.span(),
                    message,
                    Some("give one of them another name".to_owned()),
                );
            }
            problems.extend(table.finish());
            if let (Some(service), Ok(name)) = (service, called.parse()) {
                found.insert(name, service);
            }
        }
        found
    }

    fn check_name(&self, called: &str, table: &mut Fields<'_>) {
        if let Err(error) = name(called) {
            table.problem(table.span(), format!("`{called}` cannot be a name"), Some(error));
        } else if called == super::OWN_NAME {
            let help = "it stands for svcmap up itself: svcmap logs up".to_owned();
            table.problem(table.span(), format!("`{called}` cannot be a name here"), Some(help));
        }
    }

    fn service(&self, table: &mut Fields<'_>, defaults: &Common) -> Option<Service> {
        let handlers = [
            table.get("exec", command).map(Handler::Exec),
            table.get("exec_loop", command).map(Handler::ExecLoop),
            table.get("builtin", text(builtin)).map(Handler::Builtin),
        ];
        let is_any = ["exec", "exec_loop", "builtin"].iter().any(|key| table.value(key).is_some());
        let mut given = handlers.into_iter().flatten();
        let (handler, another) = (given.next(), given.next());
        if another.is_some() || !is_any {
            let message = match is_any {
                true => format!("{} has more than one handler", table.name()),
                false => format!("{} has no handler", table.name()),
            };
            let help = "one of exec = \"PROGRAM\", exec_loop = \"PROGRAM\", builtin = \"echo\"";
            table.problem(table.span(), message, Some(help.to_owned()));
        }
        let common = self.common(table, defaults.clone());
        let worker = Worker {
            handler: handler?,
            concurrency: common.concurrency.unwrap_or(1),
            queue: common.queue.unwrap_or(10),
            env: common.env,
            dir: common.dir.unwrap_or_else(|| self.folder.to_owned()),
            bind: common.bind,
            advertise: common.advertise.unwrap_or_default(),
            run_limit: common.run_limit,
            grace: common.grace.unwrap_or(Duration::from_secs(10)),
            kill_after: common.kill_after.unwrap_or(Duration::from_secs(2)),
            payload_bytes_max: common.payload_max,
            deployment: table.get("deployment", text(|path| self.path(path))),
        };
        let (rolling, keep) = (common.rolling.unwrap_or_default(), common.keep);
        Some(Service { instances: common.instances.unwrap_or(1), worker, rolling, keep })
    }

    /// What is said here, else what was said before.
    fn common(&self, table: &mut Fields<'_>, before: Common) -> Common {
        let duration = || text(parse::duration);
        let mut all = before.env;
        if let Some(mut env) = table.table("env") {
            all.extend(self.env(&mut env));
            table.problems(env.finish_any());
        }
        let rolling = table.table("rolling").map(|mut rolling| {
            let was = before.rolling.unwrap_or_default();
            let read = Rolling {
                surge: rolling.get("surge", whole(1..=SURGE_MAX)).unwrap_or(was.surge),
                ready_within: rolling
                    .get("ready_within", text(parse::duration_nonzero))
                    .unwrap_or(was.ready_within),
            };
            table.problems(rolling.finish());
            read
        });
        Common {
            instances: table.get("instances", whole(0..=INSTANCES_MAX)).or(before.instances),
            concurrency: table.get("concurrency", whole(1..=u32::MAX)).or(before.concurrency),
            queue: table.get("queue", whole(0..=u32::MAX)).or(before.queue),
            env: all,
            dir: table.get("dir", text(|path| self.path(path))).or(before.dir),
            bind: table.get("bind", text(worker_bind)).or(before.bind),
            advertise: table.get("advertise", texts(host)).or(before.advertise),
            run_limit: table.get("run_limit", text(parse::duration_nonzero)).or(before.run_limit),
            grace: table.get("grace", duration()).or(before.grace),
            kill_after: table.get("kill_after", duration()).or(before.kill_after),
            payload_max: table
                .get("payload_max", text(parse::payload_bytes))
                .or(before.payload_max),
            rolling: rolling.or(before.rolling),
            keep: self.keep(table, before.keep),
        }
    }

    fn env(&self, table: &mut Fields<'_>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (key, value) in table.all() {
            let name = key.get_ref().as_ref();
            let is_name = !name.is_empty() && !name.contains(['=', '\0']);
            match value.get_ref() {
                DeValue::String(text) if is_name && !text.contains('\0') => {
                    found.insert(name.to_owned(), text.clone().into_owned());
                }
                other => {
                    let help = match is_name {
                        true => not("a text in quotes", other),
                        false => "a name without = or a zero byte".to_owned(),
                    };
                    let message = format!("`{name}` of {} has a wrong value", table.name());
                    table.problem(value.span(), message, Some(help));
                }
            }
        }
        found
    }

    fn keep(&self, table: &mut Fields<'_>, before: Keep) -> Keep {
        let restart = table.get("restart", text(restart)).unwrap_or(before.restart);
        let mut backoff = before.backoff;
        if let Some(mut fields) = table.table("backoff") {
            let duration = || text(parse::duration_nonzero);
            backoff = Backoff {
                first: fields.get("first", duration()).unwrap_or(backoff.first),
                max: fields.get("max", duration()).unwrap_or(backoff.max),
                reset_after: fields.get("reset_after", duration()).unwrap_or(backoff.reset_after),
            };
            if backoff.first > backoff.max {
                let message = format!("`first` is longer than `max` in {}", fields.name());
                fields.problem(fields.span(), message, None);
            }
            table.problems(fields.finish());
        }
        let mut flap = before.flap;
        if let Some(mut fields) = table.table("flap") {
            flap = Flap {
                exits: fields.get("exits", whole(1..=EXITS_MAX)).unwrap_or(flap.exits),
                within: fields.get("within", text(parse::duration_nonzero)).unwrap_or(flap.within),
            };
            table.problems(fields.finish());
        }
        Keep { restart, backoff, flap, log: self.log(table).unwrap_or(before.log) }
    }

    fn log(&self, table: &mut Fields<'_>) -> Option<Log> {
        if let Some(DeValue::String(text)) = table.value("log").map(|value| value.get_ref()) {
            return match text.as_ref() {
                "output" => Some(Log::Output),
                _ => table.get("log", |_| Err("\"output\", or { dir = \"log\" }".to_owned())),
            };
        }
        let mut fields = table.table("log")?;
        let dir = fields.get("dir", text(|path| self.path(path)));
        if dir.is_none() {
            let message = format!("{} names no folder", fields.name());
            fields.problem(fields.span(), message, Some("add dir = \"log\"".to_owned()));
        }
        let log = Log::Files {
            dir: dir.unwrap_or_default(),
            bytes_max: fields.get("size", text(log_bytes)).unwrap_or(10 << 20),
            keep: fields.get("keep", whole(0..=1000)).unwrap_or(5),
        };
        table.problems(fields.finish());
        Some(log)
    }

    fn path(&self, text: &str) -> Result<PathBuf, String> {
        match text.is_empty() || text.contains('\0') {
            true => Err("write a path".to_owned()),
            false => Ok(self.folder.join(text)),
        }
    }
}

/// A mapper that others reach encrypts, by keys of its own.
fn check_keys(
    table: &mut Fields<'_>,
    mapper: &Mapper,
    protection: &Protection,
    others: &BTreeMap<Name, Mapper>,
) {
    let file_of =
        |mapper: &Mapper| mapper.deployment.clone().or_else(|| protection.deployment.clone());
    let Some(file) = file_of(mapper) else {
        if !mapper.bind.is_loopback() && !protection.insecure {
            let message = format!("{} listens to other machines, and has no keys", table.name());
            let help = "name a deployment file at the top of the file; the mapper makes it: \
                        deployment = \"keys/svcmap.toml\" (or do without: insecure = true)";
            table.problem(table.span(), message, Some(help.to_owned()));
        }
        return;
    };
    if let Some((other, _)) = others.iter().find(|(_, other)| file_of(other) == Some(file.clone()))
    {
        let message = format!("{} has the same deployment file as `{other}`", table.name());
        let help = "each mapper keeps keys of its own: give it a file with deployment = \"…\"";
        table.problem(table.span(), message, Some(help.to_owned()));
    }
}

fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: svcmap_proto::names::NameError| error.to_string())
}

fn prefix(text: &str) -> Result<Name, String> {
    match text.len() <= PREFIX_BYTES_MAX {
        true => name(text),
        false => Err(format!("at most {PREFIX_BYTES_MAX} characters")),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: svcmap_proto::names::EndpointError| error.to_string())
}

/// Several instances cannot share a port.
fn worker_bind(text: &str) -> Result<Endpoint, String> {
    let endpoint = endpoint(text)?;
    match endpoint.port() {
        Some(0) => Ok(endpoint),
        _ => {
            Err("each instance has a port of its own: let the system choose, tcp://HOST:0"
                .to_owned())
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    parse::advertised(text).map(|_| text.to_owned())
}

fn default_bind() -> Endpoint {
    // It is one that this crate made.
    parse::peer(parse::MAPPER_DEFAULT).unwrap_or_else(|_| unreachable!())
}

fn builtin(text: &str) -> Result<Builtin, String> {
    let known = || Builtin::value_variants().iter().filter_map(|kind| kind.to_possible_value());
    Builtin::from_str(text, false).map_err(|_| {
        let names: Vec<_> = known().filter(|kind| !kind.is_hide_set()).collect();
        names.iter().map(|kind| kind.get_name()).collect::<Vec<_>>().join(", ")
    })
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        _ => Err("\"on-failure\", \"always\" or \"never\"".to_owned()),
    }
}

fn log_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse::bytes(text)?;
    match LOG_BYTES.contains(&bytes) {
        true => Ok(bytes),
        false => Err("from 4KiB to 1TiB".to_owned()),
    }
}

/// A program and its arguments: one text, quoted as in a shell, or a list of texts.
fn command(value: &DeValue<'_>) -> Result<String, String> {
    let line = match value {
        DeValue::String(line) => line.clone().into_owned(),
        DeValue::Array(_) => {
            let words = texts(|word| Ok(word.to_owned()))(value)?;
            let joined = shlex::try_join(words.iter().map(String::as_str));
            joined.map_err(|_| "a zero byte cannot be in it".to_owned())?
        }
        other => return Err(not("a text or a list of texts", other)),
    };
    Program::words(&line).map_err(|error| error.to_string()).map(|_| line)
}
