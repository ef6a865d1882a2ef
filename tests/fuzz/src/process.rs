//! A process that serves and sends, and is told things by mappers, senders, workers and clients.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::codec;
use svcmap_proto::json;
use svcmap_proto::limits;
use svcmap_proto::payload::{self, Laden};
use svcmap_worker::pure::{Connection, Ending};

use crate::input::{self, Step};
use crate::memory::bounded;
use crate::node::{Fault, Node};

/// What a step may allocate, for each byte of it: what is said to many at once.
const TIMES: usize = 1024;

/// And whatever it says, in such bytes: queues that grow, what is due meanwhile.
const ALWAYS_BYTES: usize = 1024;

/// Payloads that are made up for a message, in bytes.
const PAYLOADS_BYTES_MAX: usize = 64 * 1024;

/// The steps of an input, one after the other.
pub(crate) fn read(bytes: &[u8]) {
    let mut node = Node::new(true);
    node.hear_of_workers();
    for step in input::steps(bytes) {
        if node.is_over() {
            break;
        }
        bounded(ALWAYS_BYTES + step.body.len(), TIMES, || node.wait(step.pause));
        bounded(ALWAYS_BYTES + step.body.len(), TIMES, || handle_step(&mut node, &step));
    }
    node.stop();
}

/// What kinds of steps there are, by the lower half of the byte; the upper half says to whom.
fn handle_step(node: &mut Node, step: &Step<'_>) {
    let (kind, who) = step.halves();
    let body = step.body;
    match kind {
        0 => node.hear_mapper(body),
        1 => node.hear_publication(Some("s"), body),
        2 => node.hear_publication(Some("t"), body),
        3 => node.hear_publication(None, body),
        4 => {
            if let Some(message) = laden(body) {
                node.hear_sender(connection(who), message);
            }
        }
        5 => {
            let from = connection(who).id;
            let frames: [&[u8]; 3] = [&from, b"", body];
            if let Some((from, body)) = json::open(&frames) {
                node.hear_client(from, body);
            }
        }
        6 => {
            if let Some(message) = laden(body) {
                node.hear_worker(who, message);
            }
        }
        7 => node.hear_reply(who, None, body),
        8 => {
            let frames: Vec<_> = input::frames(body).collect();
            if let [tag, body] = &frames[..] {
                node.hear_reply(who, Some(tag), body);
            }
        }
        9 => node.hear_answer(who, body),
        10 => node.handle_link(who, body.is_empty()),
        11 => node.submit(who, body),
        12 => node.withdraw(who),
        13 => node.finish(ending(who), body),
        14 => match who {
            0 => node.lose_mapper(),
            1 => node.connect_mapper(),
            2 => node.drain(Duration::from_secs(3)),
            3 => node.suspend(step.pause),
            _ => node.progress(body),
        },
        _ => node.fail_next([Fault::Full, Fault::Unreachable][who % 2]),
    }
}

fn connection(who: usize) -> Connection {
    Connection::from(vec![who as u8; 5])
}

fn ending(who: usize) -> Ending {
    match who {
        0 => Ending::Done,
        1 => Ending::NotStarted,
        code => Ending::Failed { code: i32::try_from(code).ok() },
    }
}

/// A message, with payloads as long as it says if none came.
fn laden<T: Laden + serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let mut frames: Vec<_> = input::frames(body).collect();
    let frame = frames.remove(0);
    if frames.is_empty() {
        let message: T = codec::decode(&frame).ok()?;
        let sizes = message.sizes().map(|bytes| bytes as usize);
        if sizes.clone().sum::<usize>() <= PAYLOADS_BYTES_MAX {
            let (large, small): (Vec<_>, Vec<_>) =
                sizes.partition(|bytes| limits::is_large(*bytes));
            let small = Some(small.iter().sum()).filter(|bytes| *bytes > 0);
            let made_up = |bytes| Bytes::from(vec![b'1'; bytes]);
            frames = small.into_iter().chain(large).map(made_up).collect();
        }
    }
    payload::decode(&frame, frames).ok()
}
