//! Where others on the network find this machine.

use std::net::IpAddr;

/// An address of this machine on the network, IPv4 before IPv6, or its name if it has none.
pub fn own_address() -> String {
    let addresses = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<_> = addresses
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(if_addrs::Interface::ip)
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.first().map_or_else(super::node_name, IpAddr::to_string)
}
