//! Where the mappers are: which address of which name each of them is dialled at.
//!
//! A name may have several addresses, and each of them stands for a mapper. Names are looked up at the
//! start, when one of their mappers is lost, and now and then, as mappers may be added. A mapper that
//! answers stays where it is, whatever its name means by then. One that does not makes way for an address
//! that nobody has, or rests once its own is gone.

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::backoff::{self, Backoff};
use svcmap_proto::names::{Endpoint, MapperAddress};
use svcmap_proto::time::{Timestamp, earliest};

use crate::config::MAPPERS_MAX;

/// A name is looked up so often while all is well: mappers are seldom added.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// After a loss it is looked up within half of this, and then after this, twice this, and so on. Everybody
/// loses a mapper at the same moment, so each waits for a random part first.
const LOOK_UP_FIRST: Duration = Duration::from_secs(1);

/// What is to be done. A mapper is meant by its index; the first one that is not known yet is a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhereaboutsOutput {
    /// Look this name up, and tell by [`Whereabouts::handle_answer`]. No other comes before that.
    LookUp(Endpoint),
    /// Dial a mapper there, in place of where it was.
    Dial {
        /// Which mapper.
        mapper: usize,
        /// Where.
        at: MapperAddress,
    },
    /// A mapper has no address any more and does not answer: dial it no more.
    Rest {
        /// Which mapper.
        mapper: usize,
    },
    /// A name leads nowhere, in the system's words. It is looked up again, and that is said at a falling
    /// rate.
    Unresolved(Endpoint, String),
    /// A name has so many addresses that no mapper is dialled at some of them.
    TooMany(Endpoint, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was dialled, or is to be once there is an address.
    Away,
    /// So was it, and nothing was heard for an expiry.
    Silent,
    /// It has said WELCOME.
    Answers,
    /// It has, and is the same as another one.
    Twin,
    /// See [`WhereaboutsOutput::Rest`].
    Resting,
}

/// A mapper.
#[derive(Debug)]
struct Place {
    /// Whose address it has.
    name: usize,
    /// Missing until there is one.
    address: Option<Endpoint>,
    state: State,
}

/// What somebody has named.
#[derive(Debug)]
struct Named {
    endpoint: Endpoint,
    /// When it is looked up next. `None` while it is, and for what is no name.
    look_up_at: Option<Timestamp>,
    looked_up_at: Timestamp,
    /// Look-ups since the last loss.
    tries: u32,
    failures: Backoff,
    is_crowded: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Whereabouts {
    names: Vec<Named>,
    places: Vec<Place>,
    /// Which name is being looked up.
    asked: Option<usize>,
    random: fastrand::Rng,
    outputs: VecDeque<WhereaboutsOutput>,
}

impl Whereabouts {
    /// One mapper for each of these, dialled `now` unless it has to be looked up first. `random` spreads
    /// look-ups.
    pub fn new(now: Timestamp, mappers: Vec<Endpoint>, random: fastrand::Rng) -> Self {
        let place = |(name, endpoint): (usize, &Endpoint)| {
            let address = (!endpoint.is_name()).then(|| endpoint.clone());
            Place { name, address, state: State::Away }
        };
        let places = mappers.iter().enumerate().map(place).collect();
        let named = |endpoint: Endpoint| Named {
            look_up_at: endpoint.is_name().then_some(now),
            looked_up_at: now,
            tries: 0,
            failures: Backoff::default(),
            is_crowded: false,
            endpoint,
        };
        let names = mappers.into_iter().map(named).collect();
        Self { names, places, asked: None, random, outputs: VecDeque::new() }
    }

    /// How many mappers there are, those that rest included.
    pub fn mappers(&self) -> usize {
        self.places.len()
    }

    /// A mapper has said WELCOME.
    pub fn handle_welcome(&mut self, now: Timestamp, mapper: usize) {
        self.handle_answering(now, mapper, State::Answers);
    }

    /// A mapper has said WELCOME, and is the same as another one.
    pub fn handle_twin(&mut self, now: Timestamp, mapper: usize) {
        self.handle_answering(now, mapper, State::Twin);
    }

    fn handle_answering(&mut self, now: Timestamp, mapper: usize, state: State) {
        let Some(place) = self.places.get_mut(mapper).filter(|it| it.state != State::Resting)
        else {
            return;
        };
        place.state = state;
        let name = place.name;
        let mut own = self.places.iter().filter(|place| place.name == name);
        let is_well = own.all(|place| !matches!(place.state, State::Away | State::Silent));
        let named = &mut self.names[name];
        if let (true, Some(at)) = (is_well, &mut named.look_up_at) {
            named.tries = u32::MAX;
            *at = now + pause(named.tries, &mut self.random);
        }
    }

    /// The connection to a mapper is gone.
    pub fn handle_lost(&mut self, now: Timestamp, mapper: usize) {
        let Some(place) = self.places.get_mut(mapper) else { return };
        if place.state == State::Answers {
            place.state = State::Away;
            let name = place.name;
            self.look_up_soon(now, name);
        }
    }

    /// A mapper that was the same as another one may be another by now: it is dialled again.
    pub fn handle_parted(&mut self, now: Timestamp, mapper: usize) {
        let Some(place) = self.places.get_mut(mapper) else { return };
        let (name, is_twin) = (place.name, place.state == State::Twin);
        if let (Some(address), true) = (place.address.clone(), is_twin) {
            self.look_up_soon(now, name);
            self.dial(mapper, name, address);
        }
    }

