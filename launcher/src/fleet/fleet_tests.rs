use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::command::Command;
use super::*;
use crate::topology::read;

const MS: Duration = Duration::from_millis(1);

/// A fleet whose processes do what they are told at once, unless they are ill.
struct World {
    fleet: Fleet,
    now: Timestamp,
    running: BTreeSet<Who>,
    /// Services whose processes die as soon as they are started.
    ill: BTreeSet<String>,
    /// Services whose processes never say that they are ready.
    mute: BTreeSet<String>,
    /// Those that end only when they are killed.
    deaf: BTreeSet<String>,
    said: Vec<String>,
    answers: Vec<(u64, Result<String, CommandError>)>,
    started: Vec<String>,
    /// With what each was started last.
    launched: BTreeMap<String, String>,
    /// The fewest that were ready at a time since that was last asked.
    fewest: usize,
}

fn topology(text: &str) -> Topology {
    read(Path::new("topology.toml"), Path::new("/"), text)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

const TWO: &str = "[mapper.main]\n[service.a]\nbuiltin = \"echo\"\ninstances = 2\n";

impl World {
    fn new(text: &str) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        Self {
            fleet: Fleet::new(topology(text), now, 7),
            now,
            running: BTreeSet::new(),
            ill: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            said: Vec::new(),
            answers: Vec::new(),
            started: Vec::new(),
            launched: BTreeMap::new(),
            fewest: usize::MAX,
        }
    }

    fn up(text: &str) -> Self {
        let mut world = Self::new(text);
        world.settle();
        world
    }

    fn is_in(all: &BTreeSet<String>, who: &Who) -> bool {
        let name = who.to_string();
        all.iter().any(|one| name.split('/').next() == Some(one) || name == *one)
    }

    fn settle(&mut self) {
        while let Some(output) = self.fleet.poll_output() {
            self.perform(output);
            let ready = self
                .fleet
                .members()
                .filter(|(who, member)| who.service().is_some() && member.state.is_ready());
            self.fewest = self.fewest.min(ready.count());
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Start(who, launch) => {
                self.started.push(who.to_string());
                let args: Vec<_> = launch.args.iter().filter_map(|arg| arg.to_str()).collect();
                self.launched.insert(who.to_string(), args.join(" "));
                assert!(self.running.insert(who.clone()), "{who} is there already");
                if Self::is_in(&self.ill, &who) {
                    return self.end(&who, 1);
                }
                if !Self::is_in(&self.mute, &who) {
                    let line = match who {
                        Who::Mapper(_) => {
                            let args = &self.launched[&who.to_string()];
                            let at =
                                |flag| args.split(flag).nth(1).unwrap().split(' ').next().unwrap();
                            let (bind, publish) = (at("--bind="), at("--publish="));
                            format!("listening on {bind}, publishing on {publish}")
                        }
                        Who::Worker(_) => "registered with tcp://127.0.0.1:9".to_owned(),
                    };
                    self.fleet.handle_line(self.now, &who, &line);
                }
            }
            Output::Terminate(who) if Self::is_in(&self.deaf, &who) => {}
            Output::Terminate(who) => self.end(&who, 0),
            Output::Kill(who) => self.end(&who, 137),
            Output::Say(event) => {
                let who = event.who.map(|who| format!("{who} ")).unwrap_or_default();
                self.said.push(format!("{who}{}", event.text));
            }
            Output::Answer(id, answer) => self.answers.push((id.0, answer)),
        }
    }

    fn end(&mut self, who: &Who, code: i32) {
        assert!(self.running.remove(who), "{who} is not there");
        let last_line = (code == 1).then(|| "no such host".to_owned());
        let end = End { code: Some(code), how: format!("exited with status {code}"), last_line };
        self.fleet.handle_end(self.now, who, end);
    }

    fn kill(&mut self, name: &str, code: i32) {
        let who = self.running.iter().find(|who| who.to_string() == name).unwrap().clone();
        self.end(&who, code);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let due = self.fleet.poll_timeout().filter(|at| *at <= until);
            let Some(at) = due else {
                self.now = until;
                return;
            };
            self.now = at.max(self.now);
            self.fleet.handle_timeout(self.now);
            self.settle();
        }
        panic!("a busy loop");
    }

    fn order(&mut self, command: Command) -> Option<Result<String, CommandError>> {
        let before = self.answers.len();
        self.fleet.handle_command(self.now, CommandId(before as u64), command);
        self.settle();
        self.answers.get(before).map(|(_, answer)| answer.clone())
    }

    fn running(&self) -> Vec<String> {
        self.running.iter().map(Who::to_string).collect()
    }

    fn state(&self, name: &str) -> &'static str {
        let mut members = self.fleet.members();
        members.find(|(who, _)| who.to_string() == name).map_or("unknown", |(_, m)| m.state.word())
    }
}

