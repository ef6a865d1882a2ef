//! What the libraries log reaches a program that logs with the crate `log`. That has one logger for a
//! whole process, so there is one test.

use std::sync::Mutex;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use svcmap_mapper::Mapper;
use svcmap_worker::{Job, Worker};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A line for each record: level, target and message.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Log for Lines {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// What a mapper and its worker log, from their start to their end, and where the mapper is.
fn logged(level: LevelFilter) -> (String, Vec<String>) {
    log::set_max_level(level);
    let any = "tcp://127.0.0.1:0";
    let mapper = Mapper::builder().bind(any).publish(any).logger(svcmap_mapper::log_logger());
    let mapper = mapper.start().unwrap();
    let address = mapper.endpoint().to_string();
    let worker = Worker::builder("log").mapper(&address).logger(svcmap_worker::log_logger());
    let worker = worker.serve(|_: &Job| Vec::new()).unwrap();
    assert!(worker.wait_registered(LONG));
    drop(worker);
    mapper.stop();
    mapper.wait().unwrap();
    (address, std::mem::take(&mut *LINES.0.lock().unwrap()))
}

#[test]
fn a_program_that_logs_with_log_sees_what_the_libraries_say_and_with_what_values() {
    log::set_logger(&LINES).unwrap();
    let (address, lines) = logged(LevelFilter::Info);
    let said = |start: &str, value: &str| {
        let line = lines.iter().find(|line| line.starts_with(start) && line.contains(value));
        assert!(line.is_some(), "{start} {value}: {lines:#?}");
    };
    said("INFO svcmap_mapper::io::builder listening, ", &format!(", bind: {address}"));
    said("INFO svcmap_worker::io::report registered, ", &format!("mapper: {address}"));
    assert!(!lines.iter().any(|line| line.starts_with("DEBUG")), "{lines:#?}");

    // What counts is the level when something is said.
    let (_, lines) = logged(LevelFilter::Debug);
    assert!(lines.iter().any(|line| line.starts_with("DEBUG svcmap_worker::")), "{lines:#?}");
    assert_eq!(logged(LevelFilter::Off).1, [""; 0]);
}
