//! The clock, random-free identity of this machine, and nothing else.

use rustix::time::{ClockId, clock_gettime};

use crate::names::HostId;
use crate::time::Timestamp;

/// Where `now` comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now, on a clock that runs on while the machine is suspended, as `Instant` does not on Linux.
    pub fn now(self) -> Timestamp {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = ClockId::Monotonic;
        micros(clock_gettime(id)).map_or_else(Timestamp::default, Timestamp::from_micros)
    }

    /// Unix time in microseconds, as this machine's wall clock has it.
    pub fn unix_us(self) -> u64 {
        micros(clock_gettime(ClockId::Realtime)).unwrap_or(0)
    }
}

fn micros(time: rustix::time::Timespec) -> Option<u64> {
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)
}

/// Which machine this is, until its next boot. Processes that share loopback get the same answer,
/// so the network namespace counts as well.
pub fn host_id() -> HostId {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).collect();
    let boot_id =
        u128::from_str_radix(&digits, 16).unwrap_or_else(|_| fold(node_name().as_bytes()));
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    HostId(boot_id ^ fold(namespace.as_os_str().as_encoded_bytes()))
}

/// The machine's name, as it calls itself.
pub fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// FNV-1a with 128 bits (draft-eastlake-fnv): the same on every build of svcmap.
fn fold(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_the_host_stays() {
        let before = Clock.now();
        assert!(Clock.now() >= before);
        assert!(Clock.unix_us() > 1_700_000_000_000_000);
        assert_eq!(host_id(), host_id());
        assert_ne!(host_id(), HostId::default());
    }
}
