//! The programs of a worker: one for each job, or such that stay.

use slog::{Logger, o};
use svcmap_proto::io::Clock;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;
use svcmap_worker::{HandlerError, Job};

use super::is_over;
use crate::cli::WorkerArgs;
use crate::errors::Failure;
use crate::exec::{ExecError, Program, Residents, Runner, StderrLog, Task};

/// What runs the jobs of `--exec` or `--exec-loop`.
pub(super) struct Programs {
    kind: Kind,
    /// The command, for whoever has to mend it.
    command: String,
    result_bytes_max: usize,
    log: Logger,
}

enum Kind {
    Exec(Box<Runner>),
    ExecLoop(Residents),
}

impl Programs {
    /// Those that the arguments want, with the limit of open files that this process was given. `None`
    /// if they want none.
    pub(super) fn start(
        args: &WorkerArgs,
        key: &InstanceKey,
        open_files: Option<u64>,
        log: &Logger,
    ) -> Result<Option<Self>, Failure> {
        let program = |flag: &str, command: &str| -> Result<Program, Failure> {
            let program = Program::parse(command, key.clone());
            let program = program.map_err(|error| error.failure(flag))?;
            let found = program.find(std::env::var_os("PATH").as_deref());
            found.map_err(|error| error.failure(flag))?;
            Ok(program.killed_after(args.kill_after).with_open_files(open_files))
        };
        let (kind, command) = match (&args.exec, &args.exec_loop) {
            (Some(command), _) => {
                let program = program("--exec", command)?;
                (Kind::Exec(Box::new(Runner::new(program, StderrLog::new(log.clone())))), command)
            }
            (None, Some(command)) => {
                let program = program("--exec-loop", command)?;
                let residents = Residents::start(program, args.concurrency.get(), log.clone());
                let residents = residents.map_err(|error| {
                    Failure::failed(format!("--exec-loop: no threads: {error}"))
                        .fix("lower --concurrency, or allow more threads (ulimit -u)")
                })?;
                (Kind::ExecLoop(residents), command)
            }
            (None, None) => return Ok(None),
        };
        let (command, log) = (command.clone(), log.clone());
        Ok(Some(Self { kind, command, result_bytes_max: args.payload_max, log }))
    }

    /// Waits until they can do jobs, or `is_stopped`: then this is `false`.
    ///
    /// # Errors
    /// If one cannot.
    pub(super) fn wait_ready(&self, is_stopped: impl FnMut() -> bool) -> Result<bool, Failure> {
        let Kind::ExecLoop(residents) = &self.kind else { return Ok(true) };
        residents.wait_ready(is_stopped).map_err(|error| {
            Failure::failed(format!("--exec-loop: {error}"))
                .fix(format!("run it by hand: {}", self.command))
        })
    }

    /// Does a job.
    pub(super) fn run(&self, job: &Job) -> Result<Vec<u8>, HandlerError> {
        let task = Task {
            number: job.number(),
            attempt: job.attempt(),
            log: &self.log.new(o!(job.context())),
            metadata: job.metadata(),
            payload: job.payload(),
            deadline: job.time_left().map(|left| Clock.now() + left),
            is_cancelled: &|| job.is_cancelled(),
            report: &|text| job.progress(text),
        };
        let result = match &self.kind {
            Kind::Exec(runner) => runner.run(&task, self.result_bytes_max),
            Kind::ExecLoop(residents) => residents.run(&task, self.result_bytes_max),
        };
        result.map_err(|error| match error {
            error if !error.was_begun() => HandlerError::reject(error),
            // The worker cancels what runs at its deadline, and may be the first to notice.
            ExecError::Cancelled if is_over(job) => HandlerError::new(ExecError::Deadline),
            error => match error.code() {
                Some(code) => HandlerError::new(error).with_code(code),
                None => HandlerError::new(error),
            },
        })
    }

    /// No more jobs come, and what still runs was cancelled: waits until all programs have ended; such
    /// that stay have until then to do that by themselves.
    pub(super) fn finish(&self, until: Timestamp) {
        match &self.kind {
            Kind::Exec(runner) => runner.finish(),
            Kind::ExecLoop(residents) => residents.finish(until),
        }
    }
}