fn all(text: &str) -> Vec<command::Target> {
    vec![text.parse().unwrap()]
}

#[test]
fn mappers_come_first_and_go_last() {
    let mut world = World::up(TWO);
    assert_eq!(world.started, ["main", "a/1", "a/2"]);
    assert_eq!(world.running(), ["main", "a/1", "a/2"]);
    world.deaf.insert("a/2".to_owned());
    world.fleet.handle_close(world.now);
    world.settle();
    assert_eq!(world.running(), ["main", "a/2"], "the mapper waits for who says goodbye to it");
    assert!(!world.fleet.is_over());
    // The grace, what a program has after it, and a moment for the goodbyes.
    world.pass(Duration::from_secs(18));
    assert!(world.running().is_empty() && world.fleet.is_over());
    assert!(world.said.iter().any(|said| said.contains("a/2 has not ended in time")));
}

#[test]
fn services_wait_for_a_mapper_and_not_for_ever() {
    let text =
        TWO.replace("[mapper.main]", "[mapper.main]\n[mapper.spare]\nbind = \"tcp://127.0.0.1:7\"");
    let mut world = World::new(&text);
    world.mute.insert("spare".to_owned());
    world.settle();
    assert_eq!(world.running(), ["main", "spare"]);
    world.pass(MAPPERS_FIRST);
    assert_eq!(world.running(), ["main", "spare", "a/1", "a/2"]);
    // Without any they would not know where to go.
    let anywhere = "[mapper.main]\nbind = \"tcp://127.0.0.1:0\"";
    let mut world = World::new(&TWO.replace("[mapper.main]", anywhere));
    world.mute.insert("main".to_owned());
    world.settle();
    world.pass(5 * MAPPERS_FIRST);
    assert_eq!(world.running(), ["main"]);
}

#[test]
fn what_dies_is_started_again_ever_later_and_left_alone_if_it_dies_too_often() {
    let mut world = World::up(TWO);
    world.kill("a/1", 1);
    assert_eq!(world.state("a/1"), "waiting");
    assert!(world.said.last().unwrap().contains("no such host; again in"), "{:?}", world.said);
    world.pass(200 * MS);
    assert_eq!(world.state("a/1"), "ready");
    // Four more in a row are too many, however soon they come.
    world.ill.insert("a/1".to_owned());
    world.kill("a/1", 1);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.state("a/1"), "failed");
    assert_eq!(world.started.iter().filter(|name| *name == "a/1").count(), 5);
    assert!(
        world
            .said
            .last()
            .unwrap()
            .contains("FAILED: 5 ends in 60s; last: exited with status 1: no such host")
    );
    assert_eq!(world.state("a/2"), "ready", "the rest is unharmed");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.fleet.poll_timeout(), None, "and nothing is left to be done");
    // Whoever has mended it starts it.
    world.ill.clear();
    assert_eq!(world.order(Command::Start(all("a/1"))), Some(Ok("1 ready".to_owned())));
    assert_eq!(world.order(Command::Start(all("a"))), Some(Ok("nothing to do".to_owned())));
}

