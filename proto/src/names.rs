//! Who: services, instances and their lives, senders, hosts, and where they are reached.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// The name of a service or of an instance: 1 to 64 letters, digits, `.`, `_` or `-`.
///
/// Cheap to clone.
///
/// ```
/// use svcmap_proto::names::Name;
/// assert!("resize".parse::<Name>().is_ok());
/// assert!("re/size".parse::<Name>().is_err());
/// ```
#[derive(Clone)]
pub struct Name {
    /// Its first letters as a number: what comes first is less. Zeros follow a short one.
    start: u64,
    text: Arc<str>,
}

// Names are compared all the time. The first letters tell most of them apart without a look at the
// text, and all that are short; of the others many are clones of one another, which their address
// tells.
impl Ord for Name {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.start.cmp(&other.start) {
            Ordering::Equal if !self.is_in_start() => self.cmp_text(other),
            order => order,
        }
    }
}

impl PartialEq for Name {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Name {}

// As its text, for which it can stand in a map.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl PartialOrd for Name {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    // Out of line: what is left is small enough to become part of every search.
    #[inline(never)]
    fn cmp_text(&self, other: &Self) -> Ordering {
        match Arc::ptr_eq(&self.text, &other.text) {
            true => Ordering::Equal,
            false => self.text.cmp(&other.text),
        }
    }

    /// Whether its first letters are all that there are.
    #[inline]
    fn is_in_start(&self) -> bool {
        self.start.trailing_zeros() >= u8::BITS
    }
}

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name: use 1 to 64 letters, digits, `.`, `_` or `-`")]
pub struct NameError {
    name: String,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(NameError { name: name.escape_debug().take(80).collect() });
        }
        let mut start = [0; size_of::<u64>()];
        start.iter_mut().zip(name.bytes()).for_each(|(start, byte)| *start = byte);
        Ok(Self { start: u64::from_be_bytes(start), text: name.into() })
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <&str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// An instance of a service; written `service/instance`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// What it serves.
    pub service: Name,
    /// Which one it is.
    pub instance: Name,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

/// Tells two lives of one instance apart; the later life has the higher number.
///
/// Unix time in microseconds at start, or one more than the highest that is alive for that name.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random number that a mapper draws at start: it tells two lives of a mapper apart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A random number that a sender draws at start. Who knows it can speak in its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SenderId(pub u128);

/// Its first half: enough to tell senders apart in a log, and does not give them away.
impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0 >> 64)
    }
}

impl fmt::Debug for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SenderId({self}…)")
    }
}

/// Which machine (and network namespace): processes with the same one reach each other on loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostId(pub u128);

