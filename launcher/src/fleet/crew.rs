//! The instances of one service: how many there are, and how they are replaced without a gap.

use std::collections::{BTreeMap, VecDeque};

use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use super::member::{Member, State};
use crate::text::time;
use crate::topology::{Service, Worker};

/// The instances of one service.
pub(super) struct Crew {
    pub(super) spec: Service,
    /// By number. A number is used again once its process is gone.
    pub(super) members: BTreeMap<u32, Member>,
    /// Those that are being replaced.
    pub(super) roll: Option<Roll>,
    /// How the last replacement ended: how many were replaced, or why no more.
    pub(super) rolled: Option<Result<u32, String>>,
    /// New ones whose places others are to take.
    outdated: Vec<u32>,
    /// With what those were started that run, as long as nobody knows whether what comes after it works.
    former: Option<Worker>,
    /// Whether it does not, so that they go on with what they were started with.
    pub(super) has_reverted: bool,
}

/// A replacement of some members, each by a new one that has to be ready first.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// Whose turn has not come.
    left: VecDeque<u32>,
    pairs: Vec<Pair>,
    replaced: u32,
    /// Why it goes on no further.
    given_up: Option<String>,
}

/// A new member and the one in whose place it comes.
#[derive(Debug)]
struct Pair {
    new: u32,
    old: u32,
    deadline: Timestamp,
    /// Whether the new one was ready, and the old one was asked to end.
    is_over: bool,
}

/// What a step wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// That member is to end, and to be forgotten.
    Terminate(u32),
    /// People are told this of the service.
    Say { is_bad: bool, text: String },
}

impl Crew {
    pub(super) fn new(spec: Service) -> Self {
        let (members, roll, rolled, outdated, former, has_reverted) = Default::default();
        Self { spec, members, roll, rolled, outdated, former, has_reverted }
    }

    /// Those of these numbers are replaced, with others that are being replaced.
    pub(super) fn replace(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.rolled = None;
        let roll = self.roll.get_or_insert_default();
        for number in numbers {
            let is_known =
                roll.left.contains(&number) || roll.pairs.iter().any(|pair| pair.old == number);
            if !is_known {
                roll.left.push_back(number);
            }
        }
    }

    /// From now on it is to be like that; `is_replaced`: by other processes.
    pub(super) fn take(&mut self, spec: Service, is_replaced: bool) {
        let before = std::mem::replace(&mut self.spec, spec);
        if is_replaced {
            self.former.get_or_insert(before.worker);
            self.replace_all();
        } else {
            // What runs is what is wanted.
            self.has_reverted = false;
        }
    }

    /// All that run are replaced, also by others than those that were to take their places.
    fn replace_all(&mut self) {
        if let Some(roll) = &mut self.roll {
            roll.given_up = None;
            for pair in roll.pairs.extract_if(.., |pair| !pair.is_over) {
                self.outdated.push(pair.new);
            }
        }
        let runs = |(number, member): &(u32, &Member)| {
            !self.outdated.contains(number) && !member.state.is_at_rest()
        };
        let mut all: Vec<u32> = self.staying().filter(runs).map(|(number, _)| number).collect();
        // Nobody takes the place of who is too many.
        self.outdated.extend(all.drain(all.len().min(self.spec.instances as usize)..));
        self.replace(all);
    }

    /// That one is not replaced, as it is to stay away.
    pub(super) fn spare(&mut self, number: u32) {
        self.roll.iter_mut().for_each(|roll| roll.left.retain(|left| *left != number));
    }

    /// The members that stay.
    pub(super) fn staying(&self) -> impl Iterator<Item = (u32, &Member)> {
        let all = self.members.iter().filter(|(_, member)| !member.state.is_leaving());
        all.map(|(&number, member)| (number, member))
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let pairs = self.roll.iter().flat_map(|roll| &roll.pairs);
        pairs.filter(|pair| !pair.is_over).map(|pair| pair.deadline).min()
    }

    /// What has to happen for there to be as many as wanted, and the ones that are wanted.
    pub(super) fn step(&mut self, now: Timestamp) -> Vec<Order> {
        let outdated = std::mem::take(&mut self.outdated).into_iter().map(Order::Terminate);
        let orders = match self.roll.take() {
            Some(roll) => self.step_roll(roll, now),
            None => self.fill(now),
        };
        outdated.chain(orders).collect()
    }

