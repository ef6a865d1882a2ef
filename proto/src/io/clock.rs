//! The clock, random-free identity of this machine, and nothing else.

use std::sync::OnceLock;

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

/// Which machine this is, until its next boot. Processes that share loopback get the same answer, so
/// the network namespace counts as well; but see [`host_id_doubt`].
pub fn host_id() -> HostId {
    this_machine().0
}

/// Why this process may be taken for one on another machine than it is, by those there that see more;
/// worth a warning. Loopback addresses are then of no use between them.
pub fn host_id_doubt() -> Option<&'static str> {
    this_machine().1
}

/// Read once: a process that is out of files later stays on the same machine.
fn this_machine() -> (HostId, Option<&'static str>) {
    static THIS: OnceLock<(HostId, Option<&'static str>)> = OnceLock::new();
    *THIS.get_or_init(|| {
        let (machine, doubt) = machine(|path| std::fs::read_to_string(path).ok(), &node_name());
        let namespace = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
        (HostId(machine ^ fold(namespace.as_os_str().as_encoded_bytes())), doubt)
    })
}

/// A number for this machine, and what is wrong with it. A kernel's boot has a number that all its
/// containers see. A machine's id is often another one in each container, and a name may be anything.
fn machine(read: impl Fn(&str) -> Option<String>, name: &str) -> (u128, Option<&'static str>) {
    let number = |path| {
        let digits = read(path)?.trim().replace('-', "");
        u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)
    };
    if let Some(boot) = number("/proc/sys/kernel/random/boot_id") {
        (boot, None)
    } else if let Some(machine) = number("/etc/machine-id") {
        (machine, Some("/proc/sys/kernel/random/boot_id cannot be read: /etc/machine-id is used"))
    } else {
        let text = "neither /proc/sys/kernel/random/boot_id nor /etc/machine-id can be read: \
            the host's name is used";
        (fold(name.as_bytes()), Some(text))
    }
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

    #[test]
    fn a_machine_that_shows_no_boot_is_known_by_something_that_stays_and_says_so() {
        let (boot, id) = ("/proc/sys/kernel/random/boot_id", "/etc/machine-id");
        let of = |files: &[(&str, &str)], name| {
            let file = |path: &str| files.iter().find(|(known, _)| *known == path);
            machine(|path| file(path).map(|(_, text)| (*text).to_owned()), name)
        };
        let ids = ["00000000-0000-0000-0000-0000000000ff\n", "00000000000000000000000000000abc\n"];
        let all = [(boot, ids[0]), (id, ids[1])];
        assert_eq!(of(&all, "h"), (0xff, None));
        let (machine, doubt) = of(&all[1..], "h");
        assert_eq!((machine, doubt.is_some()), (0xabc, true));
        for unreadable in [&[][..], &[(boot, ""), (id, "uninitialized\n")], &[(id, "")]] {
            let (machine, doubt) = of(unreadable, "h");
            assert_eq!(machine, of(unreadable, "h").0);
            assert_ne!(machine, of(unreadable, "g").0);
            assert!(doubt.is_some_and(|doubt| doubt.contains("name")));
        }
    }
}