#[test]
fn one_that_was_healthy_for_long_begins_anew() {
    let mut world = World::up(TWO);
    for _ in 0..20 {
        world.kill("a/1", 1);
        world.pass(200 * MS);
        assert_eq!(world.state("a/1"), "ready");
        world.pass(Duration::from_secs(61));
    }
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let mut world = World::up(TWO);
    world.kill("a/1", 64);
    assert_eq!(world.state("a/1"), "failed");
    world.kill("a/2", 0);
    assert_eq!(world.state("a/2"), "done");
    let mut world = World::up(&format!("{TWO}restart = \"always\"\n"));
    world.kill("a/2", 0);
    assert_eq!(world.state("a/2"), "waiting");
    let mut world = World::up(&format!("{TWO}restart = \"never\"\n"));
    world.kill("a/2", 1);
    assert_eq!(world.state("a/2"), "failed");
    world.kill("a/1", 0);
    assert_eq!(world.state("a/1"), "done");
    // A mapper's port may be free again some time.
    world.kill("main", 64);
    assert_eq!(world.state("main"), "waiting");
}

#[test]
fn a_service_is_replaced_one_after_another_and_never_fewer_are_ready() {
    let mut world = World::up(TWO);
    world.fewest = usize::MAX;
    assert_eq!(world.order(Command::Restart(all("a"))), Some(Ok("2 replaced".to_owned())));
    assert_eq!(world.running(), ["main", "a/1", "a/3"]);
    assert_eq!(world.fewest, 2);
    assert_eq!(world.started[3..], ["a/3", "a/1"]);
    // With more at a time.
    let mut world = World::up(&format!("{TWO}rolling = {{ surge = 2 }}\n"));
    assert_eq!(world.order(Command::Restart(all("a"))), Some(Ok("2 replaced".to_owned())));
    assert_eq!(world.running(), ["main", "a/3", "a/4"]);
}

#[test]
fn a_new_one_that_is_no_good_takes_nobodys_place() {
    let mut world = World::up(TWO);
    world.ill.insert("a/3".to_owned());
    let answer = world.order(Command::Restart(all("a"))).unwrap();
    assert!(answer.as_ref().unwrap_err().to_string().contains("no such host"), "{answer:?}");
    assert_eq!(world.running(), ["main", "a/1", "a/2"]);
    assert_eq!(world.state("a/3"), "unknown");
    // Or one that is never ready.
    world.ill.clear();
    world.mute.insert("a/3".to_owned());
    assert_eq!(world.order(Command::Restart(all("a/2"))), None);
    world.pass(Duration::from_secs(30));
    let (_, answer) = world.answers.last().unwrap();
    assert!(
        answer.as_ref().unwrap_err().to_string().contains("not ready within 30s"),
        "{answer:?}"
    );
    assert_eq!(world.running(), ["main", "a/1", "a/2"]);
}

#[test]
fn there_are_as_many_as_wanted() {
    let mut world = World::up(TWO);
    let service: Name = "a".parse().unwrap();
    assert_eq!(world.order(Command::Scale(service.clone(), 4)), Some(Ok("4 of a ready".into())));
    assert_eq!(world.running().len(), 5);
    assert_eq!(world.order(Command::Scale(service.clone(), 1)), Some(Ok("1 of a ready".into())));
    assert_eq!(world.running(), ["main", "a/1"]);
    world.ill.insert("a/2".to_owned());
    assert_eq!(world.order(Command::Scale(service.clone(), 2)), None);
    world.pass(Duration::from_secs(60));
    assert!(
        world.answers.last().unwrap().1.as_ref().unwrap_err().to_string().contains("a/2 is failed")
    );
    assert!(world.order(Command::Scale(service, 1_000_000)).unwrap().is_err());
    assert!(world.order(Command::Scale("b".parse().unwrap(), 1)).unwrap().is_err());
}

#[test]
fn an_operators_stop_is_no_failure() {
    let mut world = World::up(TWO);
    for _ in 0..9 {
        assert_eq!(world.order(Command::Stop(all("a/1"))), Some(Ok("1 stopped".to_owned())));
        assert_eq!(world.state("a/1"), "stopped");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.order(Command::Start(all("a/1"))), Some(Ok("1 ready".to_owned())));
    }
    assert_eq!(world.order(Command::Restart(all("main"))), Some(Ok("1 ready".to_owned())));
    assert!(
        world
            .order(Command::Stop(all("b")))
            .unwrap()
            .unwrap_err()
            .to_string()
            .contains("there are main, a")
    );
    // One that waits for its next life stays away as well.
    world.kill("a/2", 1);
    assert_eq!(world.order(Command::Stop(all("a/2"))), Some(Ok("1 stopped".to_owned())));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.state("a/2"), "stopped");
}