/// Where a socket is reached: `tcp://HOST:PORT`.
///
/// As a place to bind, HOST may be `*` (all interfaces) and PORT `*` or `0` (the system chooses).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint(Arc<str>);

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{endpoint}` is no endpoint: write tcp://HOST:PORT, such as tcp://127.0.0.1:5555")]
pub struct EndpointError {
    endpoint: String,
}

impl Endpoint {
    /// A TCP endpoint of that host and port. An IPv6 address is put in brackets.
    ///
    /// # Errors
    /// If `host` is no host name or address.
    pub fn tcp(host: &str, port: u16) -> Result<Self, EndpointError> {
        if host.contains(':') && !host.starts_with('[') {
            format!("tcp://[{host}]:{port}").parse()
        } else {
            format!("tcp://{host}:{port}").parse()
        }
    }

    /// The endpoint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.split().0.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port; `None` for `*`.
    pub fn port(&self) -> Option<u16> {
        self.split().1.parse().ok()
    }

    /// Whether it is a place to bind on all interfaces.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host(), "*" | "0.0.0.0" | "::")
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host().eq_ignore_ascii_case("localhost")
            || self
                .host()
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether its host is a name that is looked up, and may have several addresses. `localhost` is not.
    pub fn is_name(&self) -> bool {
        let host = self.host().split('%').next().unwrap_or_default();
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        !(is_address || self.is_wildcard() || self.is_loopback())
    }

    /// The same as who dialled `mapper` reaches it: `*` means the host that was dialled.
    #[must_use]
    pub fn as_dialled(&self, mapper: &Endpoint) -> Endpoint {
        let port = self.port().filter(|_| self.is_wildcard());
        let dialled = port.and_then(|port| Endpoint::tcp(mapper.host(), port).ok());
        dialled.unwrap_or_else(|| self.clone())
    }

    fn split(&self) -> (&str, &str) {
        let address = self.0.strip_prefix("tcp://").unwrap_or(&self.0);
        address.rsplit_once(':').unwrap_or((address, ""))
    }
}

/// Where a mapper is dialled. With several addresses, a name stands for several mappers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapperAddress {
    /// As it was named: whoever answers has to have the key that goes with that.
    pub named: Endpoint,
    /// One of the addresses that this means; the same if it needs no look-up, or leads nowhere.
    pub address: Endpoint,
}

impl MapperAddress {
    /// What needs no look-up, or has had none yet.
    pub fn of(named: &Endpoint) -> Self {
        Self { named: named.clone(), address: named.clone() }
    }
}

impl fmt::Display for MapperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named == self.address {
            true => self.named.fmt(f),
            false => write!(f, "{} ({})", self.named, self.address.host()),
        }
    }
}

/// Those of an instance's endpoints that can be used from its own host or from another, best first.
pub fn usable_endpoints(endpoints: &[Endpoint], same_host: bool) -> Vec<&Endpoint> {
    let mut usable: Vec<_> = endpoints.iter().filter(|e| same_host || !e.is_loopback()).collect();
    if same_host {
        usable.sort_by_key(|endpoint| !endpoint.is_loopback());
    }
    usable
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let valid = text.len() <= limits::ENDPOINT_BYTES_MAX
            && text
                .strip_prefix("tcp://")
                .and_then(|a| a.rsplit_once(':'))
                .is_some_and(|(host, port)| is_host(host) && (port == "*" || is_port(port)));
        if !valid {
            return Err(EndpointError { endpoint: text.escape_debug().take(300).collect() });
        }
        Ok(Self(text.into()))
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address = inner.split_once('%').map_or(inner, |(address, _zone)| address);
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && inner.bytes().all(|b| b.is_ascii_alphanumeric() || b":.%_-".contains(&b));
    }
    host == "*"
        || (!host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')))
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let endpoint = <&str>::deserialize(deserializer)?;
        endpoint.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_narrow_alphabet() {
        for good in ["a", "resize-2", "Video_1.eu", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_ordered_as_their_texts() {
        let texts = ["a", "a.", "aaaaaaaa", "aaaaaaaa1", "aaaaaaaa2", "aaaaaaab", "b"];
        let names = texts.map(|text| text.parse::<Name>().unwrap());
        for (one, name) in texts.iter().zip(&names) {
            for (another, other) in texts.iter().zip(&names) {
                assert_eq!(name.cmp(other), one.cmp(another), "{one} {another}");
                assert_eq!(name == other, one == another);
            }
        }
        assert_eq!(names[4], "aaaaaaaa2".parse().unwrap());
    }

    #[test]
    fn endpoints_are_tcp_with_host_and_port() {
        for good in [
            "tcp://127.0.0.1:5555",
            "tcp://*:0",
            "tcp://[::1]:5555",
            "tcp://[fe80::1%eth0]:1",
            "tcp://host-1.example:*",
        ] {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1:5555",
            "tcp://",
            "tcp://:1",
            "tcp://h:65536",
            "tcp://h:+1",
            "ipc:///dev/null/x",
            "tcp://a;b:1",
            "tcp://[::1:5",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_know_their_reach() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        assert!(endpoint("tcp://*:1").is_wildcard());
        assert!(endpoint("tcp://[::]:1").is_wildcard());
        assert!(endpoint("tcp://127.0.0.9:1").is_loopback());
        assert!(endpoint("tcp://[::ffff:127.0.0.1]:1").is_loopback());
        assert!(!endpoint("tcp://10.0.0.5:1").is_loopback());
        for name in ["tcp://mappers:1", "tcp://10.0.0.5.example:1"] {
            assert!(endpoint(name).is_name() && !endpoint(name).is_loopback(), "{name}");
        }
        for other in
            ["tcp://*:1", "tcp://LOCALHOST:1", "tcp://10.0.0.5:1", "tcp://[fe80::1%eth0]:1"]
        {
            assert!(!endpoint(other).is_name(), "{other}");
        }
        assert_eq!(Endpoint::tcp("::1", 7).unwrap().as_str(), "tcp://[::1]:7");
        assert_eq!(endpoint("tcp://[::1]:7").host(), "::1");
    }
}
