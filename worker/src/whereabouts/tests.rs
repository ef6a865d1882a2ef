use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::at;

const NAME: &str = "tcp://mappers.example:5555";

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

/// The addresses of these numbers.
fn addresses(numbers: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
    numbers.into_iter().map(|number| endpoint(&format!("tcp://10.0.0.{number}:5555"))).collect()
}

/// A mapper, as whoever dials knows it.
#[derive(Clone, Debug, Default)]
struct Dialled {
    address: Option<Endpoint>,
    rests: bool,
    answers: bool,
}

/// Does what is wanted, and knows what came of it.
struct Scene {
    now: Timestamp,
    whereabouts: Whereabouts,
    mappers: Vec<Dialled>,
    /// Names that are being looked up, and those that were.
    asked: Option<Endpoint>,
    look_ups: usize,
    said: Vec<WhereaboutsOutput>,
}

impl Scene {
    fn new(named: &[&str]) -> Self {
        let named: Vec<_> = named.iter().map(|text| endpoint(text)).collect();
        let dialled = |named: &Endpoint| Dialled {
            address: (!named.is_name()).then(|| named.clone()),
            ..Dialled::default()
        };
        let mappers = named.iter().map(dialled).collect();
        let whereabouts = Whereabouts::new(at(0), named, fastrand::Rng::with_seed(1));
        let (asked, look_ups, said) = (None, 0, Vec::new());
        let mut scene = Self { now: at(0), whereabouts, mappers, asked, look_ups, said };
        scene.act();
        scene
    }

    fn act(&mut self) {
        self.whereabouts.handle_timeout(self.now);
        while let Some(output) = self.whereabouts.poll_output() {
            match output {
                WhereaboutsOutput::LookUp(name) => {
                    assert!(name.is_name());
                    assert_eq!(self.asked.replace(name), None, "one at a time");
                    self.look_ups += 1;
                }
                WhereaboutsOutput::Dial { mapper, at } => {
                    assert!(mapper <= self.mappers.len());
                    self.mappers.resize(self.mappers.len().max(mapper + 1), Dialled::default());
                    assert!(!self.mappers[mapper].answers, "it answers where it is");
                    let address = Some(at.address);
                    self.mappers[mapper] = Dialled { address, ..Dialled::default() };
                }
                WhereaboutsOutput::Rest { mapper } => {
                    assert!(!self.mappers[mapper].answers, "it answers");
                    self.mappers[mapper].rests = true;
                }
                other => self.said.push(other),
            }
        }
        assert!(self.mappers.len() <= MAPPERS_MAX);
        let dialled = self.awake();
        let places: BTreeSet<_> = dialled.iter().collect();
        assert_eq!(places.len(), dialled.len(), "{dialled:?}");
    }

    /// Where mappers are dialled.
    fn awake(&self) -> Vec<Endpoint> {
        let awake = self.mappers.iter().filter(|mapper| !mapper.rests);
        awake.filter_map(|mapper| mapper.address.clone()).collect()
    }

    /// What is asked for means that.
    fn answer(&mut self, answer: Result<Vec<Endpoint>, String>) {
        self.asked.take().unwrap();
        self.whereabouts.handle_answer(self.now, answer);
        self.act();
    }

    fn welcome(&mut self, mapper: usize) {
        let Dialled { address, rests, answers } = &mut self.mappers[mapper];
        if address.is_some() && !*rests {
            *answers = true;
            self.whereabouts.handle_welcome(self.now, mapper);
        }
        self.act();
    }

    fn lose(&mut self, mapper: usize) {
        self.mappers[mapper].answers = false;
        self.whereabouts.handle_lost(self.now, mapper);
        self.act();
    }

    fn silence(&mut self, mapper: usize) -> Option<MapperAddress> {
        self.mappers[mapper].answers = false;
        let again = self.whereabouts.handle_silent(self.now, mapper);
        self.act();
        again
    }

    /// Goes on until a name is to be looked up. Returns how long that took.
    fn wait(&mut self) -> Duration {
        let begun = self.now;
        while self.asked.is_none() {
            self.now = self.whereabouts.poll_timeout().unwrap().max(self.now);
            self.act();
        }
        self.now.since(begun)
    }
}

