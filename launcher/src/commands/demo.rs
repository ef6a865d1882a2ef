//! `svcmap demo`: a mapper, two services and a sender on this machine, and what they do when one
//! is full, one is killed, one is drained and the mapper is gone.
//!
//! Nothing is staged: the workers are processes of this very executable, the jobs are real jobs,
//! and every figure was counted. A step that does not come out as it should fails the demo.

mod screen;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_worker::{Client, Outcome, Statistics, Ticket};

use super::status;
use crate::deployment::{Deployment, MAPPER, PATIENCE};
use crate::errors::{Error, Failure, print_out};
use crate::io::pause_until;
use crate::supervisor::Supervisor;
use screen::{Step, accounts};

/// The service most of the demo is about: each worker runs 4 jobs at once, and 7 may wait.
const RESIZE: &str = "resize";

/// Another service, to show that one mapper serves several.
const THUMBNAIL: &str = "thumbnail";

/// The instances of [`RESIZE`].
const RESIZERS: [&str; 3] = ["a-1", "b-2", "c-3"];

/// The instances of [`THUMBNAIL`].
const THUMBNAILERS: [&str; 2] = ["t-1", "t-2"];

/// How they run: each job sleeps for the time that its payload says.
const RESIZER: &[&str] = &["--builtin", "sleep", "--concurrency", "4", "--queue", "7"];

/// Slots of each worker: 4 that run and 7 that wait.
const SLOTS: u32 = 11;

/// How long senders may take to hear that a worker is full, which the mapper tells at once: also on
/// a machine that has more to do.
const PUBLISHED: Duration = Duration::from_millis(150);

/// Runs the demo.
///
/// # Errors
/// If a step does not come out as it should.
pub fn run() -> Result<ExitCode, Error> {
    let supervisor = Supervisor::new().map_err(failed)?;
    let mut stage = Deployment::open_encrypted(supervisor, Vec::new())?;
    for instance in RESIZERS {
        stage.start_worker(RESIZE, instance, RESIZER)?;
    }
    for instance in THUMBNAILERS {
        stage.start_worker(THUMBNAIL, instance, &["--builtin", "echo"])?;
    }
    let mut demo = Demo { sender: stage.client()?, other: stage.client()?, stage };
    demo.discovery()?;
    demo.shares()?;
    demo.full_one_is_avoided()?;
    demo.killed_one()?;
    demo.drained_one()?;
    demo.mapper_gone_and_back()?;
    demo.stop()
}

struct Demo {
    /// Whose jobs are shown.
    sender: Client,
    /// Another sender, whose jobs the first one only hears of.
    other: Client,
    stage: Deployment,
}

/// What became of some jobs.
#[derive(Default)]
struct Results {
    done: u64,
    unknown: u64,
    others: u64,
    by_instance: BTreeMap<String, u64>,
}

impl Results {
    fn of(tickets: impl IntoIterator<Item = Ticket>) -> Self {
        let mut results = Self::default();
        tickets.into_iter().for_each(|ticket| results.add(ticket.wait()));
        results
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done(reply) => {
                self.done += 1;
                *self.by_instance.entry(reply.by.instance.to_string()).or_default() += 1;
            }
            Outcome::Unknown(_) => self.unknown += 1,
            _ => self.others += 1,
        }
    }

    fn by(&self, instance: &str) -> u64 {
        self.by_instance.get(instance).copied().unwrap_or(0)
    }
}

impl Demo {
    fn discovery(&mut self) -> Result<(), Error> {
        let step = Step::start(1, "a mapper and 5 workers of 2 services find each other");
        self.stage.wait_ready(&[(RESIZE, RESIZERS.len()), (THUMBNAIL, THUMBNAILERS.len())])?;
        let first =
            Results::of([self.sender.submit(THUMBNAIL, b"hello".to_vec())].into_iter().flatten());
        step.end(first.done == 1, "the first job came back")
    }

    fn shares(&mut self) -> Result<(), Error> {
        let step = Step::start(2, "1000 jobs");
        let mut tickets = self.submit(RESIZE, "2ms", 700)?;
        tickets.extend(self.submit(THUMBNAIL, "a picture", 300)?);
        let results = Results::of(tickets);
        let share = |names: &[&str]| {
            let shares: Vec<_> = names.iter().map(|name| results.by(name).to_string()).collect();
            shares.join(" ")
        };
        let (resizers, thumbnailers) = (share(&RESIZERS), share(&THUMBNAILERS));
        let text = format!("each worker's share: resize {resizers}, thumbnail {thumbnailers}");
        step.end(results.done == 1000, &text)
    }

