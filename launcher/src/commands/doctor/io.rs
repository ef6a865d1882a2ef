//! Looking: names, ports, questions to mappers, publications, the clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Hello, PULSE_TOPIC, ToMapper, Welcome};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::curve::secure_client;
use svcmap_proto::io::{
    Clock, Event, EventLoop, Probe, SocketKey, SocketSettings, connect, host_id, libzmq,
    libzmq_doubt, look_up, look_up_all, node_name, probe, raise_open_files_limit, subscriber,
};
use svcmap_proto::names::{Endpoint, MapperAddress};
use svcmap_proto::status::Report;

use super::observed::{File, Heard, Kept, Machine, Mapper, Observed, Settings};
use super::workers;
use crate::access::{self, Access, unusable};
use crate::cli::MapperOption;
use crate::commands::status::{self, reach};
use crate::control::{self, ControlError, PATIENCE, Question, Scope, View};
use crate::fleet::io::client;
use crate::io::pause_until;
use crate::parse;
use crate::topology::FILE_NAME;

/// How long a port may take to be reached.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// A publication comes each beat: so many are awaited.
const BEATS: u32 = 3;

/// Whoever has just ended is not listed any more so much later.
const SECOND_LOOK: Duration = Duration::from_millis(300);

/// Looks at everything that can be seen with these flags.
pub(super) fn observe(option: &MapperOption) -> Observed {
    let open_files_max = raise_open_files_limit();
    let access = option.access();
    let settings = settings(option, access.as_ref());
    let (mut mappers, mut known) = (Vec::new(), None);
    if let Ok(access) = &access {
        mappers = ports(access);
        let is_there = mappers.iter().any(|mapper| mapper.port == Probe::Reached);
        match is_there.then(|| look_twice(access, &mappers)) {
            Some(Ok(seen)) => {
                // One that has answered at two addresses is one.
                mappers.retain(|mapper| place(&seen.0, &mapper.at).is_some());
                known = Some(seen);
            }
            Some(Err(error)) => {
                // Of several each is asked why.
                if let [only] = &mut mappers[..] {
                    only.silence = Some(error);
                }
            }
            None => {}
        }
        for mapper in &mut mappers {
            let welcome = known.as_ref().and_then(|(view, _)| welcome(view, &mapper.at));
            ask(access, mapper, welcome);
        }
    }
    let kept = kept(access.as_ref().ok());
    Observed { settings, mappers, known, machine: machine(open_files_max), kept }
}

/// What a `svcmap up` of this folder says of itself. Where none runs, there is nothing to look at.
fn kept(access: Option<&Access>) -> Kept {
    let here = Path::new(FILE_NAME);
    let Ok((_, processes)) = client::processes(Some(here)) else { return Kept::default() };
    let running = client::running_topology(here).ok().flatten();
    let reverted = running.map(|running| running.reverted).unwrap_or_default();
    let has_these_mappers = access.is_some_and(client::is_of_here);
    Kept { processes, reverted, has_these_mappers }
}

/// What the mappers know, and who of that can be reached. Whoever cannot may just be ending, as instances
/// do that are replaced: then there is a second look.
fn look_twice(access: &Access, mappers: &[Mapper]) -> Result<(View, Report), ControlError> {
    let (view, first) = look(access, mappers)?;
    if !first.instances.iter().any(reach::is_refused) {
        return Ok((view, first));
    }
    pause_until(Clock.now() + SECOND_LOOK);
    Ok(match look(access, mappers) {
        Ok((view, second)) => (view, workers::without_passing(&first, second)),
        Err(_) => (view, first),
    })
}

fn look(access: &Access, mappers: &[Mapper]) -> Result<(View, Report), ControlError> {
    let all: Vec<_> = mappers.iter().map(|mapper| mapper.at.clone()).collect();
    let question = Question { scope: Scope::Everything, ..Question::default() };
    let view = control::ask_all(&all, access.deployment.as_ref(), &question, PATIENCE)?;
    let mut report = status::report(&view, None);
    reach::try_all(&mut report);
    Ok((view, report))
}

fn machine(open_files_max: u64) -> Machine {
    let (libzmq, has_curve) = libzmq();
    Machine {
        host: host_id(),
        name: node_name(),
        unix_us: Clock.unix_us(),
        open_files_max,
        libzmq,
        has_curve,
        libzmq_doubt: libzmq_doubt(),
    }
}