#[test]
fn addresses_and_localhost_are_never_looked_up() {
    let mut scene = Scene::new(&["tcp://10.0.0.1:5555", "tcp://localhost:5555", "tcp://[::1]:7"]);
    for mapper in 0..3 {
        scene.welcome(mapper);
        scene.lose(mapper);
        let named = scene.mappers[mapper].address.clone().unwrap();
        assert_eq!(scene.silence(mapper), Some(MapperAddress::of(&named)));
        assert_eq!(scene.whereabouts.poll_timeout(), None);
    }
    assert_eq!(scene.look_ups, 0);
}

#[test]
fn each_address_of_a_name_is_a_mapper() {
    let mut scene = Scene::new(&[NAME]);
    assert_eq!((scene.asked.clone(), scene.silence(0)), (Some(endpoint(NAME)), None));
    scene.answer(Ok(addresses([2, 3])));
    assert_eq!(scene.awake(), addresses([2, 3]));
    let target = scene.silence(1).unwrap();
    assert_eq!(target.to_string(), "tcp://mappers.example:5555 (10.0.0.3)");
}

#[test]
fn a_name_is_looked_up_each_minute_and_soon_after_a_loss() {
    let mut scene = Scene::new(&[NAME]);
    scene.answer(Ok(addresses([2])));
    scene.welcome(0);
    let pause = scene.wait();
    assert!((LOOK_UP_EVERY * 3 / 4..=LOOK_UP_EVERY).contains(&pause), "{pause:?}");
    // One was added.
    scene.answer(Ok(addresses([2, 3])));
    assert_eq!(scene.awake(), addresses([2, 3]));
    scene.welcome(1);
    scene.lose(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(scene.wait());
        scene.answer(Ok(addresses([2, 3])));
    }
    assert!(pauses[0] <= LOOK_UP_FIRST, "{pauses:?}");
    assert!(pauses[1..].is_sorted() && pauses[7] <= LOOK_UP_EVERY, "{pauses:?}");
    assert!(pauses.iter().sum::<Duration>() > LOOK_UP_EVERY, "{pauses:?}");
    scene.welcome(0);
    assert!(scene.wait() > LOOK_UP_EVERY / 2);
}

#[test]
fn who_has_moved_is_found_and_who_is_gone_is_left_alone() {
    let mut scene = Scene::new(&[NAME]);
    scene.answer(Ok(addresses([2, 3, 4])));
    (0..3).for_each(|mapper| scene.welcome(mapper));
    scene.wait();
    // Nobody listens to that while they answer.
    scene.answer(Ok(addresses([3])));
    assert_eq!(scene.awake(), addresses([2, 3, 4]));
    scene.lose(0);
    scene.lose(2);
    scene.wait();
    scene.answer(Ok(addresses([3, 9])));
    assert_eq!(scene.awake(), addresses([9, 3]));
    assert!(scene.mappers[2].rests);
    assert_eq!(scene.silence(2), None);
    scene.lose(0);
    // Who was left alone is the one who is new.
    scene.wait();
    scene.answer(Ok(addresses([3, 8, 9])));
    assert_eq!(scene.awake(), addresses([9, 3, 8]));
}

#[test]
fn a_name_that_leads_nowhere_stays_and_what_it_meant_does_not_change() {
    let mut scene = Scene::new(&[NAME]);
    for _ in 0..4 {
        scene.answer(Err("try again".to_owned()));
        scene.wait();
    }
    let said = WhereaboutsOutput::Unresolved(endpoint(NAME), "try again".to_owned());
    assert_eq!(scene.said, [said.clone(), said.clone(), said], "the first, second, fourth time");
    scene.answer(Ok(addresses([2, 3])));
    scene.lose(0);
    scene.wait();
    scene.answer(Err("try again".to_owned()));
    assert_eq!(scene.awake(), addresses([2, 3]));
}

#[test]
fn of_one_mapper_at_two_addresses_the_other_is_tried_once_it_may_be_another() {
    let mut scene = Scene::new(&[NAME]);
    scene.answer(Ok(addresses([2, 3])));
    scene.welcome(0);
    scene.whereabouts.handle_twin(scene.now, 1);
    assert!(scene.wait() > LOOK_UP_EVERY / 2, "all is well");
    scene.answer(Ok(addresses([2, 3])));
    scene.lose(0);
    scene.whereabouts.handle_parted(scene.now, 1);
    assert_eq!(scene.whereabouts.outputs.len(), 1, "it is dialled");
    scene.act();
    assert_eq!(scene.awake(), addresses([2, 3]));
}

