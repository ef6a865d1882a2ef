//! What a registry remembers of those who are not listed, for a while and within limits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::limits;
use svcmap_proto::names::{Incarnation, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::Connection;
use super::activity::NAMES_MAX;

/// How long it is remembered who left: far longer than any message is under way.
const DEPARTED: Duration = Duration::from_secs(600);

/// Most that are remembered: as if everybody had left. Beyond it, the earliest is forgotten.
const DEPARTED_MAX: usize = limits::INSTANCES_MAX;

/// How often one connection is told that what it believes is wrong.
const CORRECTION_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that are told so within that interval. Who is not among them is told later: when
/// all 65,536 instances of a restarted mapper report at once, it takes four seconds.
const CORRECTIONS_MAX: usize = 16_384;

/// How often one connection is sent a long list: who asks faster than it reads would fill memory.
const LIST_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that are sent one within that interval: each is megabytes at the limit of instances.
const LISTS_MAX: usize = 16;

/// How often one connection is told the same, be it the state of a service or a page of names: half
/// of the time that a cache lets pass after a gap.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);

/// Such answers to one connection within that interval: `svcmap status` asks for every service there
/// is, and for the pages that list them.
const ANSWERS_OF_ONE_MAX: usize =
    limits::SERVICES_MAX + limits::SERVICES_MAX.div_ceil(NAMES_MAX) + 1;

/// The same to all connections: more than are read from the socket in that time.
const ANSWERS_MAX: usize = 65_536;

/// For how long an answer that was encoded is given again, for each instance in it: fifty times what
/// encoding that took. However many ask, it takes no more than a fiftieth of a core.
const KEPT_FOR_EACH: Duration = Duration::from_micros(5);

/// The same for all: people and caches do not notice that.
const KEPT_MAX: Duration = Duration::from_millis(50);

/// An answer, and when it was encoded.
#[derive(Debug)]
pub(super) struct Kept<T> {
    made_at: Timestamp,
    answer: T,
}

impl<T> Kept<T> {
    /// It was made now.
    pub(super) fn new(now: Timestamp, answer: T) -> Self {
        Self { made_at: now, answer }
    }

    /// The answer, while it is fresh enough for one about so many instances.
    pub(super) fn fresh(&self, now: Timestamp, instances: usize) -> Option<&T> {
        let instances = u32::try_from(instances).unwrap_or(u32::MAX);
        let lasts = KEPT_FOR_EACH.saturating_mul(instances).min(KEPT_MAX);
        (now.since(self.made_at) < lasts).then_some(&self.answer)
    }
}

/// Who left, so that nothing of them that arrives late brings them back.
#[derive(Debug, Default)]
pub(super) struct Departed {
    incarnations: BTreeMap<InstanceKey, (Incarnation, Timestamp)>,
    /// In the order of leaving. A name that left again stands here more than once.
    order: VecDeque<(Timestamp, InstanceKey)>,
}

impl Departed {
    /// That life of the instance left.
    pub(super) fn insert(&mut self, now: Timestamp, key: InstanceKey, incarnation: Incarnation) {
        while self.order.front().is_some_and(|(left_at, _)| now.since(*left_at) >= DEPARTED)
            || self.order.len() >= DEPARTED_MAX
        {
            self.forget_first();
        }
        self.order.push_back((now, key.clone()));
        self.incarnations.insert(key, (incarnation, now));
    }

    /// The life of that instance that left last, if that is not long ago.
    pub(super) fn incarnation(&self, now: Timestamp, key: &InstanceKey) -> Option<Incarnation> {
        let (incarnation, left_at) = self.incarnations.get(key)?;
        (now.since(*left_at) < DEPARTED).then_some(*incarnation)
    }

    fn forget_first(&mut self) {
        if let Some((left_at, key)) = self.order.pop_front()
            && self.incarnations.get(&key).is_some_and(|(_, last)| *last == left_at)
        {
            self.incarnations.remove(&key);
        }
    }
}

/// What a connection can ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// The state of a service.
    Sync(Name),
    /// A page of names, from behind that one.
    List(Option<Name>),
    /// Whom a worker of that service is to let in.
    Admission(Name),
}

/// Which questions were answered lately: whoever asks the same again has the answer, or does not read
/// it. Nobody's questions keep those of others from being answered.
#[derive(Debug)]
pub(super) struct Answers {
    told: Throttle<(Connection, Question)>,
    of_each: BTreeMap<Connection, usize>,
}

impl Default for Answers {
    fn default() -> Self {
        let told = Throttle::new(ANSWER_INTERVAL, ANSWERS_MAX);
        Self { told, of_each: BTreeMap::new() }
    }
}

impl Answers {
    /// Whether to answer that connection's question now.
    pub(super) fn admit(&mut self, now: Timestamp, from: &Connection, question: Question) -> bool {
        while let Some((connection, _)) = self.told.poll_over(now) {
            if let Some(count) = self.of_each.get_mut(&connection) {
                *count -= 1;
                if *count == 0 {
                    self.of_each.remove(&connection);
                }
            }
        }
        let count = self.of_each.get(from).copied().unwrap_or(0);
        let admitted =
            count < ANSWERS_OF_ONE_MAX && self.told.admit(now, &(from.clone(), question));
        if admitted {
            self.of_each.insert(from.clone(), count + 1);
        }
        admitted
    }
}

