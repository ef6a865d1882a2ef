//! What connections could not take at once: kept in its order until they read, within limits.
//!
//! libzmq keeps a mebibyte for each connection, and a snapshot of a large service is more. A
//! connection that reads gets the rest soon; of one that does not, the rest is forgotten: whoever
//! wants it asks again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::limits;
use svcmap_proto::time::Timestamp;

use crate::registry::Connection;

/// Time until a full connection is tried again: a fast network takes a mebibyte meanwhile.
const RETRY: Duration = Duration::from_millis(5);

/// A connection that takes nothing for so long does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that are kept for all connections: two snapshots of as many instances as a mapper holds.
pub const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What each kept message counts beside its bytes.
const AROUND_BYTES: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct Backlog {
    queues: BTreeMap<Connection, Queue>,
    /// The same connections by the time of their next try.
    by_retry: BTreeSet<(Timestamp, Connection)>,
    /// And by the time when they last took something.
    by_progress: BTreeSet<(Timestamp, Connection)>,
    bytes: usize,
}

#[derive(Debug)]
struct Queue {
    frames: VecDeque<Arc<[u8]>>,
    retry_at: Timestamp,
    progress_at: Timestamp,
}

impl Backlog {
    /// Whether something waits for that connection: whatever else it is sent has to wait as well.
    pub fn holds(&self, to: &Connection) -> bool {
        self.queues.contains_key(to)
    }

    /// That connection cannot take this now. Beyond the limit, everything that waits for the one
    /// that has read nothing for longest is forgotten.
    pub fn push(&mut self, now: Timestamp, to: Connection, frame: Arc<[u8]>) {
        self.bytes += cost(&frame);
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.frames.push_back(frame);
        } else {
            let retry_at = now + RETRY;
            self.by_retry.insert((retry_at, to.clone()));
            self.by_progress.insert((now, to.clone()));
            self.queues.insert(to, Queue { frames: [frame].into(), retry_at, progress_at: now });
        }
        while self.bytes > BACKLOG_BYTES_MAX
            && let Some((_, slowest)) = self.by_progress.first().cloned()
        {
            self.forget(&slowest);
        }
    }

    /// The next message to try again, until `None`. Say what became of it before the next call:
    /// [`Backlog::handle_sent`], [`Backlog::handle_full`] or [`Backlog::forget`].
    pub fn poll(&mut self, now: Timestamp) -> Option<(Connection, &[u8])> {
        while let Some((progress_at, slowest)) = self.by_progress.first()
            && now.since(*progress_at) >= PATIENCE
        {
            let slowest = slowest.clone();
            self.forget(&slowest);
        }
        let (_, to) = self.by_retry.first().filter(|(retry_at, _)| *retry_at <= now)?;
        let frame = self.queues.get(to)?.frames.front()?;
        Some((to.clone(), frame))
    }

    /// What was tried is on its way.
    pub fn handle_sent(&mut self, now: Timestamp, to: &Connection) {
        let Some(queue) = self.queues.get_mut(to) else { return };
        if let Some(frame) = queue.frames.pop_front() {
            self.bytes -= cost(&frame);
        }
        if queue.frames.is_empty() {
            return self.forget(to);
        }
        self.by_progress.remove(&(queue.progress_at, to.clone()));
        queue.progress_at = now;
        self.by_progress.insert((now, to.clone()));
    }

    /// The connection takes nothing yet.
    pub fn handle_full(&mut self, now: Timestamp, to: &Connection) {
        let Some(queue) = self.queues.get_mut(to) else { return };
        self.by_retry.remove(&(queue.retry_at, to.clone()));
        queue.retry_at = now + RETRY;
        self.by_retry.insert((queue.retry_at, to.clone()));
    }

    /// Nobody is there any more.
    pub fn forget(&mut self, to: &Connection) {
        let Some(queue) = self.queues.remove(to) else { return };
        self.by_retry.remove(&(queue.retry_at, to.clone()));
        self.by_progress.remove(&(queue.progress_at, to.clone()));
        self.bytes -= queue.frames.iter().map(|frame| cost(frame)).sum::<usize>();
    }

    /// When [`Backlog::poll`] has something next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.by_retry.first().map(|(retry_at, _)| *retry_at)
    }
}

/// What a frame counts: a small one is mostly what goes around it.
fn cost(frame: &[u8]) -> usize {
    frame.len() + AROUND_BYTES
}

// The largest single message must fit, or it could never be sent.
const _: () = assert!(limits::CONTROL_BYTES_MAX + AROUND_BYTES < BACKLOG_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn connection(number: usize) -> Connection {
        Connection::new(&number.to_be_bytes())
    }

    #[test]
    fn what_waits_goes_out_in_its_order_once_there_is_room() {
        let (mut backlog, to) = (Backlog::default(), connection(1));
        (1..=3).for_each(|byte| backlog.push(at(0), to.clone(), [byte].into()));
        assert!(backlog.poll(at(0)).is_none(), "tried again at once");
        assert_eq!(backlog.poll_timeout(), Some(at(5)));
        assert_eq!(backlog.poll(at(5)), Some((to.clone(), &[1][..])));
        backlog.handle_full(at(5), &to);
        assert!(backlog.poll(at(9)).is_none());
        for byte in 1..=3 {
            assert!(backlog.holds(&to));
            assert_eq!(backlog.poll(at(10)), Some((to.clone(), &[byte][..])));
            backlog.handle_sent(at(10), &to);
        }
        assert!(!backlog.holds(&to));
        assert_eq!((backlog.poll_timeout(), backlog.bytes), (None, 0));
    }

    #[test]
    fn who_takes_nothing_for_a_second_is_forgotten() {
        let mut backlog = Backlog::default();
        backlog.push(at(0), connection(1), [1].into());
        backlog.push(at(0), connection(2), [1].into());
        backlog.push(at(0), connection(2), [2].into());
        assert!(backlog.poll(at(5)).is_some());
        backlog.handle_full(at(5), &connection(1));
        assert_eq!(backlog.poll(at(990)).map(|(to, _)| to), Some(connection(2)));
        backlog.handle_sent(at(990), &connection(2));
        assert_eq!(backlog.poll(at(1000)), Some((connection(2), &[2][..])));
        assert!(!backlog.holds(&connection(1)));
        backlog.forget(&connection(2));
        assert!(backlog.poll(at(5000)).is_none() && backlog.bytes == 0);
    }

    #[test]
    fn beyond_the_limit_those_who_read_least_lose_what_waits() {
        let mut backlog = Backlog::default();
        let part: Arc<[u8]> = vec![0; 48 * 1024].into();
        backlog.push(at(0), connection(0), part.clone());
        backlog.push(at(0), connection(0), part.clone());
        for number in 1..2000 {
            backlog.push(at(1), connection(number), part.clone());
            assert!(backlog.bytes <= BACKLOG_BYTES_MAX);
            // One that reads, again and again.
            backlog.handle_sent(at(2), &connection(0));
            backlog.push(at(2), connection(0), part.clone());
        }
        assert!(backlog.holds(&connection(0)));
        assert!(!backlog.holds(&connection(1)));
        assert!(backlog.holds(&connection(1999)));
    }
}
