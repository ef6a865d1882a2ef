//! What a subscriber can make a publisher keep, with the libzmq that this crate builds.

use svcmap_proto::io::{Socket, SocketSettings, bind, connect, publisher, subscriber};
use svcmap_proto::limits::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTIONS_MAX};

/// Far longer than anything here takes, in milliseconds.
const LONG_MS: i32 = 20_000;

/// A publisher, and a subscriber that is connected to it.
fn pair(context: &zmq::Context) -> (Socket, Socket) {
    let settings = SocketSettings { send_queue: 0, receive_queue: 0, ..SocketSettings::default() };
    let publisher = publisher(context, settings).unwrap();
    let endpoint = bind(&publisher, &"tcp://127.0.0.1:*".parse().unwrap()).unwrap();
    let subscriber = subscriber(context, settings).unwrap();
    subscriber.set_rcvtimeo(10).unwrap();
    connect(&subscriber, &endpoint).unwrap();
    (publisher, subscriber)
}

fn topics(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("{number}/"))
}

/// Publishes on a topic until that is received.
fn await_topic(publisher: &Socket, subscriber: &Socket, topic: &str) {
    for _ in 0..LONG_MS / 10 {
        publisher.send(topic, 0).unwrap();
        if subscriber.recv_bytes(0).is_ok_and(|received| received == topic.as_bytes()) {
            return;
        }
    }
    panic!("nobody subscribed to {topic}");
}

/// How many of these topics are received.
fn count(publisher: &Socket, subscriber: &Socket, numbers: std::ops::Range<usize>) -> usize {
    while subscriber.recv_bytes(0).is_ok() {}
    topics(numbers).for_each(|topic| publisher.send(&topic, 0).unwrap());
    std::iter::from_fn(|| subscriber.recv_bytes(0).ok()).count()
}

#[test]
fn a_connection_has_so_many_subscriptions_and_what_it_gives_back_makes_room() {
    let context = zmq::Context::new();
    let (publisher, subscriber) = pair(&context);
    let all = 0..2 * SUBSCRIPTIONS_MAX;
    topics(all.clone()).for_each(|topic| subscriber.set_subscribe(topic.as_bytes()).unwrap());
    await_topic(&publisher, &subscriber, &format!("{}/", SUBSCRIPTIONS_MAX - 1));
    assert_eq!(count(&publisher, &subscriber, all), SUBSCRIPTIONS_MAX);
    topics(0..100).for_each(|topic| subscriber.set_unsubscribe(topic.as_bytes()).unwrap());
    let others = 5 * SUBSCRIPTIONS_MAX..5 * SUBSCRIPTIONS_MAX + 100;
    topics(others.clone()).for_each(|topic| subscriber.set_subscribe(topic.as_bytes()).unwrap());
    await_topic(&publisher, &subscriber, &format!("{}/", others.end - 1));
    assert_eq!(count(&publisher, &subscriber, others), 100);
    assert_eq!(count(&publisher, &subscriber, 0..100), 0);
}

#[test]
fn a_long_subscription_counts_for_several() {
    let context = zmq::Context::new();
    let (publisher, subscriber) = pair(&context);
    let long = |number| format!("{number:0800}/");
    (0..SUBSCRIPTIONS_MAX).for_each(|n| subscriber.set_subscribe(long(n).as_bytes()).unwrap());
    // Of eleven each.
    let all = SUBSCRIPTIONS_MAX / 11;
    await_topic(&publisher, &subscriber, &long(all - 1));
    publisher.send(&long(all), 0).unwrap();
    assert!(subscriber.recv_bytes(0).is_err());
    // There is room for a few short ones, and for what is given back.
    subscriber.set_subscribe(b"x").unwrap();
    await_topic(&publisher, &subscriber, "x");
    (0..2).for_each(|n| subscriber.set_unsubscribe(long(n).as_bytes()).unwrap());
    topics(0..22).for_each(|topic| subscriber.set_subscribe(topic.as_bytes()).unwrap());
    await_topic(&publisher, &subscriber, "21/");
}

#[test]
fn a_subscription_that_is_longer_than_any_topic_ends_its_connection() {
    let context = zmq::Context::new();
    let (publisher, subscriber) = pair(&context);
    subscriber.set_subscribe(b"x").unwrap();
    await_topic(&publisher, &subscriber, "x");
    subscriber.monitor("inproc://ends", zmq::SocketEvent::DISCONNECTED as i32).unwrap();
    let ends = context.socket(zmq::PAIR).unwrap();
    ends.set_rcvtimeo(LONG_MS).unwrap();
    ends.connect("inproc://ends").unwrap();
    subscriber.set_subscribe(&[b'y'; 2 * SUBSCRIPTION_BYTES_MAX]).unwrap();
    assert_eq!(ends.recv_multipart(0).unwrap().len(), 2);
}
