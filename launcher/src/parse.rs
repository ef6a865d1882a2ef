//! Single values of the command line and the environment, from text.

use std::ffi::OsStr;
use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, InstanceKey, Name};

use crate::errors::Failure;

/// Where the mapper listens if nobody says otherwise.
pub const MAPPER_DEFAULT: &str = "tcp://127.0.0.1:5555";

/// The environment variable that replaces `--mapper`: endpoints with commas between them.
pub const MAPPER_VARIABLE: &str = "SVCMAP_MAPPER";

/// The environment variable that names the trace that a program is part of (W3C Trace Context, and
/// OpenTelemetry for the variable).
pub const TRACE_VARIABLE: &str = "TRACEPARENT";

/// Longest time that can be asked for: 30 days fit into a `u32` of milliseconds, as the wire has it.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A time such as `500us`, `20ms`, `1.5s`, `10s`, `2m` or `1h`; a bare `0` needs no unit.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit_s = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err("the unit is missing: write us, ms, s, m or h behind it".to_owned()),
        _ => return Err("write a number and us, ms, s, m or h, such as 500ms".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "the number is missing, as in 500ms")?;
    Duration::try_from_secs_f64(number * unit_s)
        .ok()
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| "more than 30 days".to_owned())
}

/// A number from 1 on.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn count<N: FromStr<Err = ParseIntError>>(text: &str) -> Result<N, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "too large".to_owned(),
        _ => "write a number from 1 on".to_owned(),
    })
}

/// A [`duration`] that is not zero.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn duration_nonzero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Offered load / capacity: more than nothing, and at most ten times what can be done.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn utilisation(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 10.0);
    share.ok_or_else(|| "write a number above 0, up to 10, such as 0.9".to_owned())
}

/// A number of bytes such as `4096`, `64KiB`, `16MiB` or `2GiB`.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit_bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write a number of bytes, or with KiB, MiB or GiB behind it".to_owned()),
    };
    let number = number.parse::<u64>().map_err(|_| "the number is missing, as in 64KiB")?;
    number.checked_mul(unit_bytes).ok_or_else(|| "too large".to_owned())
}

/// A payload limit, within what the wire allows.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn payload_bytes(text: &str) -> Result<usize, String> {
    match usize::try_from(bytes(text)?) {
        Ok(bytes @ 1..=limits::PAYLOAD_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("write 1B to {}MiB", limits::PAYLOAD_BYTES_MAX / (1024 * 1024))),
    }
}

/// A time as [`duration`] reads it back, to the microsecond.
pub fn exact(time: Duration) -> String {
    match time.as_micros() {
        us if us.is_multiple_of(1000) => format!("{}ms", us / 1000),
        us => format!("{us}us"),
    }
}

/// An instance, such as `resize/2`.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn instance_key(text: &str) -> Result<InstanceKey, String> {
    let (service, instance) =
        text.split_once('/').ok_or("write SERVICE/INSTANCE, such as resize/2")?;
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    Ok(InstanceKey { service: name(service)?, instance: name(instance)? })
}

/// An endpoint to connect to: a real host and a real port.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn peer(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|e| format!("{e}"))?;
    if endpoint.is_wildcard() || endpoint.port().is_none_or(|port| port == 0) {
        return Err("name one host and one port, such as tcp://127.0.0.1:5555".to_owned());
    }
    Ok(endpoint)
}

/// The endpoint on the same host with the next port; the system chooses it if it chooses the first.
pub fn beside(endpoint: &Endpoint) -> Endpoint {
    let next = endpoint.port().filter(|&port| port > 0).and_then(|port| port.checked_add(1));
    // The host comes from an endpoint, so it makes another one.
    Endpoint::tcp(endpoint.host(), next.unwrap_or(0)).unwrap_or_else(|_| endpoint.clone())
}

/// Where others reach a worker: an endpoint, or only a host, which means the port that it binds.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn advertised(text: &str) -> Result<Endpoint, String> {
    let endpoint = if text.contains("://") {
        text.parse()
    } else if text.contains(':') {
        format!("tcp://[{text}]:*").parse()
    } else {
        format!("tcp://{text}:*").parse()
    };
    let endpoint: Endpoint =
        endpoint.map_err(|_| "write a host, such as 10.0.0.7, or tcp://HOST:PORT".to_owned())?;
    if endpoint.is_wildcard() {
        return Err("others cannot connect to all interfaces: name one host".to_owned());
    }
    Ok(endpoint)
}

/// The trace in that variable: `00-`, 32 hexadecimal digits, 16, and 2. What is no such thing is nothing.
pub fn trace(value: Option<&OsStr>) -> Option<String> {
    let text = value?.to_str()?;
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    (parts.iter().all(is_hex) && lengths == [2, 32, 16, 2]).then(|| text.to_owned())
}

