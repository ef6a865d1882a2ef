//! What operators want: asked of each mapper, one after the other.

use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{DrainAnswer, FromMapper, Hello, KeyAnswer, KeyRequest, ToMapper};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::{Clock, Event, EventLoop};
use svcmap_proto::names::{InstanceKey, MapperAddress};
use svcmap_proto::principals::Principal;

use super::super::ControlError;
use super::{no_mapper, open, poll_failed, silence};

/// What is not answered is said again after so long. Each of these may be said twice.
const REPEAT: Duration = Duration::from_secs(1);

/// Says that to one mapper, and returns its answer.
///
/// # Errors
/// If there is none, see [`ControlError`].
pub fn ask_for_keys(
    mapper: &MapperAddress,
    deployment: &Deployment,
    request: &KeyRequest,
    patience: Duration,
) -> Result<KeyAnswer, ControlError> {
    let said = ToMapper::Keys(request.clone());
    say(mapper, Some(deployment), &said, patience, |answer| match answer {
        FromMapper::Keys(answer) => Some(answer),
        _ => None,
    })
}

/// Tells one mapper that an instance is to finish its jobs and to end.
///
/// # Errors
/// If there is no answer, see [`ControlError`].
pub fn ask_to_drain(
    mapper: &MapperAddress,
    deployment: Option<&Deployment>,
    key: &InstanceKey,
    patience: Duration,
) -> Result<DrainAnswer, ControlError> {
    let said = ToMapper::Drain { key: key.clone() };
    say(mapper, deployment, &said, patience, |answer| match answer {
        FromMapper::DrainAsked(answer) => Some(answer),
        _ => None,
    })
}

/// Says something to one mapper until it answers; `pick` knows the answer.
fn say<T>(
    mapper: &MapperAddress,
    deployment: Option<&Deployment>,
    message: &ToMapper,
    patience: Duration,
    pick: impl Fn(FromMapper) -> Option<T>,
) -> Result<T, ControlError> {
    let mut events = EventLoop::new(&[]).map_err(poll_failed)?;
    let key = open(&mut events, mapper, deployment)?;
    let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
    let hello = ToMapper::Hello(Hello { oldest, newest, key: None });
    let said = [codec::encode(&hello), codec::encode(message)];
    let (deadline, mut say_at) = (Clock.now() + patience, Clock.now() + patience);
    let mut answer = None;
    while answer.is_none() && Clock.now() < deadline {
        let mut is_connected = false;
        let turn = events.turn(Some(deadline.min(say_at)), |event| match event {
            Event::Writable(_) => is_connected = true,
            Event::Received(_, [frame]) => match codec::decode(frame) {
                Ok(FromMapper::WrongVersion { oldest, newest }) => {
                    let mapper = mapper.clone();
                    answer = Some(Err(ControlError::WrongVersion { mapper, oldest, newest }));
                }
                // Nothing else is an answer to this.
                Ok(other) => answer = pick(other).map(Ok).or(answer.take()),
                Err(_) => {}
            },
            _ => {}
        });
        turn.map_err(poll_failed)?;
        if is_connected || say_at <= Clock.now() {
            say_at = Clock.now() + REPEAT;
            for frame in &said {
                // What cannot be sent had no connection; with the next one it is said again.
                let _ = events.send(key, [&frame[..]]);
            }
        }
    }
    events.close(Duration::ZERO);
    let is_encrypted = deployment.is_some();
    answer.unwrap_or_else(|| {
        let silence = silence(mapper, is_encrypted, patience);
        Err(silence.unwrap_or_else(|| no_mapper(vec![mapper.clone()], patience)))
    })
}

/// Who may take part, as one mapper says; or why it does not say so.
///
/// # Errors
/// If it does not answer, see [`ControlError`].
pub fn ask_for_principals(
    mapper: &MapperAddress,
    deployment: &Deployment,
    patience: Duration,
) -> Result<Result<Vec<Principal>, KeyAnswer>, ControlError> {
    let mut all = Vec::new();
    loop {
        let skip = u32::try_from(all.len()).unwrap_or(u32::MAX);
        match ask_for_keys(mapper, deployment, &KeyRequest::List { skip }, patience)? {
            KeyAnswer::Listed { principals, more } => {
                let is_page = !principals.is_empty();
                all.extend(principals);
                if !(more && is_page && all.len() < svcmap_proto::limits::KEYS_MAX) {
                    return Ok(Ok(all));
                }
            }
            other => return Ok(Err(other)),
        }
    }
}
