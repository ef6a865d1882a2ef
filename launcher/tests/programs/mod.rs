//! What the tests of programs that run once share.

use slog::{Discard, Logger, o};
use svcmap::exec::{ExecError, Program, ProgramError, Runner, StderrLog, Task};
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

/// A program of the instance `sum/a`.
pub fn parse(command: &str) -> Result<Program, ProgramError> {
    let [service, instance] = ["sum", "a"].map(|name| name.parse().unwrap());
    let program = Program::parse(command, InstanceKey { service, instance });
    program.map(|program| program.started_by(env!("CARGO_BIN_EXE_svcmap")))
}

/// Which logs nothing.
pub fn runner(program: Program) -> Runner {
    Runner::new(program, StderrLog::new(Logger::root(Discard, o!())))
}

/// The second try of job 17.
pub fn run_with(
    runner: &Runner,
    payload: &[u8],
    result_bytes_max: usize,
    deadline: Timestamp,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, ExecError> {
    let metadata = &Metadata::new([("input", "a b.jpg")]).unwrap();
    let (number, attempt, deadline) = (17, 2, Some(deadline));
    let report = &|_| {};
    let log = &Logger::root(Discard, o!());
    let task = Task { number, attempt, log, metadata, payload, deadline, is_cancelled, report };
    runner.run(&task, result_bytes_max)
}