#[test]
fn another_file_changes_no_more_than_it_says() {
    let mut world = World::up(TWO);
    let apply = |world: &mut World, text: &str| {
        world.started.clear();
        let applied = world.fleet.handle_topology(world.now, topology(text));
        world.settle();
        applied.map(|()| world.started.clone())
    };
    let nothing: &[&str] = &[];
    assert_eq!(apply(&mut world, TWO).unwrap(), nothing);
    let kept = format!("{TWO}restart = \"always\"\n");
    assert_eq!(apply(&mut world, &kept).unwrap(), nothing);
    world.kill("a/1", 0);
    world.pass(200 * MS);
    assert_eq!(world.state("a/1"), "ready", "it counts from now on");
    let more = format!("{TWO}[service.b]\nbuiltin = \"echo\"\n");
    assert_eq!(apply(&mut world, &more).unwrap(), ["b/1"]);
    let other = more.replace("instances = 2", "instances = 2\nqueue = 3");
    assert_eq!(apply(&mut world, &other).unwrap(), ["a/3", "a/1"]);
    let moved = other.replace("[mapper.main]", "[mapper.main]\nbind = \"tcp://127.0.0.1:7\"");
    world.fewest = usize::MAX;
    assert_eq!(apply(&mut world, &moved).unwrap().len(), 4);
    for name in world.running().iter().filter(|name| *name != "main") {
        let args = &world.launched[name];
        assert!(args.contains("--mapper=tcp://127.0.0.1:7 "), "{name}: {args}");
    }
    assert!(world.fewest >= 3, "{}", world.fewest);
    assert_eq!(apply(&mut world, TWO).unwrap().len(), 3);
    assert_eq!(world.running().len(), 3, "{:?}", world.running());
    assert_eq!(world.state("b/1"), "unknown");
    let named = format!("prefix = \"x\"\n{TWO}");
    assert!(apply(&mut world, &named).unwrap_err().contains("new start"));
    world.fleet.handle_close(world.now);
    world.settle();
    assert!(world.fleet.is_over());
}

#[test]
fn what_is_to_stop_stays_away_from_a_replacement() {
    let mut world = World::up(&TWO.replace("instances = 2", "instances = 3"));
    world.mute.insert("a/4".to_owned());
    assert_eq!(world.order(Command::Restart(all("a"))), None);
    // Its turn would come.
    assert_eq!(world.order(Command::Stop(all("a/3"))), Some(Ok("1 stopped".to_owned())));
    world.mute.clear();
    let who = world.running.iter().find(|who| who.to_string() == "a/4").unwrap().clone();
    world.fleet.handle_line(world.now, &who, "registered with tcp://127.0.0.1:9");
    world.settle();
    assert_eq!(world.answers.last().unwrap().1, Ok("2 replaced".to_owned()));
    assert_eq!(world.state("a/3"), "stopped");
    assert_eq!(world.running(), ["main", "a/1", "a/4"]);
}

#[test]
fn a_file_that_was_mended_takes_the_place_of_one_that_is_being_tried() {
    let mut world = World::up(TWO);
    world.mute.insert("a/3".to_owned());
    let apply = |world: &mut World, queue: u32| {
        let text = TWO.replace("instances = 2", &format!("instances = 2\nqueue = {queue}"));
        world.fleet.handle_topology(world.now, topology(&text)).unwrap();
        world.settle();
    };
    apply(&mut world, 3);
    assert_eq!(world.state("a/3"), "starting");
    world.mute.clear();
    apply(&mut world, 4);
    world.pass(Duration::from_secs(60));
    let running = world.running();
    assert_eq!(running.len(), 3, "{running:?}");
    for name in running.iter().filter(|name| *name != "main") {
        assert!(world.launched[name].contains("--queue=4"), "{name}");
    }
}

