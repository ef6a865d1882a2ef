//! The programs that stay: who has which, who waits for one, and how they end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slog::{Logger, warn};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::life::Life;
use super::log::StderrLog;
use super::minder;
use super::watch::{Reason, Watch};
use crate::exec::frames::Answer;
use crate::exec::{ExecError, Program, Task};
use crate::io::LOOK_INTERVAL;

/// After so long the log says that a program is not ready, and then ever more seldom.
const NOT_READY_FIRST: Duration = Duration::from_secs(10);

/// A program in several lives at a time, each of which does one job after another. Dropping it ends
/// them.
#[derive(Debug)]
pub struct Residents {
    shared: Arc<Shared>,
}

/// What the handlers and those who look after the programs know together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) program: Program,
    pub(super) log: Logger,
    pub(super) stderr: StderrLog,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    places: Vec<Place>,
    /// All were ready once.
    has_started: bool,
    /// Why one ended before that.
    failed_start: Option<String>,
    /// Nothing is started any more.
    is_over: bool,
}

/// One that runs at a time.
#[derive(Debug)]
struct Place {
    /// The life that it has.
    watch: Option<Arc<Watch>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It is being started, and can be expected to be ready soon.
    Starting,
    /// It waits for a job.
    Idle(Life),
    /// A handler has it.
    Lent,
    /// It died too often, the last time for that reason. It is being started again, or will be.
    Down(String),
    /// The worker ends, and so has it.
    Gone,
}

impl Residents {
    /// Starts so many of that program, each on a thread of its own that looks after it.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(program: Program, count: u32, log: Logger) -> std::io::Result<Self> {
        let place = || Place { watch: None, stage: Stage::Starting };
        let places = std::iter::repeat_with(place).take(count as usize).collect();
        let state =
            Mutex::new(State { places, has_started: false, failed_start: None, is_over: false });
        let stderr = StderrLog::new(log.clone());
        let shared = Arc::new(Shared { program, log, stderr, state, changed: Condvar::new() });
        // Made before the threads, so that those that there are end if one cannot be had.
        let residents = Self { shared };
        for number in 0..count as usize {
            let shared = Arc::clone(&residents.shared);
            let thread = std::thread::Builder::new().name(format!("svcmap-program-{}", number + 1));
            if let Err(error) = thread.spawn(move || minder::mind(&shared, number)) {
                // Nobody looks after these.
                residents.shared.state().places.truncate(number);
                return Err(error);
            }
        }
        Ok(residents)
    }

    /// Waits until all are ready, or `is_stopped`: then this is `false`.
    ///
    /// # Errors
    /// If one ended before it was ready, or did not say so: with its last words.
    pub fn wait_ready(&self, mut is_stopped: impl FnMut() -> bool) -> Result<bool, ExecError> {
        let started_at = Clock.now();
        let mut told_after = NOT_READY_FIRST;
        let mut state = self.shared.state();
        loop {
            if let Some(why) = state.failed_start.take() {
                return Err(ExecError::NotBegun(format!("the program does not start: {why}")));
            }
            if state.places.iter().all(|place| matches!(place.stage, Stage::Idle(_))) {
                state.has_started = true;
                return Ok(true);
            }
            if is_stopped() {
                return Ok(false);
            }
            let waited = Clock.now().since(started_at);
            if waited >= told_after {
                warn!(self.shared.log, "the program has not said yet that it is ready: it has to \
                    write {{\"ready\":true}} and a line end to stdout, and flush";
                    "waited_s" => waited.as_secs());
                told_after *= 2;
            }
            state = self.shared.wait(state, LOOK_INTERVAL);
        }
    }

    /// Has one of them do a job.
    ///
    /// # Errors
    /// See [`ExecError`]. Whatever the error, the program has answered, or has ended with all that it
    /// had started.
    pub fn run(&self, task: &Task<'_>, result_bytes_max: usize) -> Result<Vec<u8>, ExecError> {
        let program = &self.shared.program;
        loop {
            let (mut life, number) = self.shared.take(task)?;
            if !life.is_fit(program)? {
                continue;
            }
            self.shared.stderr.write(&self.shared.log, false, &life.earlier_words());
            let answer = life.run(program, task, result_bytes_max);
            // Such programs end after so many jobs, and never saw this one.
            if matches!(answer, Err(ExecError::NotBegun(_))) && life.watch.has_served() {
                continue;
            }
            let has_failed = !matches!(answer, Ok(Answer::Done(_)));
            self.shared.stderr.write(task.log, has_failed, &life.take_words());
            let answer = answer?;
            self.shared.give_back(life, number);
            return match answer {
                Answer::Done(result) => Ok(result),
                Answer::Failed { error, code } => Err(ExecError::Said { error, code }),
                Answer::TooLarge => {
                    Err(ExecError::ResultTooLarge { limit_bytes: result_bytes_max })
                }
            };
        }
    }

    /// No more jobs come: the programs see the end of their stdin and may end by themselves until then;
    /// those that have not are ended.
    pub fn finish(&self, until: Timestamp) {
        let mut state = self.shared.state();
        state.is_over = true;
        for place in &mut state.places {
            match (&mut place.stage, &place.watch) {
                (Stage::Idle(life), _) => life.close_stdin(),
                // Of use to nobody.
                (Stage::Starting | Stage::Down(_), Some(watch)) => watch.end(Reason::Time),
                _ => {}
            }
        }
        self.shared.changed.notify_all();
        state = self.shared.wait_gone(state, until);
        state.each_left(|watch| watch.end(Reason::Time));
        state = self.shared.wait_gone(state, Clock.now() + self.shared.program.end_limit());
        state.each_left(Watch::give_up);
        self.shared.stderr.finish();
    }
}

