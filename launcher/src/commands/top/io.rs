//! The outside of `svcmap top`: the terminal, keys, signals, the clock, and a thread that asks the
//! mappers, so that keys always answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::is_raw_mode_enabled;
use svcmap_proto::io::Clock;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::status::Report;
use svcmap_proto::time::Timestamp;

use super::model::{Action, Key, Model, Moment};
use super::rates::Rates;
use super::screen::draw;
use super::sums::{Lines, Sums, clock};
use crate::access::Access;
use crate::commands::drain;
use crate::commands::status::ask;
use crate::control::{ControlError, PATIENCE, STRAGGLER_PATIENCE};
use crate::errors::{Error, Failure, print_out, signal_status};
use crate::io::{StopSignals, pause_until};

/// Four times a second is as much as anybody reads.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Ages are shown in seconds.
const TICK: Duration = Duration::from_secs(1);

/// How much later than expected an answer may be before the one before it is old.
const LATE: Duration = Duration::from_millis(500);

/// So many keys and answers wait for a screen that is being drawn, and so many drains for mappers.
const INPUTS_MAX: usize = 64;
const ORDERS_MAX: usize = 16;

/// What comes from the threads.
enum Input {
    Key(Key),
    Resized,
    Answer(Result<Report, ControlError>),
    Drained(Result<(), Failure>, InstanceKey),
    Signal(i32),
    /// No more keys, or no more answers, will come.
    Over(Failure),
}

/// Prints a line of sums again and again, until nobody reads it.
pub(super) fn print(access: &Access, interval: Duration) -> Result<ExitCode, Error> {
    let (mut lines, mut rates) = (Lines::default(), Rates::default());
    let mut answer = Ok(ask(access.clone(), None, PATIENCE).map_err(Failure::from)?);
    loop {
        let Moment { now, unix_us } = moment();
        let sums = answer.ok().map(|report| {
            rates.update(&report, now);
            Sums::of(&report, &rates)
        });
        print_out(&lines.next(&clock(unix_us), access.mappers.len(), sums.as_ref()))?;
        pause_until(now + interval);
        answer = ask(access.clone(), None, PATIENCE);
    }
}

/// Shows the screen until a key or a signal ends it.
pub(super) fn show(access: Access, interval: Duration) -> Result<ExitCode, Error> {
    let report = ask(access.clone(), None, PATIENCE).map_err(Failure::from)?;
    let model = Model::new(moment(), report, interval + STRAGGLER_PATIENCE + LATE);
    let (tell, inputs) = bounded(INPUTS_MAX);
    let (order, orders) = bounded(ORDERS_MAX);
    let signalled = tell.clone();
    let signals = StopSignals::catch().map_err(Failure::failed)?;
    let on_signal = move |signal| drop(signalled.send(Input::Signal(signal)));
    signals.on_first(on_signal).map_err(Failure::failed)?;
    let asked = tell.clone();
    start("top-mappers", asked, move |tell| ask_on(&access, interval, &orders, tell))?;
    let screen = Screen::open()?;
    start("top-keys", tell, read_keys)?;
    screen.run(model, &inputs, &order)
}

/// A thread without which there is nothing to show. If it panics, ratatui has given the terminal back
/// already, and all is over.
fn start(
    name: &str,
    tell: Sender<Input>,
    action: impl FnOnce(&Sender<Input>) + Send + 'static,
) -> Result<(), Failure> {
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| action(&tell))).is_err() {
            let _ = tell.send(Input::Over(Failure::failed("a thread of top has panicked")));
        }
    };
    let thread = Builder::new().name(name.to_owned()).spawn(guarded);
    thread.map(drop).map_err(|error| Failure::failed(format!("no thread: {error}")))
}

fn moment() -> Moment {
    Moment { now: Clock.now(), unix_us: Clock.unix_us() }
}