    /// Nothing was heard of a mapper for so long that it is to be dialled again. Returns where, if that is
    /// known.
    pub fn handle_silent(&mut self, now: Timestamp, mapper: usize) -> Option<MapperAddress> {
        let place = self.places.get_mut(mapper).filter(|it| it.state != State::Resting)?;
        let (name, former) = (place.name, std::mem::replace(&mut place.state, State::Silent));
        let address = place.address.clone();
        if former == State::Answers {
            self.look_up_soon(now, name);
        }
        Some(MapperAddress { named: self.names[name].endpoint.clone(), address: address? })
    }

    /// One of its mappers was lost.
    fn look_up_soon(&mut self, now: Timestamp, name: usize) {
        let named = &mut self.names[name];
        named.tries = 0;
        if let Some(at) = &mut named.look_up_at {
            let soon = now + (LOOK_UP_FIRST / 2).mul_f64(self.random.f64());
            *at = soon.max(named.looked_up_at + LOOK_UP_FIRST).min(*at);
        }
    }

    /// These are the addresses of the name that was to be looked up, or it leads nowhere.
    pub fn handle_answer(&mut self, now: Timestamp, answer: Result<Vec<Endpoint>, String>) {
        let Some(name) = self.asked.take() else { return };
        let named = &mut self.names[name];
        named.looked_up_at = now;
        named.look_up_at = Some(now + pause(named.tries, &mut self.random));
        named.tries = named.tries.saturating_add(1);
        match answer {
            Ok(addresses) => {
                named.failures.reset();
                self.assign(name, &addresses);
            }
            // Whoever answers names may be away as well: what was known stays.
            Err(error) => {
                named.failures.pause(LOOK_UP_FIRST, &mut self.random);
                if named.failures.is_notable() {
                    let unresolved = WhereaboutsOutput::Unresolved(named.endpoint.clone(), error);
                    self.outputs.push_back(unresolved);
                }
            }
        }
    }

    /// Gives each of these addresses to a mapper, as far as there may be so many.
    fn assign(&mut self, name: usize, addresses: &[Endpoint]) {
        let is_held = |address: &&Endpoint| {
            let mut awake = self.places.iter().filter(|place| place.state != State::Resting);
            awake.any(|place| place.address.as_ref() == Some(address))
        };
        let mut free: VecDeque<_> =
            addresses.iter().filter(|address| !is_held(address)).cloned().collect();
        // Who has moved.
        for mapper in 0..self.places.len() {
            let place = &self.places[mapper];
            let is_awake = !matches!(place.state, State::Answers | State::Resting);
            let is_listed = place.address.as_ref().is_some_and(|it| addresses.contains(it));
            if place.name == name && is_awake && !is_listed {
                match free.pop_front() {
                    Some(address) => self.dial(mapper, name, address),
                    None => self.rest(mapper),
                }
            }
        }
        // Who is new.
        while let Some(address) = free.pop_front() {
            let resting = self.places.iter().position(|place| place.state == State::Resting);
            let mapper = resting.unwrap_or(self.places.len());
            if mapper >= MAPPERS_MAX {
                free.push_front(address);
                break;
            }
            self.dial(mapper, name, address);
        }
        let is_crowded = !free.is_empty();
        if is_crowded {
            self.take_turns(name, free.into());
        }
        let named = &mut self.names[name];
        if is_crowded && !std::mem::replace(&mut named.is_crowded, is_crowded) {
            let too_many = WhereaboutsOutput::TooMany(named.endpoint.clone(), addresses.len());
            self.outputs.push_back(too_many);
        }
        named.is_crowded = is_crowded;
    }

    /// There are more addresses than there may be mappers: those that say nothing go on to the next one
    /// each time.
    fn take_turns(&mut self, name: usize, mut free: Vec<Endpoint>) {
        for mapper in 0..self.places.len() {
            let place = &self.places[mapper];
            if place.name != name || place.state != State::Silent || free.is_empty() {
                continue;
            }
            let next = free.iter().position(|address| Some(address) > place.address.as_ref());
            let address = free.remove(next.unwrap_or(0));
            self.dial(mapper, name, address);
        }
    }

    fn dial(&mut self, mapper: usize, name: usize, address: Endpoint) {
        let at =
            MapperAddress { named: self.names[name].endpoint.clone(), address: address.clone() };
        let place = Place { name, address: Some(address), state: State::Away };
        match self.places.get_mut(mapper) {
            Some(known) => *known = place,
            None => self.places.push(place),
        }
        self.outputs.push_back(WhereaboutsOutput::Dial { mapper, at });
    }

    fn rest(&mut self, mapper: usize) {
        self.places[mapper].state = State::Resting;
        self.outputs.push_back(WhereaboutsOutput::Rest { mapper });
    }

    /// When [`Whereabouts::handle_timeout`] is due: never if all were named by their addresses.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let due = || self.names.iter().map(|named| named.look_up_at).fold(None, earliest);
        self.asked.is_none().then(due)?
    }

    /// Has a name looked up, if that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let names = self.names.iter_mut().enumerate();
        let due = names.filter(|(_, named)| named.look_up_at.is_some());
        if let Some((name, named)) = due.min_by_key(|(_, named)| named.look_up_at) {
            (self.asked, named.look_up_at) = (Some(name), None);
            self.outputs.push_back(WhereaboutsOutput::LookUp(named.endpoint.clone()));
        }
    }

    /// Everybody stays where he is from now on: nothing is looked up any more.
    pub fn stop(&mut self) {
        self.asked = None;
        self.names.iter_mut().for_each(|named| named.look_up_at = None);
        self.outputs.clear();
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<WhereaboutsOutput> {
        self.outputs.pop_front()
    }
}

/// Until the next look-up after that many others.
fn pause(others: u32, random: &mut fastrand::Rng) -> Duration {
    backoff::pause_up_to(LOOK_UP_EVERY, LOOK_UP_FIRST, others, random)
}

#[cfg(test)]
mod tests;
