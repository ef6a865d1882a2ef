//! What a mapper's name means: all addresses that it has.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::{Probe, probe};
use crate::names::{Endpoint, MapperAddress};

/// How long addresses of the family that the system puts first may take to greet, where there are others.
const FAMILY_PATIENCE: Duration = Duration::from_secs(1);

/// The addresses of an endpoint, each with its port, in an order that is the same for everybody. If it is
/// [no name](Endpoint::is_name) that is itself. Blocks for as long as the system likes.
///
/// Of a name that has IPv4 and IPv6 addresses those count that the system puts first, unless only others
/// greet: they are two ways to the same mappers, and one of the ways may lead nowhere. If nobody greets, all
/// of them count.
///
/// # Errors
/// If it leads nowhere, in the system's words.
pub fn look_up(endpoint: &Endpoint) -> Result<Vec<Endpoint>, String> {
    if !endpoint.is_name() {
        return Ok(vec![endpoint.clone()]);
    }
    let found = (endpoint.host(), endpoint.port().unwrap_or(0)).to_socket_addrs();
    let (first, others) = families(found.map_err(|error| error.to_string())?);
    if first.is_empty() {
        return Err("it has no address".to_owned());
    }
    let greets = |all: &[Endpoint]| probe(all, FAMILY_PATIENCE).contains(&Probe::Reached);
    Ok(match others.is_empty() || greets(&first) {
        true => first,
        false if greets(&others) => others,
        // Whoever is away comes back at one of them.
        false => [first, others].concat(),
    })
}

/// Where all mappers are that were named so, each address once. A name that leads nowhere stays one. Blocks
/// like [`look_up`].
pub fn look_up_all(named: &[Endpoint]) -> Vec<MapperAddress> {
    let mut found: Vec<MapperAddress> = Vec::new();
    for named in named {
        let addresses = look_up(named).unwrap_or_else(|_| vec![named.clone()]);
        for address in addresses {
            if found.iter().all(|known| known.address != address) {
                found.push(MapperAddress { named: named.clone(), address });
            }
        }
    }
    found
}

/// Those of the first one's family, and those of the other; each once, and in their order.
fn families(found: impl Iterator<Item = SocketAddr>) -> (Vec<Endpoint>, Vec<Endpoint>) {
    // A link-local address stays with its interface.
    let canonical = |it: SocketAddr| match it.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, it.port()),
        IpAddr::V6(_) => it,
    };
    let mut found = found.map(canonical).peekable();
    let is_first_v4 = found.peek().is_some_and(SocketAddr::is_ipv4);
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    let (first, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv4() == is_first_v4);
    let endpoints = |all: Vec<SocketAddr>| {
        all.iter().filter_map(|address| format!("tcp://{address}").parse().ok()).collect()
    };
    (endpoints(first), endpoints(others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_name_is_itself() {
        for text in ["tcp://10.0.0.5:7", "tcp://localhost:7", "tcp://[::1]:7"] {
            assert_eq!(look_up(&endpoint(text)), Ok(vec![endpoint(text)]));
        }
    }

    #[test]
    fn a_name_that_leads_nowhere_is_an_error() {
        // RFC 6761: no name under `invalid` is ever any host's.
        assert!(look_up(&endpoint("tcp://mappers.invalid:7")).is_err());
    }

    #[test]
    fn addresses_are_told_apart_by_family_and_come_in_one_order() {
        let found = ["10.0.0.3:7", "[fd00::1]:7", "10.0.0.20:7", "[::ffff:10.0.0.3]:7"];
        let (first, others) = families(found.iter().map(|text| text.parse().unwrap()));
        assert_eq!(first, ["tcp://10.0.0.3:7", "tcp://10.0.0.20:7"].map(endpoint));
        assert_eq!(others, [endpoint("tcp://[fd00::1]:7")]);
        let scoped = families(["[fe80::1%3]:7".parse().unwrap()].into_iter());
        assert_eq!(scoped.0, [endpoint("tcp://[fe80::1%3]:7")]);
        let (first, _) = families(found.iter().rev().skip(2).map(|text| text.parse().unwrap()));
        assert_eq!(first, [endpoint("tcp://[fd00::1]:7")]);
    }
}