#[test]
fn of_too_many_addresses_those_that_say_nothing_take_turns() {
    let mut scene = Scene::new(&["tcp://10.0.0.99:5555", NAME]);
    let all = addresses(1..MAPPERS_MAX + 4);
    scene.answer(Ok(all.clone()));
    assert_eq!(scene.mappers.len(), MAPPERS_MAX);
    let too_many = WhereaboutsOutput::TooMany(endpoint(NAME), all.len());
    assert_eq!(scene.said, [too_many]);
    (0..MAPPERS_MAX - 1).for_each(|mapper| scene.welcome(mapper));
    let last = MAPPERS_MAX - 1;
    let mut tried = BTreeSet::new();
    for _ in 0..all.len() {
        tried.extend(scene.silence(last).map(|target| target.address));
        scene.wait();
        scene.answer(Ok(all.clone()));
    }
    assert_eq!(tried.len(), all.len() - (MAPPERS_MAX - 2), "{tried:?}");
    assert_eq!(scene.said.len(), 1, "it is said once");
}

#[derive(Clone, Debug)]
enum Step {
    /// What is looked up means that; nothing if it leads nowhere.
    Answer(Vec<usize>),
    Welcome(usize),
    Twin(usize),
    Lose(usize),
    Silence(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mapper = 0..MAPPERS_MAX;
    prop_oneof![
        4 => prop::collection::btree_set(1usize..24, 0..22)
            .prop_map(|numbers| Step::Answer(numbers.into_iter().collect())),
        4 => mapper.clone().prop_map(Step::Welcome),
        1 => mapper.clone().prop_map(Step::Twin),
        2 => mapper.clone().prop_map(Step::Lose),
        2 => mapper.prop_map(Step::Silence),
        3 => (0u64..90_000).prop_map(Step::Pass),
    ]
}

impl Scene {
    fn take(&mut self, step: Step) {
        let known = |mapper: usize| mapper < self.mappers.len();
        match step {
            Step::Answer(numbers) if self.asked.is_some() && !numbers.is_empty() => {
                let all = addresses(numbers);
                self.answer(Ok(all.clone()));
                let has_room =
                    self.mappers.len() < MAPPERS_MAX || self.mappers.iter().any(|it| it.rests);
                let awake = self.awake();
                assert!(!has_room || all.iter().all(|address| awake.contains(address)));
            }
            Step::Answer(_) if self.asked.is_some() => self.answer(Err("nowhere".to_owned())),
            Step::Welcome(mapper) if known(mapper) => self.welcome(mapper),
            Step::Twin(mapper) if known(mapper) && !self.mappers[mapper].answers => {
                self.whereabouts.handle_twin(self.now, mapper);
            }
            Step::Lose(mapper) if known(mapper) => self.lose(mapper),
            Step::Silence(mapper) if known(mapper) => drop(self.silence(mapper)),
            Step::Pass(ms) => {
                self.now = self.now + Duration::from_millis(ms);
                self.act();
            }
            _ => {}
        }
    }

    /// All is lost, and of these addresses only one is anybody's: it is found.
    fn find(&mut self, all: &[Endpoint], there: &Endpoint) {
        (0..self.mappers.len()).for_each(|mapper| self.lose(mapper));
        for _ in 0..4 * all.len() {
            for mapper in 0..self.mappers.len() {
                let Dialled { address, rests, .. } = &self.mappers[mapper];
                if address.as_ref() == Some(there) && !rests {
                    return self.welcome(mapper);
                }
                self.whereabouts.handle_parted(self.now, mapper);
                self.silence(mapper);
            }
            self.wait();
            self.answer(Ok(all.to_vec()));
        }
        panic!("{there} was not tried: {:?}", self.whereabouts);
    }
}

proptest! {
    #[test]
    fn whatever_happens_who_is_listed_and_there_is_found_and_no_address_has_two(
        steps in prop::collection::vec(step(), 1..80),
        listed in prop::collection::btree_set(1usize..40, 1..30),
        there in any::<prop::sample::Index>(),
    ) {
        let mut scene = Scene::new(&[NAME, "tcp://10.0.0.3:5555", "tcp://others.example:5555"]);
        steps.into_iter().for_each(|step| scene.take(step));
        let all = addresses(listed);
        scene.find(&all, &all[there.index(all.len())]);
    }
}