/// Asks the mappers again and again, and does between that what was ordered, until nobody listens.
fn ask_on(
    access: &Access,
    interval: Duration,
    orders: &Receiver<InstanceKey>,
    tell: &Sender<Input>,
) {
    let mut next_at = Clock.now() + interval;
    loop {
        let said = match orders.recv_timeout(next_at.since(Clock.now())) {
            Ok(key) => Input::Drained(drain::tell(access, &key), key),
            Err(RecvTimeoutError::Timeout) => {
                let answer = ask(access.clone(), None, PATIENCE);
                next_at = Clock.now() + interval;
                Input::Answer(answer)
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if tell.send(said).is_err() {
            return;
        }
    }
}

fn read_keys(tell: &Sender<Input>) {
    loop {
        let input = match event::read() {
            Ok(Event::Key(event)) => match key(event) {
                Some(key) => Input::Key(key),
                None => continue,
            },
            Ok(Event::Resize(..)) => Input::Resized,
            Ok(_) => continue,
            Err(error) => Input::Over(failed("read keys from", &error)),
        };
        let is_over = matches!(input, Input::Over(_));
        if tell.send(input).is_err() || is_over {
            return;
        }
    }
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let with_control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if with_control => Key::Interrupt,
        KeyCode::Char(_) if with_control => return None,
        KeyCode::Char(char) => Key::Char(char),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot {what} this terminal: {error}")).fix("svcmap top | cat")
}

/// The terminal while it is ours. However this ends, it is given back; ratatui does it at a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        ratatui::try_init().map(Self).map_err(|error| {
            ratatui::restore();
            failed("draw on", &error)
        })
    }

    fn run(
        mut self,
        mut model: Model,
        inputs: &Receiver<Input>,
        order: &Sender<InstanceKey>,
    ) -> Result<ExitCode, Error> {
        loop {
            let drawn_at = self.draw(&mut model)?;
            let mut due_at = drawn_at + TICK;
            // What comes before that is shown together.
            let soonest = drawn_at + REDRAW_INTERVAL;
            loop {
                match inputs.recv_timeout(due_at.since(Clock.now())) {
                    Ok(input) => {
                        if let Some(exit) = handle(&mut model, input, order)? {
                            return Ok(exit);
                        }
                        due_at = soonest;
                        if Clock.now() >= soonest {
                            break;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
                }
            }
        }
    }

    fn draw(&mut self, model: &mut Model) -> Result<Timestamp, Failure> {
        model.handle_time(Clock.now());
        let drawn = self.0.draw(|frame| draw(model, frame.area(), frame.buffer_mut()));
        drawn.map_err(|error| failed("draw on", &error))?;
        Ok(Clock.now())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Given back twice, it would write over what the panic has said.
        if is_raw_mode_enabled().is_ok_and(|is_ours| is_ours) {
            // A terminal that is gone needs nothing back.
            let _ = self.0.show_cursor();
            ratatui::restore();
        }
    }
}

/// Hands an input to the model, and does what that wants. Returns the exit status once it is over.
fn handle(
    model: &mut Model,
    input: Input,
    order: &Sender<InstanceKey>,
) -> Result<Option<ExitCode>, Failure> {
    match input {
        Input::Key(key) => match model.handle_key(key) {
            Some(Action::Quit) => return Ok(Some(ExitCode::SUCCESS)),
            Some(Action::Drain(key)) => {
                model.note = Some(match order.try_send(key.clone()) {
                    Ok(()) => format!("telling {key} …"),
                    Err(_) => format!("{key} was not told: others wait for the mappers, try again"),
                });
            }
            None => {}
        },
        Input::Resized => {}
        Input::Answer(Ok(report)) => model.handle_report(moment(), report),
        Input::Answer(Err(error)) => model.handle_silence(Clock.now(), error.to_string()),
        Input::Drained(Ok(()), key) => model.note = Some(drain::told(&key)),
        Input::Drained(Err(failure), _) => {
            let fix = failure.fix.map(|fix| format!(" · {fix}"));
            model.note = Some(failure.message + &fix.unwrap_or_default());
        }
        Input::Signal(signal) => {
            return Ok(Some(ExitCode::from(signal_status(signal) as u8)));
        }
        Input::Over(failure) => return Err(failure),
    }
    Ok(None)
}