#[test]
fn each_has_the_grace_that_it_was_started_with() {
    let text = |grace| TWO.replace("instances = 2", &format!("instances = 2\ngrace = \"{grace}\""));
    let mut world = World::up(&text("10m"));
    world.deaf.insert("a/1".to_owned());
    world.fleet.handle_topology(world.now, topology(&text("1s"))).unwrap();
    world.settle();
    world.pass(Duration::from_secs(599));
    assert_eq!(world.state("a/1"), "stopping");
    let is_killed = |world: &World| world.said.iter().any(|said| said.contains("it is killed"));
    assert!(!is_killed(&world));
    world.pass(Duration::from_secs(9));
    assert!(is_killed(&world));
}

#[test]
fn commands_that_cross_each_other_are_all_answered() {
    let mut world = World::up(TWO);
    world.deaf.insert("a/1".to_owned());
    assert_eq!(world.order(Command::Stop(all("a/1"))), None);
    world.fleet.handle_command(world.now, CommandId(7), Command::Start(all("a/1")));
    world.settle();
    world.deaf.clear();
    world.pass(Duration::from_secs(20));
    assert!(world.answers.contains(&(7, Ok("1 ready".to_owned()))), "{:?}", world.answers);
    assert_eq!(world.state("a/1"), "ready");
    // A service that goes while somebody waits for it.
    world.mute.extend(["a/3".to_owned(), "a/4".to_owned()]);
    let scale = Command::Scale("a".parse().unwrap(), 3);
    world.fleet.handle_command(world.now, CommandId(8), scale);
    world.fleet.handle_command(world.now, CommandId(9), Command::Restart(all("a/2")));
    world.settle();
    world.fleet.handle_topology(world.now, topology("[mapper.main]\n")).unwrap();
    world.settle();
    let answer = |id: u64| world.answers.iter().find(|(of, _)| *of == id).map(|(_, a)| a.is_err());
    assert_eq!((answer(8), answer(9)), (Some(true), Some(true)));
    assert_eq!(world.running(), ["main"]);
}

#[test]
fn a_mapper_goes_when_nobody_needs_it_and_comes_back_if_it_is_wanted_again() {
    let two =
        TWO.replace("[mapper.main]", "[mapper.main]\n[mapper.spare]\nbind = \"tcp://127.0.0.1:7\"");
    let mut world = World::up(&two);
    world.deaf.insert("spare".to_owned());
    let apply = |world: &mut World, text: &str| {
        world.fleet.handle_topology(world.now, topology(text)).unwrap();
        world.settle();
    };
    apply(&mut world, TWO);
    assert_eq!(world.state("spare"), "stopping");
    apply(&mut world, &two);
    world.deaf.clear();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.state("spare"), "ready");
    // Keys for all are keys for mappers.
    world.started.clear();
    let insecure = format!("insecure = true\n{TWO}");
    apply(&mut world, TWO);
    apply(&mut world, &insecure);
    assert!(world.started.iter().any(|name| name == "main"), "{:?}", world.started);
}

#[test]
fn what_does_not_work_takes_nobodys_place_also_when_somebody_dies_later() {
    let mut world = World::up(TWO);
    let other = TWO.replace("instances = 2", "instances = 2\nqueue = 3");
    let apply = |world: &mut World, text: &str| {
        world.fleet.handle_topology(world.now, topology(text)).unwrap();
        world.settle();
    };
    world.ill.insert("a/3".to_owned());
    apply(&mut world, &other);
    assert!(world.said.last().unwrap().contains("former settings"), "{:?}", world.said);
    assert_eq!(world.fleet.reverted().len(), 1);
    world.kill("a/1", 1);
    world.pass(Duration::from_secs(1));
    assert!(world.launched["a/1"].contains("--queue=10"), "{:?}", world.launched);
    // Said once more, it is tried once more.
    world.ill.clear();
    apply(&mut world, &other);
    assert_eq!(world.fleet.reverted().len(), 0);
    let all = world.running();
    for name in all.iter().filter(|name| *name != "main") {
        assert!(world.launched[name].contains("--queue=3"), "{:?}", world.launched);
    }
    // Or it is taken back.
    world.ill.extend((1..9).map(|number| format!("a/{number}")));
    apply(&mut world, TWO);
    assert_eq!(world.fleet.reverted().len(), 1);
    world.ill.clear();
    apply(&mut world, &other);
    assert_eq!(world.fleet.reverted().len(), 0);
}

