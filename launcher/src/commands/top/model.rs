//! What the screen of `svcmap top` shows, and what keys do to it. Pure: views, keys and the time come
//! in, and what is to be done comes out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use svcmap_proto::names::{Endpoint, InstanceKey};
use svcmap_proto::status::Report;
use svcmap_proto::time::Timestamp;

use super::events::Watch;
use super::rates::Rates;
use super::rows::{Choice, Place, Row};
use super::sums::{Sums, clock};

/// So many events are kept.
const EVENTS_MAX: usize = 100;

/// The longest filter: two names and what is between them.
const FILTER_CHARS_MAX: usize = 128;

/// When something came, by the clock that only goes on and by the one on the wall.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub now: Timestamp,
    pub unix_us: u64,
}

/// A key, as far as one is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Interrupt,
}

/// What is to be done for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Drain(InstanceKey),
}

/// What keys are for at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Table,
    Help,
    Filter,
    Ask(InstanceKey),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    report: Report,
    rates: Rates,
    watch: Watch,
    /// When the report came, how long it is good for, and the time now.
    came_at: Timestamp,
    good_for: Duration,
    now: Timestamp,
    /// Why nobody answers.
    pub silence: Option<String>,
    /// Since when each mapper has not told everything.
    silent_since: BTreeMap<Endpoint, Timestamp>,
    /// Newest first.
    pub events: VecDeque<String>,
    pub mode: Mode,
    pub choice: Choice,
    paused_at: Option<Timestamp>,
    /// What became of the last action.
    pub note: Option<String>,
    cursor: Option<Place>,
    /// Whether the cursor goes where its row goes; if not, it is on the first row, whichever that is.
    is_moved: bool,
    /// Where the cursor was last, for when its row is gone.
    cursor_row: usize,
    top_row: usize,
    page: usize,
}

