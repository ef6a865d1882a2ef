//! Settings of a worker and of a sender, each with its default and its limits.

use std::time::Duration;

use svcmap_proto::limits;

use crate::choice::Policy;

/// Most slots of one instance: each costs a queue entry, and load is counted in them.
pub const SLOTS_MAX: u32 = 65_536;

/// Most mappers that one process talks to, all addresses of their names together: they are alternatives,
/// not shards, and each of them gets every report.
pub const MAPPERS_MAX: usize = 16;

/// Senders that one worker keeps in mind at once, those that are silent included.
pub const SENDERS_MAX: usize = 16_384;

/// See [`IntakeConfig::unacknowledged_bytes_max`]: what a fast network carries in some ten
/// milliseconds, so that nobody waits for an acknowledgement.
const UNACKNOWLEDGED_BYTES: usize = 4 * 1024 * 1024;

/// Room for what stands around a payload in JSON.
const JSON_AROUND_BYTES: usize = 4096;

/// Services that one sender follows at once.
pub const SERVICES_FOLLOWED_MAX: usize = 1024;

/// Why settings make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An instance must be able to run something.
    #[error("concurrency must be at least 1")]
    NoConcurrency,
    /// See [`SLOTS_MAX`].
    #[error("concurrency + queue must be at most {SLOTS_MAX}")]
    TooManySlots,
    /// See [`limits::PAYLOAD_BYTES_MAX`].
    #[error("the payload limit must be 1 to {} bytes", limits::PAYLOAD_BYTES_MAX)]
    PayloadLimit,
    /// A limit of zero would refuse everything.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// One job, or one result, must fit.
    #[error("{0} must be at least payload_bytes_max: raise it, or lower that")]
    BelowPayload(&'static str),
    /// See [`MAPPERS_MAX`].
    #[error("give 1 to {MAPPERS_MAX} mappers")]
    Mappers,
}

/// How much an instance takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeConfig {
    /// Jobs that run at once. Default 1.
    pub concurrency: u32,
    /// Jobs that wait beyond those that run; 0 is allowed. Default 10.
    pub queue: u32,
    /// Longest time that any job may run, from the start of its handler on; a shorter limit of its own
    /// counts. A worker that has one hands its handlers no job ahead. Default: none.
    pub run_limit: Option<Duration>,
    /// Largest payload of a job and of a result, in bytes. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Payloads of all jobs here together, in bytes. Default 64 MiB.
    pub jobs_bytes_max: usize,
    /// Results that their senders have not acknowledged yet, in bytes. What exceeds it is dropped,
    /// oldest first, and becomes `Unknown` at a sender that still asks for it. Default 64 MiB.
    pub results_bytes_max: usize,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            concurrency: 1,
            queue: 10,
            run_limit: None,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            jobs_bytes_max: 64 * 1024 * 1024,
            results_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl IntakeConfig {
    /// Room for jobs: those that run and those that wait.
    pub fn slots(&self) -> u32 {
        self.concurrency.saturating_add(self.queue)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.concurrency == 0 {
            return Err(ConfigError::NoConcurrency);
        }
        if self.slots() > SLOTS_MAX {
            return Err(ConfigError::TooManySlots);
        }
        validate_payload_limit(self.payload_bytes_max)?;
        // A single job or result of the largest size must fit, or it would be lost for ever.
        for (name, limit) in
            [("jobs_bytes_max", self.jobs_bytes_max), ("results_bytes_max", self.results_bytes_max)]
        {
            if limit < self.payload_bytes_max {
                return Err(ConfigError::BelowPayload(name));
            }
        }
        Ok(())
    }

    /// Bytes of results that are sent to one sender before it acknowledges some: of what it does not
    /// read, libzmq and the kernel keep no more. Senders acknowledge each mebibyte.
    pub fn unacknowledged_bytes_max(&self) -> usize {
        UNACKNOWLEDGED_BYTES.max(2 * self.payload_bytes_max)
    }

    /// Longest JSON of a client, in bytes: the largest payload in base64, and what goes around it.
    pub fn json_bytes_max(&self) -> usize {
        self.payload_bytes_max.div_ceil(3) * 4 + JSON_AROUND_BYTES
    }

    /// The same with payloads of so many bytes, of which at least one fits everywhere.
    pub fn with_payload_bytes_max(self, bytes: usize) -> Self {
        Self {
            payload_bytes_max: bytes,
            jobs_bytes_max: self.jobs_bytes_max.max(bytes),
            results_bytes_max: self.results_bytes_max.max(bytes),
            ..self
        }
    }
}

