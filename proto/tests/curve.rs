//! Whom an event loop lets in.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::control::{PULSE_TOPIC, topic};
use svcmap_proto::io::curve::{new_keys, secure_client, secure_server};
use svcmap_proto::io::{
    Admitted, Clock, Event, EventLoop, SocketKey, SocketSettings, bind, connect, dealer, router,
    selective_publisher, subscriber, user,
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
    /// Who was heard, in their order.
    users: Vec<Option<PublicKey>>,
}

/// These, with these services.
fn admitting(keys: &[(PublicKey, &str)]) -> Admitted {
    let services = |text: &str| text.split(',').map(|one| one.parse().unwrap()).collect();
    keys.iter().map(|(key, text)| (*key, services(text))).collect()
}

impl Server {
    fn admitting(admitted: &[PublicKey]) -> Self {
        let (mut event_loop, keys) = (EventLoop::new(&[]).unwrap(), new_keys().unwrap());
        let admitted = admitted.iter().map(|key| (*key, Vec::new()));
        event_loop.admit_only(admitted.collect()).unwrap();
        let socket = router(event_loop.context(), SocketSettings::default()).unwrap();
        secure_server(&socket, &keys).unwrap();
        let endpoint = bind(&socket, &"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
        event_loop.add(socket).unwrap();
        Self { event_loop, endpoint, keys, users: Vec::new() }
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
                    self.users.push(user(frames));
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
    let until = Clock.now() + Duration::from_millis(300);
    while Clock.now() < until {
        clients[1].turn();
        two.event_loop.turn(Some(Clock.now()), |_| {}).unwrap();
    }
    assert!(!clients[1].is_connected);
}

#[test]
fn each_message_tells_who_sent_it() {
    let keys = [new_keys().unwrap(), new_keys().unwrap()];
    let mut server = Server::admitting(&[keys[0].public, keys[1].public]);
    let key = server.keys.public;
    for own in &keys {
        let mut client = [Client::new(&server, b"word", Some((own, key)))];
        server.hears(&mut client, 1);
    }
    assert_eq!(server.users, [Some(keys[0].public), Some(keys[1].public)]);
}

#[test]
fn who_is_not_admitted_any_more_is_cut_off_and_the_others_are_not() {
    let keys = [new_keys().unwrap(), new_keys().unwrap()];
    let mut server = Server::admitting(&[keys[0].public, keys[1].public]);
    let key = server.keys.public;
    let mut clients = [
        Client::new(&server, b"stays", Some((&keys[0], key))),
        Client::new(&server, b"goes", Some((&keys[1], key))),
    ];
    server.hears(&mut clients, 2);
    server.event_loop.admit(admitting(&[(keys[0].public, "*")]));
    let (until, mut lost) = (Clock.now() + LONG, false);
    while !lost && Clock.now() < until {
        let soon = Some(Clock.now() + Duration::from_millis(1));
        let lose = |event: Event<'_>| lost |= matches!(event, Event::Unwritable(_));
        clients[1].event_loop.turn(soon, lose).unwrap();
        server.event_loop.turn(soon, |_| {}).unwrap();
    }
    assert!(lost);
    // Who stays is heard on the connection that it had, and who went is not, however long it tries.
    for word in [&b"first"[..], b"second", b"third"] {
        let (socket, stays) = (clients[0].socket, &mut clients[0].event_loop);
        stays.send(socket, [word]).unwrap();
        let socket = clients[1].socket;
        let _ = clients[1].event_loop.send(socket, [&b"still here"[..]]);
        assert_eq!(server.hears(&mut clients, 1), [word]);
    }
}

/// Files have the lowest number that is free, so the next connection has that of the last.
#[test]
fn who_has_the_number_of_a_connection_that_is_gone_is_not_cut_off_for_it() {
    let keys = [new_keys().unwrap(), new_keys().unwrap()];
    let mut server = Server::admitting(&[keys[0].public, keys[1].public]);
    let key = server.keys.public;
    for _ in 0..5 {
        server.hears(&mut [Client::new(&server, b"gone", Some((&keys[1], key)))], 1);
    }
    let mut stays = [Client::new(&server, b"stays", Some((&keys[0], key)))];
    server.hears(&mut stays, 1);
    server.event_loop.admit(admitting(&[(keys[0].public, "*")]));
    let (until, mut lost) = (Clock.now() + Duration::from_millis(300), false);
    while Clock.now() < until {
        let soon = Some(Clock.now() + Duration::from_millis(1));
        let lose = |event: Event<'_>| lost |= matches!(event, Event::Unwritable(_));
        stays[0].event_loop.turn(soon, lose).unwrap();
        server.event_loop.turn(soon, |_| {}).unwrap();
    }
    assert!(!lost);
}

#[test]
fn a_subscriber_hears_of_its_services_and_of_nothing_else() {
    let (one, all) = (new_keys().unwrap(), new_keys().unwrap());
    let (mut publisher, keys) = (EventLoop::new(&[]).unwrap(), new_keys().unwrap());
    publisher.admit_only(admitting(&[(one.public, "resize*"), (all.public, "*")])).unwrap();
    let socket = selective_publisher(publisher.context(), SocketSettings::default()).unwrap();
    secure_server(&socket, &keys).unwrap();
    let endpoint = bind(&socket, &"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = publisher.add(socket).unwrap();
    let [resize, resize_2, thumb] =
        ["resize", "resize-2", "thumb"].map(|service| topic(&service.parse().unwrap()));
    let topics = [&resize, &resize_2, &thumb].map(Vec::as_slice);
    let mut listeners = [&one, &all].map(|own| {
        let event_loop = EventLoop::new(&[]).unwrap();
        let socket = subscriber(event_loop.context(), SocketSettings::default()).unwrap();
        secure_client(&socket, own, keys.public).unwrap();
        // Everything as well, which nobody has, and part of a name.
        for topic in topics.into_iter().chain([PULSE_TOPIC, b"", b"thu"]) {
            socket.set_subscribe(topic).unwrap();
        }
        connect(&socket, &endpoint).unwrap();
        let mut event_loop = event_loop;
        event_loop.add(socket).unwrap();
        (event_loop, BTreeMap::<Vec<u8>, u32>::new())
    });
    let until = Clock.now() + LONG;
    // As often as it takes until both have heard all that they may, several times.
    let has_heard = |heard: &BTreeMap<Vec<u8>, u32>, topics: &[&[u8]]| {
        topics.iter().all(|topic| heard.get(*topic).is_some_and(|count| *count > 20))
    };
    let (its, everything) =
        ([topics[0], topics[1], PULSE_TOPIC], [topics[0], topics[1], topics[2]]);
    while !(has_heard(&listeners[0].1, &its) && has_heard(&listeners[1].1, &everything)) {
        assert!(Clock.now() < until, "{:?}", listeners.map(|(_, heard)| heard));
        for topic in topics.into_iter().chain([PULSE_TOPIC, b"other/"]) {
            publisher.send(socket, [topic, b"news"]).unwrap();
        }
        let soon = || Some(Clock.now() + Duration::from_millis(1));
        let mut delivered = false;
        publisher.turn(soon(), |_| delivered = true).unwrap();
        assert!(!delivered, "what subscribers say is decided on within the loop");
        for (event_loop, heard) in &mut listeners {
            let hear = |event: Event<'_>| {
                if let Event::Received(_, frames) = event {
                    *heard.entry(frames[0].to_vec()).or_default() += 1;
                }
            };
            event_loop.turn(soon(), hear).unwrap();
        }
    }
    assert!(!listeners[0].1.contains_key(&thumb), "{:?}", listeners[0].1);
    assert!(listeners.iter().all(|(_, heard)| !heard.contains_key(&b"other/"[..])));
}