impl Model {
    /// The first view. Later ones are expected before the time is over for which one is good.
    pub fn new(moment: Moment, report: Report, good_for: Duration) -> Self {
        let mut model = Self {
            watch: Watch::new(&report),
            report,
            rates: Rates::default(),
            came_at: moment.now,
            good_for,
            now: moment.now,
            silence: None,
            silent_since: BTreeMap::new(),
            events: VecDeque::new(),
            mode: Mode::Table,
            choice: Choice::default(),
            paused_at: None,
            note: None,
            cursor: None,
            is_moved: false,
            cursor_row: 0,
            top_row: 0,
            page: 1,
        };
        model.rates.update(&model.report, moment.now);
        model.note_mappers();
        model.settle();
        model
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The mappers have answered. What none has told completely replaces nothing.
    pub fn handle_report(&mut self, moment: Moment, report: Report) {
        self.now = moment.now;
        self.report.mappers.clone_from(&report.mappers);
        self.report.mappers_agree = report.mappers_agree;
        self.note_mappers();
        if !report.mappers.iter().any(|mapper| mapper.is_complete()) {
            self.silence = Some("no mapper has told everything in time".to_owned());
            return;
        }
        self.silence = None;
        if self.paused_at.is_some() {
            return;
        }
        self.rates.update(&report, moment.now);
        for event in self.watch.update(&report, moment.now).into_iter().rev() {
            self.events.push_front(format!("{} {event}", clock(moment.unix_us)));
        }
        self.events.truncate(EVENTS_MAX);
        (self.report, self.came_at) = (report, moment.now);
        self.settle();
    }

    /// No mapper has answered, for this reason.
    pub fn handle_silence(&mut self, now: Timestamp, why: String) {
        self.now = now;
        for mapper in &self.report.mappers {
            self.silent_since.entry(mapper.endpoint.clone()).or_insert(now);
        }
        self.silence = Some(why);
    }

    fn note_mappers(&mut self) {
        for mapper in &self.report.mappers {
            if mapper.is_complete() {
                self.silent_since.remove(&mapper.endpoint);
            } else {
                self.silent_since.entry(mapper.endpoint.clone()).or_insert(self.now);
            }
        }
    }

    /// A key was pressed.
    pub fn handle_key(&mut self, key: Key) -> Option<Action> {
        self.note = None;
        if key == Key::Interrupt {
            return Some(Action::Quit);
        }
        match std::mem::take(&mut self.mode) {
            Mode::Table => return self.handle_table_key(key),
            // Any key leads back.
            Mode::Help => {}
            Mode::Filter => self.handle_filter_key(key),
            Mode::Ask(instance) if key == Key::Char('y') => return Some(Action::Drain(instance)),
            Mode::Ask(_) => self.note = Some("not drained".to_owned()),
        }
        None
    }

    fn handle_table_key(&mut self, key: Key) -> Option<Action> {
        let page = isize::try_from(self.page).unwrap_or(isize::MAX);
        match key {
            Key::Char('q') => return Some(Action::Quit),
            Key::Up | Key::Char('k') => self.move_by(-1),
            Key::Down | Key::Char('j') => self.move_by(1),
            Key::PageUp => self.move_by(-page),
            Key::PageDown => self.move_by(page),
            Key::Home => self.is_moved = false,
            Key::End => self.move_by(isize::MAX),
            Key::Enter => self.turn(),
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Escape => self.choice.filter.clear(),
            Key::Char('s') => self.choice.sort = self.choice.sort.next(),
            Key::Char('p') => {
                self.paused_at = if self.paused_at.is_none() { Some(self.now) } else { None };
            }
            Key::Char('?') => self.mode = Mode::Help,
            Key::Char('d') => match &self.cursor {
                Some(Place::Instance(key)) => self.mode = Mode::Ask(key.clone()),
                _ => self.note = Some("d drains an instance: move to one first".to_owned()),
            },
            _ => {}
        }
        self.settle();
        None
    }

    fn handle_filter_key(&mut self, key: Key) {
        self.mode = Mode::Filter;
        match key {
            Key::Enter => self.mode = Mode::Table,
            Key::Escape => {
                self.choice.filter.clear();
                self.mode = Mode::Table;
            }
            Key::Backspace => {
                self.choice.filter.pop();
            }
            Key::Char(char) if self.choice.filter.len() < FILTER_CHARS_MAX => {
                self.choice.filter.push(char);
            }
            _ => {}
        }
        self.settle();
    }

    fn move_by(&mut self, rows: isize) {
        self.cursor_row = self.cursor_row.saturating_add_signed(rows);
        (self.cursor, self.is_moved) = (None, true);
    }

    /// Opens or closes the service under the cursor, or that of the instance there.
    fn turn(&mut self) {
        let Some(place) = &self.cursor else { return };
        let service = place.service().to_owned();
        let row = self.report.services.iter().find(|row| row.service == service);
        let is_open = row.is_some_and(|row| self.choice.is_open(row));
        self.choice.opened.insert(service.clone(), !is_open);
        (self.cursor, self.is_moved) = (Some(Place::Service(service)), true);
    }

    /// Finds the cursor's row again, or the row that is now where that was.
    fn settle(&mut self) {
        let places: Vec<Place> = self.rows().iter().map(Row::place).collect();
        let found = places.iter().position(|place| Some(place) == self.cursor.as_ref());
        self.cursor_row = match found {
            _ if !self.is_moved => 0,
            Some(row) => row,
            None => self.cursor_row.min(places.len().saturating_sub(1)),
        };
        self.cursor = places.into_iter().nth(self.cursor_row);
    }

    /// Which rows are on a page of so many, and which of all has the cursor.
    pub fn page(&mut self, height: usize) -> (Range<usize>, usize) {
        let count = self.rows().len();
        self.page = height.max(1);
        self.top_row = self.top_row.min(self.cursor_row);
        self.top_row = self.top_row.max((self.cursor_row + 1).saturating_sub(self.page));
        // With fewer rows than before, none of the page stays empty.
        self.top_row = self.top_row.min(count.saturating_sub(self.page));
        (self.top_row..(self.top_row + height).min(count), self.cursor_row)
    }

    /// All rows.
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.choice.rows(&self.report, &self.rates)
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    pub fn sums(&self) -> Sums {
        Sums::of(&self.report, &self.rates)
    }

    /// How old the figures are.
    pub fn age(&self) -> Duration {
        self.now.since(self.came_at)
    }

    /// Whether they may be wrong by now.
    pub fn is_stale(&self) -> bool {
        self.silence.is_some() || (self.paused_at.is_none() && self.age() > self.good_for)
    }

    /// For how long nothing has changed, as somebody wanted.
    pub fn paused_for(&self) -> Option<Duration> {
        self.paused_at.map(|at| self.now.since(at))
    }

    /// For how long that mapper has not told everything.
    pub fn silent_for(&self, mapper: &Endpoint) -> Option<Duration> {
        self.silent_since.get(mapper).map(|&at| self.now.since(at))
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
