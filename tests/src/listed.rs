//! Instances that a mapper lists by their word alone, without a worker behind them: to see what is told of
//! such.

use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Registration, ToMapper};
use svcmap_proto::io::{Clock, host_id, random_u64};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};

use crate::dealer;

/// An address of this machine where nobody listens, and nobody else will: the system gives ports of
/// `127.0.0.1` to whoever asks next, but none at this one.
pub fn nobody() -> Endpoint {
    let [a, b, c, ..] = random_u64().to_be_bytes().map(|byte| 1 + byte % 254);
    let host = format!("127.{a}.{b}.{c}");
    let listener = std::net::TcpListener::bind((host.as_str(), 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    Endpoint::tcp(&host, port).expect("an address")
}

/// What an instance of this machine says of itself.
pub fn registration(service: &str, instance: &str, at: &Endpoint, load: Load) -> Registration {
    Registration {
        key: InstanceKey {
            service: service.parse().expect("a name"),
            instance: instance.parse().expect("a name"),
        },
        incarnation: Incarnation(Clock.unix_us()),
        endpoints: vec![at.clone()],
        host: host_id(),
        pid: 1,
        load,
        error: None,
    }
}

/// Registers them, and returns what the mapper said to each. They are listed for three beats.
pub fn register(mapper: &Endpoint, all: Vec<Registration>) -> Vec<FromMapper> {
    let socket = dealer(mapper.as_str());
    let say = |registration| {
        socket.send(codec::encode(&ToMapper::Register(registration)), 0).expect("it is sent");
        let answer = socket.recv_bytes(0).expect("a mapper answers");
        codec::decode(&answer).expect("a message")
    };
    all.into_iter().map(say).collect()
}