    fn full_one_is_avoided(&mut self) -> Result<(), Error> {
        let step = Step::start(3, "another sender fills a-1");
        let fill = (0..SLOTS).map(|_| {
            self.other.job(RESIZE, b"600ms".to_vec()).instance("a-1").submit().map_err(failed)
        });
        let fill = fill.collect::<Result<Vec<_>, _>>()?;
        self.stage.wait_for("a-1 to be full", |report| {
            report
                .instances
                .iter()
                .any(|row| row.instance.as_str() == "a-1" && row.state == status::Shown::Full)
        })?;
        pause_until(Clock.now() + PUBLISHED);
        let before = self.sent_to("a-1");
        let results = Results::of(self.submit(RESIZE, "2ms", 200)?);
        let in_vain = self.sent_to("a-1") - before;
        let filled = Results::of(fill);
        let ok = results.done == 200 && in_vain == 0 && filled.done == u64::from(SLOTS);
        step.end(ok, &format!("200 jobs all avoided it (sent to full: {in_vain})"))
    }

    fn killed_one(&mut self) -> Result<(), Error> {
        let step = Step::start(4, "b-2 killed with SIGKILL amid 300 jobs");
        let mut tickets = self.submit(RESIZE, "10ms", 300)?.into_iter();
        let mut results = Results::of(tickets.by_ref().take(100));
        let killed_at = Clock.now();
        self.stage.kill("b-2")?;
        let gone = Clock.now().since(killed_at);
        tickets.for_each(|ticket| results.add(ticket.wait()));
        let (done, unknown) = (results.done, results.unknown);
        let ok = done + unknown == 300 && unknown <= u64::from(SLOTS);
        let text = format!(
            "gone after {:.2}s; {done} done, {unknown} unknown, none lost",
            gone.as_secs_f32()
        );
        self.stage.start_worker(RESIZE, "b-2", RESIZER)?;
        self.stage.wait_ready(&[(RESIZE, RESIZERS.len())])?;
        step.end(ok, &text)
    }

    fn drained_one(&mut self) -> Result<(), Error> {
        let step = Step::start(5, "c-3 drained amid 300 jobs");
        let mut tickets = self.submit(RESIZE, "10ms", 300)?.into_iter();
        let mut results = Results::of(tickets.by_ref().take(100));
        let before = results.by("c-3");
        let status = self.stage.terminate("c-3")?.status;
        tickets.for_each(|ticket| results.add(ticket.wait()));
        let finished = results.by("c-3") - before;
        let Results { done, unknown, others, .. } = results;
        let ok = status.success() && done == 300;
        let text = format!("it finished {finished} more; {done} done, {} lost", unknown + others);
        step.end(ok, &if status.success() { text } else { format!("{text}; {status}") })
    }

    fn mapper_gone_and_back(&mut self) -> Result<(), Error> {
        let step = Step::start(6, "the mapper killed and started again");
        self.stage.kill(MAPPER)?;
        let without = Results::of(self.submit(RESIZE, "5ms", 200)?);
        self.stage.start_mapper_again()?;
        let back_at = Clock.now();
        self.stage.wait_ready(&[(RESIZE, 2), (THUMBNAIL, THUMBNAILERS.len())])?;
        let registered = Clock.now().since(back_at);
        let with = Results::of(self.submit(RESIZE, "5ms", 100)?);
        let text = format!(
            "{} jobs done without it; all registered {:.2}s after",
            without.done,
            registered.as_secs_f32()
        );
        step.end(without.done == 200 && with.done == 100, &text)
    }

    fn stop(mut self) -> Result<ExitCode, Error> {
        let step = Step::start(7, "everything stopped gracefully");
        let statistics = merge(self.sender.statistics(), self.other.statistics());
        let stopped = self.stage.stop();
        let text = format!("{} processes ended with status 0, none is left", stopped.clean);
        step.end(stopped.clean == stopped.all, &text)?;
        let printed = print_out(&accounts(&statistics));
        if statistics.settled() != statistics.submitted {
            return Err(Failure::failed("a job has no outcome").into());
        }
        printed.map(|()| ExitCode::SUCCESS)
    }

    fn submit(&self, service: &str, payload: &str, jobs: u32) -> Result<Vec<Ticket>, Failure> {
        let job = || self.sender.job(service, payload.as_bytes().to_vec()).hold(PATIENCE);
        (0..jobs).map(|_| job().submit().map_err(failed)).collect()
    }

    fn sent_to(&self, instance: &str) -> u64 {
        let statistics = self.sender.statistics();
        let tallies = statistics.instances.iter();
        tallies.filter(|(key, _)| key.instance.as_str() == instance).map(|(_, t)| t.sent).sum()
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Both senders' counts as one.
fn merge(mut a: Statistics, b: Statistics) -> Statistics {
    a.submitted += b.submitted;
    a.done += b.done;
    a.failed += b.failed;
    a.refused += b.refused;
    a.unknown += b.unknown;
    a.accepted += b.accepted;
    for (key, tally) in b.instances {
        let sum = a.instances.entry(key).or_default();
        sum.sent += tally.sent;
        sum.done += tally.done;
        sum.failed += tally.failed;
        sum.rejected += tally.rejected;
        sum.stale += tally.stale;
        sum.handed_over += tally.handed_over;
        sum.lost += tally.lost;
        sum.never_seen += tally.never_seen;
    }
    a
}