fn settings(option: &MapperOption, access: Result<&Access, &crate::errors::Failure>) -> Settings {
    let is_named = option.keys.file().is_some();
    let path: Option<PathBuf> = option.keys.file().or_else(access::default_file);
    let used = access.ok().and_then(|access| access.deployment.as_ref());
    let file = path.filter(|_| !option.keys.insecure).and_then(|path| {
        let loaded = Deployment::load(&path);
        if !is_named && loaded.as_ref().is_err_and(svcmap_proto::io::KeyFileError::is_missing) {
            return None;
        }
        let is_used = loaded.as_ref().is_ok_and(|deployment| Some(deployment) == used);
        let known = |deployment: Deployment| deployment.mappers.into_iter().map(|m| m.address);
        let mappers = loaded.map(|d| known(d).collect()).map_err(|error| unusable(&error));
        Some(File { path, mappers, is_used })
    });
    let variable = std::env::var_os(parse::MAPPER_VARIABLE).filter(|_| option.mapper.is_empty());
    let variable = parse::mappers(&[], variable.as_deref()).unwrap_or_default();
    Settings { unusable: access.err().cloned(), file, variable }
}

/// Whether the name of each mapper leads somewhere, and who is at its port.
fn ports(access: &Access) -> Vec<Mapper> {
    let look = |at: MapperAddress| {
        let unresolved = look_up(&at.address).err();
        let port = match unresolved {
            None => probe(std::slice::from_ref(&at.address), PORT_PATIENCE).pop(),
            Some(_) => None,
        };
        Mapper {
            at,
            is_encrypted: access.deployment.is_some(),
            unresolved,
            port: port.unwrap_or(Probe::Untried),
            silence: None,
            heard: None,
        }
    };
    look_up_all(&access.mappers).into_iter().map(look).collect()
}

/// Which of those that have answered it is.
fn place(view: &View, at: &MapperAddress) -> Option<usize> {
    view.mappers.iter().position(|mapper| mapper.at == *at)
}

/// How a mapper greeted that has told everything.
fn welcome<'a>(view: &'a View, at: &MapperAddress) -> Option<&'a Welcome> {
    let index = place(view, at)?;
    let is_complete = view.mappers[index].answer.is_complete();
    view.listings.get(index)?.welcome.as_ref().filter(|_| is_complete)
}

/// Listens to a mapper that has greeted so, or asks one that has not why.
fn ask(access: &Access, mapper: &mut Mapper, welcome: Option<&Welcome>) {
    if let Some(welcome) = welcome {
        // Without a socket nothing is heard, and that is a finding.
        mapper.heard = Some(listen(access, &mapper.at, welcome));
    } else if mapper.port == Probe::Reached && mapper.silence.is_none() {
        let (only, keys) = (std::slice::from_ref(&mapper.at), access.deployment.as_ref());
        mapper.silence = control::ask_all(only, keys, &Question::default(), PATIENCE).err();
    }
}

/// Asks a mapper once more, to see how long that takes, and awaits what it publishes.
fn listen(access: &Access, mapper: &MapperAddress, welcome: &Welcome) -> Heard {
    let publish = welcome.publish.as_dialled(&mapper.address);
    let awaited = BEATS * Duration::from_millis(welcome.beat_ms.into());
    let mut heard = Heard { round_trip: None, publish, is_published: false, awaited };
    let sockets = sockets(access, mapper, &heard.publish);
    let Some((mut events, dealer, subscription)) = sockets else { return heard };
    let hello = codec::encode(&ToMapper::Hello(Hello {
        oldest: codec::VERSION_OLDEST,
        newest: codec::VERSION,
        key: None,
    }));
    let (deadline, mut asked_at) = (Clock.now() + awaited, None);
    while Clock.now() < deadline && !(heard.is_published && heard.round_trip.is_some()) {
        let mut is_connected = false;
        let turn = events.turn(Some(deadline), |event| match event {
            Event::Writable(key) if key == dealer => is_connected = true,
            Event::Received(key, [frame]) if key == dealer => {
                if let (Ok(FromMapper::Welcome(_)), Some(at)) = (codec::decode(frame), asked_at) {
                    heard.round_trip.get_or_insert(Clock.now().since(at));
                }
            }
            Event::Received(key, _) if key == subscription => heard.is_published = true,
            _ => {}
        });
        if turn.is_err() {
            break;
        }
        if is_connected {
            asked_at = Some(Clock.now());
            // What cannot be sent is said again with the next connection.
            let _ = events.send(dealer, [&hello[..]]);
        }
    }
    events.close(Duration::ZERO);
    heard
}

/// A connection to a mapper and one to where it publishes; `None` if this process is out of files.
fn sockets(
    access: &Access,
    mapper: &MapperAddress,
    publish: &Endpoint,
) -> Option<(EventLoop, SocketKey, SocketKey)> {
    let deployment = access.deployment.as_ref();
    let mut events = EventLoop::new(&[]).ok()?;
    let dealer = control::open(&mut events, mapper, deployment).ok()?;
    let socket = subscriber(events.context(), SocketSettings::default()).ok()?;
    if let Some(deployment) = deployment {
        secure_client(&socket, &deployment.own, deployment.key_of(&mapper.named)?).ok()?;
    }
    socket.set_subscribe(PULSE_TOPIC).ok()?;
    connect(&socket, publish).ok()?;
    let subscription = events.add(socket).ok()?;
    Some((events, dealer, subscription))
}