impl Drop for Residents {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        self.shared.changed.notify_all();
        state.each_left(Watch::give_up);
        // A keeper kills what it has at once; one that stands still is ended by its thread.
        drop(self.shared.wait_gone(state, Clock.now() + self.shared.program.end_limit()));
    }
}

impl State {
    /// Does this with all that have not ended.
    fn each_left(&self, action: impl Fn(&Watch)) {
        self.places.iter().filter_map(|place| place.watch.as_deref()).for_each(action);
    }

    fn is_gone(&self) -> bool {
        self.places.iter().all(|place| matches!(place.stage, Stage::Gone))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_gone<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        until: Timestamp,
    ) -> MutexGuard<'a, State> {
        while !state.is_gone() {
            let now = Clock.now();
            if now >= until {
                break;
            }
            state = self.wait(state, until.since(now));
        }
        state
    }

    /// One that can do a job, and its place. Waits for those that will soon be ready.
    fn take(&self, task: &Task<'_>) -> Result<(Life, usize), ExecError> {
        let mut state = self.state();
        loop {
            let idle = |place: &Place| matches!(place.stage, Stage::Idle(_));
            if !state.is_over
                && let Some(number) = state.places.iter().position(idle)
                && let Stage::Idle(life) =
                    std::mem::replace(&mut state.places[number].stage, Stage::Lent)
            {
                return Ok((life, number));
            }
            let is_near = |place: &Place| matches!(place.stage, Stage::Starting);
            if state.is_over || !state.places.iter().any(is_near) {
                return Err(ExecError::NotBegun(state.why_none()));
            }
            if task.check(Clock.now()).is_err() {
                let why = "the program was not ready in time".to_owned();
                return Err(ExecError::NotBegun(why));
            }
            state = self.wait(state, LOOK_INTERVAL);
        }
    }

    /// It waits for its next job.
    fn give_back(&self, mut life: Life, number: usize) {
        let mut state = self.state();
        if state.is_over {
            life.close_stdin();
        }
        let place = &mut state.places[number];
        // Where it died meanwhile, there may be another.
        if place.watch.as_ref().is_some_and(|watch| Arc::ptr_eq(watch, &life.watch)) {
            place.stage = Stage::Idle(life);
        }
    }
}

impl State {
    fn why_none(&self) -> String {
        let down = self.places.iter().find_map(|place| match &place.stage {
            Stage::Down(why) => Some(format!("the program is down: {why}")),
            _ => None,
        });
        down.unwrap_or_else(|| "the program is down".to_owned())
    }
}

/// What those who look after the programs tell.
impl Shared {
    /// A life begins. `false` if none is wanted any more.
    pub(super) fn begin(&self, number: usize, life: &Life) -> bool {
        let mut state = self.state();
        state.places[number].watch = Some(Arc::clone(&life.watch));
        !state.is_over
    }

    /// It can do jobs.
    pub(super) fn set_ready(&self, number: usize, life: Life) {
        let mut state = self.state();
        if state.is_over {
            life.watch.end(Reason::Time);
        }
        state.places[number].stage = Stage::Idle(life);
        self.changed.notify_all();
    }

    /// A life is over, or none could be begun, and whether the next one can be expected soon. `false`
    /// if none is wanted.
    pub(super) fn set_ended(&self, number: usize, is_near: bool, why: &str) -> bool {
        let mut state = self.state();
        if !state.has_started && !state.is_over {
            state.failed_start = Some(why.to_owned());
            state.is_over = true;
        }
        let stage = if is_near { Stage::Starting } else { Stage::Down(why.to_owned()) };
        state.places[number] = Place { watch: None, stage };
        self.changed.notify_all();
        !state.is_over
    }

    /// Nothing is done about it for so long. `false` if it is not to be started again.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let until = Clock.now() + pause;
        let mut state = self.state();
        while !state.is_over {
            let now = Clock.now();
            if now >= until {
                return true;
            }
            state = self.wait(state, until.since(now));
        }
        false
    }

    /// Nobody looks after it any more.
    pub(super) fn set_gone(&self, number: usize) {
        self.state().places[number].stage = Stage::Gone;
        self.changed.notify_all();
    }
}
