//! Settings of a mapper, each with its default and its limits. Timing is dictated to everybody
//! else in WELCOME, so no other process has settings that must agree with these.

use std::time::Duration;

use svcmap_proto::limits;

/// Shortest beat: below it, ordinary scheduling delays look like silence.
pub const BEAT_MIN: Duration = Duration::from_millis(10);

/// Longest beat: news of a dead instance that is older than some minutes is of no use.
pub const BEAT_MAX: Duration = Duration::from_secs(60);

/// Shortest time between two publications of a service's ordinary changes, unless another is set:
/// a hundred messages a second are little work for a subscriber.
pub const PUBLISH_MIN: Duration = Duration::from_millis(10);

/// Longest such time, or a beat if that is shorter: people look at services with long jobs, too.
pub const PUBLISH_MAX: Duration = Duration::from_secs(1);

/// The same for a service of which no instance has finished a job yet.
pub const PUBLISH_UNKNOWN: Duration = Duration::from_millis(100);

/// Most missed beats until an instance expires.
pub const EXPIRY_BEATS_MAX: u32 = 100;

/// Why settings make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// See [`BEAT_MIN`] and [`BEAT_MAX`].
    #[error("the beat must be {} ms to {} s", BEAT_MIN.as_millis(), BEAT_MAX.as_secs())]
    Beat,
    /// With one missed beat a single lost message would expire an instance.
    #[error("an instance must expire after 2 to {EXPIRY_BEATS_MAX} missed beats")]
    ExpiryBeats,
    /// Changes that come less often than snapshots are of no use.
    #[error("the publish interval must be 1 ms to one beat")]
    PublishInterval,
    /// See [`limits::INSTANCES_MAX`].
    #[error("the limit of instances must be 1 to {}", limits::INSTANCES_MAX)]
    Instances,
    /// See [`limits::SERVICES_MAX`].
    #[error("the limit of services must be 1 to {}", limits::SERVICES_MAX)]
    Services,
}

/// How a mapper behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest silence that a worker should allow itself, and the time between two pulses.
    /// Default 1 s.
    pub beat: Duration,
    /// Missed beats after which an instance is no longer listed. Default 3.
    pub expiry_beats: u32,
    /// Time between two publications of a service's ordinary changes: exactly this. Default
    /// `None`: the mean service time of its instances, as news that is older than a job is wrong and
    /// much younger news hardly better. Then it is [`PUBLISH_MIN`] to [`PUBLISH_MAX`], and longer if
    /// there are so many instances that their news would fill the network.
    pub publish_interval: Option<Duration>,
    /// Instances that are listed at once. Default and most: [`limits::INSTANCES_MAX`].
    pub instances_max: usize,
    /// Services that are known at once, those without instances included. Default and most:
    /// [`limits::SERVICES_MAX`].
    pub services_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(1),
            expiry_beats: 3,
            publish_interval: None,
            instances_max: limits::INSTANCES_MAX,
            services_max: limits::SERVICES_MAX,
        }
    }
}

impl Config {
    /// Silence after which an instance is no longer listed.
    pub fn expiry(&self) -> Duration {
        self.beat.saturating_mul(self.expiry_beats)
    }

    /// Time after its start in which a mapper may not know everybody yet: until every native
    /// instance that was alive has either registered again, which workers spread over two beats, or
    /// would have expired. Those of the JSON dialect take longer, as they report seldom; caches
    /// keep them for as long as such a lease lasts.
    pub fn warming(&self) -> Duration {
        self.expiry() + self.beat.saturating_mul(2)
    }

    /// The shortest time between two publications of a service's ordinary changes: reports that
    /// come more often are of no use.
    pub fn publish_shortest(&self) -> Duration {
        self.publish_interval.unwrap_or(PUBLISH_MIN)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(BEAT_MIN..=BEAT_MAX).contains(&self.beat) {
            return Err(ConfigError::Beat);
        }
        if !(2..=EXPIRY_BEATS_MAX).contains(&self.expiry_beats) {
            return Err(ConfigError::ExpiryBeats);
        }
        if !(Duration::from_millis(1)..=self.beat).contains(&self.publish_shortest()) {
            return Err(ConfigError::PublishInterval);
        }
        if !(1..=limits::INSTANCES_MAX).contains(&self.instances_max) {
            return Err(ConfigError::Instances);
        }
        if !(1..=limits::SERVICES_MAX).contains(&self.services_max) {
            return Err(ConfigError::Services);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(Config::default().expiry(), Duration::from_secs(3));
        assert_eq!(Config::default().warming(), Duration::from_secs(5));
    }

    #[test]
    fn each_setting_has_its_limits() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate()
        };
        assert_eq!(with(|c| c.beat = Duration::ZERO), Err(ConfigError::Beat));
        assert_eq!(with(|c| c.beat = Duration::MAX), Err(ConfigError::Beat));
        assert_eq!(with(|c| c.expiry_beats = 1), Err(ConfigError::ExpiryBeats));
        let ten = Duration::from_secs(10);
        assert_eq!(
            with(|c| c.publish_interval = Some(Duration::ZERO)),
            Err(ConfigError::PublishInterval)
        );
        assert!(with(|c| c.publish_interval = Some(c.beat)).is_ok());
        assert_eq!(
            Config { publish_interval: Some(ten), ..Config::default() }.validate(),
            Err(ConfigError::PublishInterval)
        );
        assert_eq!(with(|c| c.instances_max = 0), Err(ConfigError::Instances));
        assert_eq!(with(|c| c.services_max = usize::MAX), Err(ConfigError::Services));
    }
}