/// Who was lately told something that is not to be said to one connection, or to too many, at once.
/// A key is a connection, and what it asked if that matters.
#[derive(Debug)]
pub(super) struct Throttle<K = Connection> {
    interval: Duration,
    keys_max: usize,
    told: BTreeSet<K>,
    /// The same, in the order of telling.
    order: VecDeque<(Timestamp, K)>,
}

impl Throttle {
    /// For corrections of what workers believe.
    pub(super) fn corrections() -> Self {
        Self::new(CORRECTION_INTERVAL, CORRECTIONS_MAX)
    }

    /// For long lists in JSON.
    pub(super) fn lists() -> Self {
        Self::new(LIST_INTERVAL, LISTS_MAX)
    }
}

impl<K: Ord + Clone> Throttle<K> {
    /// Each key once in that interval, and so many of them.
    pub(super) fn new(interval: Duration, keys_max: usize) -> Self {
        Self { interval, keys_max, told: BTreeSet::new(), order: VecDeque::new() }
    }

    /// The next one that was told so long ago that it can be told again.
    fn poll_over(&mut self, now: Timestamp) -> Option<K> {
        let (told_at, _) = self.order.front()?;
        if now.since(*told_at) < self.interval {
            return None;
        }
        let (_, earliest) = self.order.pop_front()?;
        self.told.remove(&earliest);
        Some(earliest)
    }

    /// Whether to tell that one now.
    pub(super) fn admit(&mut self, now: Timestamp, key: &K) -> bool {
        while self.poll_over(now).is_some() {}
        let admitted = self.told.len() < self.keys_max && self.told.insert(key.clone());
        if admitted {
            self.order.push_back((now, key.clone()));
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn key(number: usize) -> InstanceKey {
        InstanceKey {
            service: "s".parse().unwrap(),
            instance: format!("i{number}").parse().unwrap(),
        }
    }

    #[test]
    fn who_left_is_remembered_for_ten_minutes() {
        let mut departed = Departed::default();
        departed.insert(at(0), key(1), Incarnation(5));
        departed.insert(at(300), key(1), Incarnation(6));
        assert_eq!(departed.incarnation(at(899), &key(1)), Some(Incarnation(6)));
        // The earlier entry of the same name goes, the later one stays.
        departed.insert(at(899), key(2), Incarnation(1));
        assert_eq!(departed.incarnation(at(899), &key(1)), Some(Incarnation(6)));
        assert_eq!(departed.incarnation(at(900), &key(1)), None);
        departed.insert(at(2000), key(3), Incarnation(1));
        assert_eq!((departed.order.len(), departed.incarnations.len()), (1, 1));
    }

    #[test]
    fn the_memory_of_who_left_is_bounded() {
        let mut departed = Departed::default();
        for number in 0..DEPARTED_MAX + 10 {
            departed.insert(at(0), key(number), Incarnation(1));
        }
        assert_eq!(departed.order.len(), DEPARTED_MAX);
        assert_eq!(departed.incarnations.len(), DEPARTED_MAX);
        assert_eq!(departed.incarnation(at(1), &key(9)), None);
        assert!(departed.incarnation(at(1), &key(10)).is_some());
    }

    #[test]
    fn a_connection_is_corrected_once_a_second() {
        let mut throttle = Throttle::corrections();
        let [a, b] = [Connection::new(b"a"), Connection::new(b"b")];
        assert!(throttle.admit(at(0), &a));
        assert!(!throttle.admit(at(0), &a));
        assert!(throttle.admit(at(0), &b));
        assert!(throttle.admit(at(1), &a));
        assert_eq!((throttle.told.len(), throttle.order.len()), (1, 1));
    }

    #[test]
    fn nobody_who_asks_for_everything_keeps_others_from_their_answers() {
        let mut answers = Answers::default();
        let [greedy, other] = [Connection::new(b"a"), Connection::new(b"b")];
        let sync = |number: usize| Question::Sync(format!("s{number}").parse().unwrap());
        // Somebody who asks about all that there is gets it at once.
        assert!((0..limits::SERVICES_MAX).all(|n| answers.admit(at(0), &greedy, sync(n))));
        let admitted = (0..5000).filter(|&n| answers.admit(at(1), &greedy, sync(n))).count();
        assert_eq!(admitted, ANSWERS_OF_ONE_MAX);
        assert!(!answers.admit(at(1), &greedy, Question::List(None)));
        assert!(answers.admit(at(1), &other, sync(0)) && !answers.admit(at(1), &other, sync(0)));
        assert!(answers.admit(at(1), &other, Question::List(None)));
        assert!(answers.admit(at(2), &greedy, sync(0)));
        assert_eq!((answers.of_each.len(), answers.told.order.len()), (1, 1));
    }

    #[test]
    fn corrections_are_bounded() {
        let mut throttle = Throttle::corrections();
        let admitted = (0..CORRECTIONS_MAX + 10)
            .filter(|n| throttle.admit(at(0), &Connection::new(&n.to_be_bytes())));
        assert_eq!(admitted.count(), CORRECTIONS_MAX);
        assert!(throttle.admit(at(1), &Connection::new(b"late")));
    }
}