/// How a sender behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxConfig {
    /// Jobs without an outcome, at once. Default 16,384.
    pub jobs_max: usize,
    /// Payloads of those jobs together, in bytes; one of the largest size must fit. Default 256 MiB.
    pub jobs_bytes_max: usize,
    /// Largest payload, in bytes. A worker may take less. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Tries of one job before a rejection is final. Default 5.
    pub attempts_max: u32,
    /// All the time that a job gets unless it says so itself. Default: as long as it takes.
    pub deadline: Option<Duration>,
    /// How long a job may wait for a worker with room unless it says so itself. Default: as long as
    /// somebody serves its service.
    pub hold: Option<Duration>,
    /// How long a job may run unless it says so itself. Default: as long as it takes.
    pub run_limit: Option<Duration>,
    /// How long a job waits while nobody serves its service, if somebody did before, or while no
    /// mapper answers. Default 30 s: a worker or a mapper that is started again is there by then.
    pub patience: Duration,
    /// Instances of one service that this sender uses at once, chosen at random and kept.
    /// Default 64.
    pub active_peers_max: usize,
    /// A connection that carried nothing for this long is closed. Default 60 s.
    pub idle: Duration,
    /// How a worker is chosen. Default: [`Policy::Svcmap`].
    pub policy: Policy,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            jobs_max: 16_384,
            jobs_bytes_max: 256 * 1024 * 1024,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            attempts_max: 5,
            deadline: None,
            hold: None,
            run_limit: None,
            patience: Duration::from_secs(30),
            active_peers_max: 64,
            idle: Duration::from_secs(60),
            policy: Policy::default(),
        }
    }
}

impl OutboxConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_payload_limit(self.payload_bytes_max)?;
        let positive = [
            ("jobs_max", self.jobs_max),
            ("jobs_bytes_max", self.jobs_bytes_max),
            ("attempts_max", self.attempts_max as usize),
            ("active_peers_max", self.active_peers_max),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero(name));
        }
        // Or a job of the largest size waits for room that there never is.
        if self.jobs_bytes_max < self.payload_bytes_max {
            return Err(ConfigError::BelowPayload("jobs_bytes_max"));
        }
        Ok(())
    }

    /// The same with payloads of so many bytes, of which at least one fits.
    pub fn with_payload_bytes_max(self, bytes: usize) -> Self {
        let jobs_bytes_max = self.jobs_bytes_max.max(bytes);
        Self { payload_bytes_max: bytes, jobs_bytes_max, ..self }
    }
}

fn validate_payload_limit(bytes: usize) -> Result<(), ConfigError> {
    if bytes == 0 || bytes > limits::PAYLOAD_BYTES_MAX {
        return Err(ConfigError::PayloadLimit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_the_largest_size_must_fit_or_it_would_wait_for_ever() {
        let below = ConfigError::BelowPayload("jobs_bytes_max");
        let outbox = OutboxConfig { payload_bytes_max: 1001, ..OutboxConfig::default() };
        assert_eq!(OutboxConfig { jobs_bytes_max: 1001, ..outbox.clone() }.validate(), Ok(()));
        let outbox = OutboxConfig { jobs_bytes_max: 1000, ..outbox };
        assert_eq!(outbox.validate(), Err(below.clone()));
        let intake = IntakeConfig { jobs_bytes_max: 1000, ..IntakeConfig::default() };
        assert_eq!(intake.validate(), Err(below));
        let (outbox, intake) =
            (outbox.with_payload_bytes_max(2000), intake.with_payload_bytes_max(2000));
        assert_eq!((outbox.validate(), intake.validate()), (Ok(()), Ok(())));
        assert_eq!((outbox.payload_bytes_max, outbox.jobs_bytes_max), (2000, 2000));
    }

    #[test]
    fn whatever_the_wire_allows_can_be_set() {
        let most = limits::PAYLOAD_BYTES_MAX;
        assert_eq!(OutboxConfig::default().with_payload_bytes_max(most).validate(), Ok(()));
        assert_eq!(IntakeConfig::default().with_payload_bytes_max(most).validate(), Ok(()));
    }
}
