//! Whom an event loop lets in.

use std::time::Duration;

use svcmap_proto::io::curve::{new_keys, secure_client, secure_server};
use svcmap_proto::io::{
    Clock, Event, EventLoop, SocketKey, SocketSettings, bind, connect, dealer, router,
};
use svcmap_proto::keys::{KeyPair, PublicKey};
use svcmap_proto::names::Endpoint;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// Somebody who listens, and whom it lets in.
struct Server {
    event_loop: EventLoop,
    endpoint: Endpoint,
    keys: KeyPair,
}

impl Server {
    fn admitting(admitted: &[PublicKey]) -> Self {
        let (mut event_loop, keys) = (EventLoop::new(&[]).unwrap(), new_keys().unwrap());
        event_loop.admit_only(admitted.iter().copied()).unwrap();
        let socket = router(event_loop.context(), SocketSettings::default()).unwrap();
        secure_server(&socket, &keys).unwrap();
        let endpoint = bind(&socket, &"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
        event_loop.add(socket).unwrap();
        Self { event_loop, endpoint, keys }
    }

    /// What it hears of these, who all speak as soon as they can, until `wanted` of them were heard.
    fn hears(&mut self, clients: &mut [Client], wanted: usize) -> Vec<Vec<u8>> {
        let (until, mut heard) = (Clock.now() + LONG, Vec::new());
        while heard.len() < wanted && Clock.now() < until {
            let soon = Some(Clock.now() + Duration::from_millis(5));
            clients.iter_mut().for_each(|client| client.turn());
            let hear = |event: Event<'_>| {
                if let Event::Received(_, frames) = event {
                    heard.push(frames[1].to_vec());
                }
            };
            self.event_loop.turn(soon, hear).unwrap();
        }
        heard
    }
}

/// Somebody who says a word once it is connected.
struct Client {
    event_loop: EventLoop,
    socket: SocketKey,
    word: &'static [u8],
    is_connected: bool,
}

impl Client {
    fn new(server: &Server, word: &'static [u8], keys: Option<(&KeyPair, PublicKey)>) -> Self {
        let mut event_loop = EventLoop::new(&[]).unwrap();
        let socket = dealer(event_loop.context(), SocketSettings::default()).unwrap();
        if let Some((own, server)) = keys {
            secure_client(&socket, own, server).unwrap();
        }
        connect(&socket, &server.endpoint).unwrap();
        let socket = event_loop.add(socket).unwrap();
        event_loop.watch_writable(socket);
        Self { event_loop, socket, word, is_connected: false }
    }

    fn turn(&mut self) {
        let mut connected = false;
        let soon = Some(Clock.now() + Duration::from_millis(1));
        self.event_loop
            .turn(soon, |event| connected |= matches!(event, Event::Writable(_)))
            .unwrap();
        if connected && !self.is_connected {
            self.event_loop.send(self.socket, [self.word]).unwrap();
        }
        self.is_connected |= connected;
    }
}

#[test]
fn only_known_keys_get_in_and_only_to_whom_they_mean() {
    let (known, late, stranger) = (new_keys().unwrap(), new_keys().unwrap(), new_keys().unwrap());
    let mut server = Server::admitting(&[known.public, late.public]);
    let key = server.keys.public;
    let mut nobody = [
        Client::new(&server, b"plain", None),
        Client::new(&server, b"stranger", Some((&stranger, key))),
        Client::new(&server, b"to another", Some((&known, stranger.public))),
        // Who knows a public key does not have the secret one.
        Client::new(
            &server,
            b"pretender",
            Some((&KeyPair { public: known.public, ..stranger.clone() }, key)),
        ),
    ];
    // They have all the time that one needs who is let in, several times.
    for word in [&b"known"[..], b"again", b"once more"] {
        let mut somebody = [Client::new(&server, word, Some((&known, key)))];
        let mut heard = server.hears(&mut somebody, 1);
        heard.extend(server.hears(&mut nobody, 0));
        assert_eq!(heard, [word]);
    }
    let mut all: Vec<_> = nobody.into_iter().collect();
    all.push(Client::new(&server, b"late", Some((&late, key))));
    assert_eq!(server.hears(&mut all, 1), [b"late"]);
    assert!(all[..4].iter().all(|client| !client.is_connected));
}

#[test]
fn without_a_list_nobody_gets_in() {
    let keys = new_keys().unwrap();
    let mut server = Server::admitting(&[]);
    let key = server.keys.public;
    let mut clients = [Client::new(&server, b"one", Some((&keys, key)))];
    let until = Clock.now() + Duration::from_millis(300);
    while Clock.now() < until {
        assert!(server.hears(&mut clients, 0).is_empty());
        clients[0].turn();
        server.event_loop.turn(Some(Clock.now()), |_| {}).unwrap();
    }
    assert!(!clients[0].is_connected);
}

#[test]
fn a_second_loop_of_a_process_has_a_list_of_its_own() {
    let keys = new_keys().unwrap();
    let (mut one, mut two) = (Server::admitting(&[keys.public]), Server::admitting(&[]));
    let mut clients = [
        Client::new(&one, b"one", Some((&keys, one.keys.public))),
        Client::new(&two, b"two", Some((&keys, two.keys.public))),
    ];
    assert_eq!(one.hears(&mut clients, 1), [b"one"]);
    assert!(two.hears(&mut clients, 0).is_empty() && !clients[1].is_connected);
}