    fn free_number(&self) -> u32 {
        (1..).find(|number| !self.members.contains_key(number)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, now: Timestamp) -> u32 {
        let number = self.free_number();
        self.members.insert(number, Member::new(now));
        number
    }

    /// Adds who is missing, and ends who is too many: the highest numbers, and first of all those that
    /// do not run.
    fn fill(&mut self, now: Timestamp) -> Vec<Order> {
        let wanted = self.spec.instances as usize;
        while self.staying().count() < wanted {
            self.add(now);
        }
        let mut staying: Vec<(u32, bool)> =
            self.staying().map(|(number, member)| (number, member.state.is_alive())).collect();
        staying.sort_by_key(|&(number, is_alive)| (is_alive, std::cmp::Reverse(number)));
        let excess = staying.len().saturating_sub(wanted);
        staying.into_iter().take(excess).map(|(number, _)| Order::Terminate(number)).collect()
    }

    fn step_roll(&mut self, mut roll: Roll, now: Timestamp) -> Vec<Order> {
        let mut orders = Vec::new();
        for pair in &mut roll.pairs {
            if pair.is_over {
                continue;
            }
            let member = self.members.get(&pair.new);
            let trouble = match member.map(|member| (member.state, member)) {
                Some((State::Ready { .. }, _)) => {
                    pair.is_over = true;
                    orders.push(Order::Terminate(pair.old));
                    continue;
                }
                Some((State::Starting { .. }, _)) if now < pair.deadline => continue,
                Some((State::Pausing { .. }, member)) if member.deaths.total == 0 => continue,
                Some((State::Starting { .. }, _)) => {
                    format!("not ready within {}", time(self.spec.rolling.ready_within))
                }
                Some((_, member)) => member.last.clone().unwrap_or("it ended".to_owned()),
                None => "it is gone".to_owned(),
            };
            roll.given_up.get_or_insert(format!("instance {}: {trouble}", pair.new));
        }
        if roll.given_up.is_some() {
            roll.left.clear();
            let failed = roll.pairs.extract_if(.., |pair| !pair.is_over);
            orders.extend(failed.map(|pair| Order::Terminate(pair.new)));
        }
        // What is over once the old one is gone.
        let before = roll.pairs.len();
        roll.pairs.retain(|pair| !pair.is_over || self.members.contains_key(&pair.old));
        roll.replaced += u32::try_from(before - roll.pairs.len()).unwrap_or(u32::MAX);
        while roll.pairs.len() < self.spec.rolling.surge as usize {
            let Some(old) = roll.left.pop_front() else { break };
            if self.members.contains_key(&old) {
                let (new, deadline) = (self.add(now), now + self.spec.rolling.ready_within);
                roll.pairs.push(Pair { new, old, deadline, is_over: false });
            }
        }
        if !roll.pairs.is_empty() {
            self.roll = Some(roll);
            return orders;
        }
        let Roll { replaced, given_up, .. } = roll;
        let is_undone = given_up.is_some() && self.former.is_some();
        match self.former.take() {
            // Whoever dies is started as it was, and not as what did not work.
            Some(former) if is_undone => self.spec.worker = former,
            Some(_) => self.has_reverted = false,
            None => {}
        }
        self.has_reverted |= is_undone;
        orders.push(match &given_up {
            None => Order::Say { is_bad: false, text: format!("{replaced} replaced") },
            Some(why) => {
                let rest = if is_undone { "; it goes on with its former settings" } else { "" };
                let text = format!("not replaced any further: {why}{rest}");
                Order::Say { is_bad: true, text }
            }
        });
        self.rolled = Some(given_up.map_or(Ok(replaced), Err));
        orders
    }
}

/// What the member of that number is called.
pub(super) fn instance(prefix: &Option<Name>, number: u32) -> Name {
    let name = match prefix {
        Some(prefix) => format!("{prefix}-{number}"),
        None => number.to_string(),
    };
    // A number is a valid name, and a prefix is one that leaves room for it.
    name.parse().unwrap_or_else(|_| unreachable!())
}

/// The number of the member that is called so.
pub(super) fn number(prefix: &Option<Name>, instance: &Name) -> Option<u32> {
    let number = match prefix {
        Some(prefix) => instance.as_str().strip_prefix(prefix.as_str())?.strip_prefix('-')?,
        None => instance.as_str(),
    };
    number.parse().ok()
}