#[test]
fn a_command_says_what_it_would_wait_for_in_vain() {
    let mut world = World::up(TWO);
    assert_eq!(world.order(Command::Stop(all("main"))), Some(Ok("1 stopped".to_owned())));
    let scale = || Command::Scale("a".parse().unwrap(), 3);
    for command in [scale(), Command::Restart(all("a")), Command::Start(all("a"))] {
        let error = CommandError::NoMapper { name: "main".parse().unwrap() };
        assert_eq!(world.order(command), Some(Err(error)));
    }
    assert_eq!(world.order(Command::Start(all("main"))), Some(Ok("1 ready".to_owned())));
    world.mute.insert("a/3".to_owned());
    assert_eq!(world.order(scale()), None);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.answers.last().unwrap().1, Err(CommandError::Late));
}

#[test]
fn who_is_not_there_is_told_from_who_is_not_there_yet() {
    let mut world = World::up(TWO);
    let unknown = |name: &str, known: &str| {
        let (name, known) = (name.to_owned(), known.to_owned());
        Some(Err(CommandError::Unknown { name, known }))
    };
    let stop = |name: &str| Command::Stop(vec![name.parse().unwrap()]);
    assert_eq!(world.order(stop("c")), unknown("c", "there are main, a"));
    assert_eq!(world.order(stop("c/1")), unknown("c/1", "there are main, a"));
    assert_eq!(world.order(stop("a/9")), unknown("a/9", "there are a/1, a/2"));
    // Who is leaving is not there any more.
    world.deaf.insert("a/2".to_owned());
    assert_eq!(world.order(Command::Scale("a".parse().unwrap(), 1)), None);
    assert_eq!(world.order(stop("a/2")), unknown("a/2", "there are a/1"));
    for command in [stop("a"), stop("a/1"), Command::Scale("a".parse().unwrap(), 1)] {
        assert_eq!(World::new(TWO).order(command), Some(Err(CommandError::TooEarly)));
    }
    assert_eq!(World::new(TWO).order(stop("c")), unknown("c", "there are main, a"));
}

#[test]
fn a_service_is_replaced_without_who_was_taken_away() {
    let mut world = World::up(TWO);
    world.order(Command::Stop(vec!["a/1".parse().unwrap()]));
    assert_eq!(world.order(Command::Restart(all("a"))), Some(Ok("1 replaced".to_owned())));
    assert_eq!(world.state("a/1"), "stopped");
    let named = Command::Restart(vec!["a/1".parse().unwrap()]);
    assert_eq!(world.order(named), Some(Ok("1 replaced".to_owned())));
    assert_eq!(world.running().len(), 3, "{:?}", world.running());
}

#[test]
fn who_is_too_many_or_away_is_not_replaced() {
    let mut world = World::up(&TWO.replace("instances = 2", "instances = 6"));
    world.kill("a/2", 0);
    assert_eq!(world.state("a/2"), "done");
    world.started.clear();
    let fewer = TWO.replace("instances = 2", "instances = 4\nqueue = 3");
    world.fleet.handle_topology(world.now, topology(&fewer)).unwrap();
    world.settle();
    assert_eq!(world.started.len(), 4, "{:?}", world.started);
    assert_eq!((world.running().len(), world.state("a/2")), (5, "unknown"));
    let other = fewer.replace("queue = 3", "queue = 4");
    let away = world.running()[1].clone();
    world.kill(&away, 0);
    world.fleet.handle_topology(world.now, topology(&other)).unwrap();
    world.settle();
    assert_eq!((world.running().len(), world.state(&away)), (4, "done"));
}