/// Which mappers were named: by flags, else by `SVCMAP_MAPPER`. Without duplicates.
///
/// # Errors
/// If the variable holds something else than endpoints.
pub fn mappers(flags: &[Endpoint], variable: Option<&OsStr>) -> Result<Vec<Endpoint>, Failure> {
    let mut mappers: Vec<Endpoint> = Vec::new();
    let mut add = |endpoint: Endpoint| {
        if !mappers.contains(&endpoint) {
            mappers.push(endpoint);
        }
    };
    if !flags.is_empty() {
        flags.iter().cloned().for_each(add);
        return Ok(mappers);
    }
    let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(mappers) };
    for part in text.to_string_lossy().split(',') {
        add(peer(part.trim()).map_err(|error| {
            Failure::usage(format!("{MAPPER_VARIABLE} is wrong: `{part}`: {error}"))
                .fix(format!("export {MAPPER_VARIABLE}={MAPPER_DEFAULT}"))
        })?);
    }
    Ok(mappers)
}

/// A condition to wait for, such as `resize>=3`: so many instances of that service are ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which service.
    pub service: Name,
    /// How many of its instances have to be ready.
    pub ready: usize,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, ready) = text
            .split_once(">=")
            .ok_or("write NAME>=COUNT in quotes, such as 'resize>=3'".to_owned())?;
        let service = service.trim().parse().map_err(|e| format!("{e}"))?;
        let ready = ready.trim().parse().map_err(|_| format!("`{ready}` is no number"))?;
        Ok(Self { service, ready })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>={}", self.service, self.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("0", ms(0)),
            ("0s", ms(0)),
            ("500us", Duration::from_micros(500)),
            ("500ms", ms(500)),
            ("1.5s", ms(1500)),
            ("10s", ms(10_000)),
            ("2m", ms(120_000)),
            ("720h", DURATION_MAX),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1 s", "1d", "1.2.3s", ".", "721h", "1e9s", "999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration_nonzero("0ms").is_err());
        assert_eq!(duration_nonzero("1ms"), Ok(ms(1)));
    }

    #[test]
    fn payload_limits_stay_within_the_wire() {
        assert_eq!(payload_bytes("4096"), Ok(4096));
        assert_eq!(payload_bytes("64KiB"), Ok(65_536));
        assert_eq!(payload_bytes("256MiB"), Ok(limits::PAYLOAD_BYTES_MAX));
        for bad in ["0", "257MiB", "1GB", "", "KiB", "-1", "99999999999999999999"] {
            assert!(payload_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_have_one_host_and_one_port() {
        assert!(peer("tcp://10.0.0.5:5555").is_ok());
        for bad in ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://h:0", "tcp://h:*", "h:1", ""] {
            assert!(peer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_port_is_beside() {
        for (first, second) in [
            ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"),
            ("tcp://*:5557", "tcp://*:5558"),
            ("tcp://[::1]:7", "tcp://[::1]:8"),
            ("tcp://h:*", "tcp://h:0"),
            ("tcp://h:0", "tcp://h:0"),
            ("tcp://h:65535", "tcp://h:0"),
        ] {
            assert_eq!(beside(&first.parse().unwrap()).as_str(), second, "{first}");
        }
    }

    #[test]
    fn a_host_alone_is_advertised_with_the_port_that_is_bound() {
        let text = |t| advertised(t).map(|endpoint| endpoint.as_str().to_owned());
        assert_eq!(text("10.0.0.7").as_deref(), Ok("tcp://10.0.0.7:*"));
        assert_eq!(text("fe80::1").as_deref(), Ok("tcp://[fe80::1]:*"));
        assert_eq!(text("tcp://h:7").as_deref(), Ok("tcp://h:7"));
        assert!(text("*").is_err() && text("a b").is_err() && text("h:7").is_err());
    }

    #[test]
    fn flags_go_over_the_variable() {
        let [a, b] = ["tcp://a:1", "tcp://b:2"].map(|t| peer(t).unwrap());
        let variable = Some(OsStr::new("tcp://a:1, tcp://b:2,tcp://a:1"));
        assert_eq!(mappers(std::slice::from_ref(&b), variable), Ok(vec![b.clone()]));
        assert_eq!(mappers(&[], variable), Ok(vec![a, b]));
        assert_eq!(mappers(&[], None), Ok(Vec::new()));
        assert_eq!(mappers(&[], Some(OsStr::new(""))), Ok(Vec::new()));
        let error = mappers(&[], Some(OsStr::new("localhost"))).unwrap_err();
        assert!(error.message.starts_with("SVCMAP_MAPPER is wrong: `localhost`"));
    }

    #[test]
    fn a_trace_that_is_none_is_not_passed_on() {
        let trace = |text: &str| super::trace(Some(OsStr::new(text)));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(good).as_deref(), Some(good));
        for bad in ["", "00", &good[1..], &good.to_uppercase(), &good.replace('-', "_")] {
            assert_eq!(trace(bad), None, "{bad}");
        }
        assert_eq!(super::trace(None), None);
    }

    #[test]
    fn conditions_name_a_service_and_a_count() {
        let wanted: Wanted = "resize >= 3".parse().unwrap();
        assert_eq!((wanted.service.as_str(), wanted.ready), ("resize", 3));
        assert_eq!(wanted.to_string(), "resize>=3");
        for bad in ["resize", "resize=3", ">=3", "resize>=x", "re size>=1"] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }
}
