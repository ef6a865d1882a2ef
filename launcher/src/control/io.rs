//! One socket for each mapper, until all have answered or the time is over.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::io::{Clock, Event, EventLoop, SocketKey, SocketSettings, connect, dealer};
use svcmap_proto::names::Endpoint;

use super::{Answer, ControlError, Conversation, Question, STRAGGLER_PATIENCE, View, merge};

/// Holds a conversation with each of these mappers, for at most `patience`.
///
/// # Errors
/// See [`ControlError`]. If at least one mapper answers it is none that others do not.
pub fn ask(
    mappers: &[Endpoint],
    question: &Question,
    patience: Duration,
) -> Result<View, ControlError> {
    let mut events = EventLoop::new(&[]).map_err(poll_failed)?;
    let mut conversations = BTreeMap::new();
    for mapper in mappers {
        let key = open(&mut events, mapper)?;
        conversations.insert(key, (mapper.clone(), Conversation::new(question.clone())));
    }
    converse(&mut events, &mut conversations, patience)?;
    events.close(Duration::ZERO);
    judge(merge(conversations.into_values().collect()), patience)
}

fn open(events: &mut EventLoop, mapper: &Endpoint) -> Result<SocketKey, ControlError> {
    let refused = |reason: String| ControlError::Socket { mapper: mapper.clone(), reason };
    let socket = dealer(events.context(), SocketSettings::default())
        .map_err(|error| refused(error.to_string()))?;
    connect(&socket, mapper).map_err(|error| refused(error.to_string()))?;
    let key = events.add(socket).map_err(|error| refused(error.to_string()))?;
    events.watch_writable(key);
    Ok(key)
}

fn converse(
    events: &mut EventLoop,
    conversations: &mut BTreeMap<SocketKey, (Endpoint, Conversation)>,
    patience: Duration,
) -> Result<(), ControlError> {
    let mut deadline = Clock.now() + patience;
    while Clock.now() < deadline {
        let over = conversations.values().filter(|(_, talk)| talk.is_over()).count();
        let is_enough = conversations.values().any(|(_, talk)| talk.is_enough());
        if over == conversations.len() || is_enough {
            return Ok(());
        }
        if over > 0 {
            deadline = deadline.min(Clock.now() + STRAGGLER_PATIENCE);
        }
        let turn = events.turn(Some(deadline), |event| match event {
            Event::Writable(key) => {
                if let Some((_, conversation)) = conversations.get_mut(&key) {
                    conversation.handle_connected();
                }
            }
            Event::Received(key, [frame]) => {
                if let Some((_, conversation)) = conversations.get_mut(&key) {
                    conversation.handle_frame(frame);
                }
            }
            // A mapper's answer has one frame, and a lost connection shows when it is back.
            _ => {}
        });
        turn.map_err(poll_failed)?;
        for (key, (_, conversation)) in conversations.iter_mut() {
            while let Some(message) = conversation.poll_output() {
                // What cannot be sent had no connection; with the next one all starts again.
                let _ = events.send(*key, &[&codec::encode(&message)]);
            }
        }
    }
    Ok(())
}

/// A view is worth having if any mapper has said anything.
fn judge(view: View, tried: Duration) -> Result<View, ControlError> {
    let answered = |answer: Answer| matches!(answer, Answer::Complete { .. } | Answer::Partial);
    if view.mappers.iter().any(|mapper| answered(mapper.answer)) {
        return Ok(view);
    }
    for mapper in &view.mappers {
        if let Answer::WrongVersion(oldest, newest) = mapper.answer {
            let mapper = mapper.endpoint.clone();
            return Err(ControlError::WrongVersion { mapper, oldest, newest });
        }
    }
    let mappers = view.mappers.into_iter().map(|mapper| mapper.endpoint).collect();
    Err(ControlError::NoMapper { mappers, tried })
}

fn poll_failed(error: std::io::Error) -> ControlError {
    ControlError::Poll(error.to_string())
}
