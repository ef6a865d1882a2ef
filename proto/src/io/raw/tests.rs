use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::io::Clock;

/// Bytes that say when nobody has any use for them.
struct Watched {
    bytes: Vec<u8>,
    _alive: Arc<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn watched(len: usize) -> (Bytes, Arc<()>) {
    let alive = Arc::new(());
    let owner = Watched { bytes: vec![7; len], _alive: Arc::clone(&alive) };
    (Bytes::from_owner(owner), alive)
}

fn is_released(alive: &Arc<()>) -> bool {
    let until = Clock.now() + Duration::from_secs(10);
    while Arc::strong_count(alive) > 1 {
        if Clock.now() > until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A socket that sends, and one that it is connected to.
fn pair(context: &zmq::Context) -> (Socket, Socket) {
    let (sender, receiver) = (context.socket(zmq::PAIR), context.socket(zmq::PAIR));
    let (sender, receiver) = (sender.unwrap(), receiver.unwrap());
    receiver.bind("tcp://127.0.0.1:*").unwrap();
    sender.connect(&receiver.get_last_endpoint().unwrap().unwrap()).unwrap();
    receiver.set_rcvtimeo(10_000).unwrap();
    (sender, receiver)
}

#[test]
fn what_was_sent_arrives_and_is_let_go_of() {
    let context = zmq::Context::new();
    let (mut sender, receiver) = pair(&context);
    for len in [0, 1, 29, 5000, 3_000_000] {
        let (bytes, alive) = watched(len);
        send(&mut sender, &bytes, 0).unwrap();
        drop(bytes);
        assert_eq!(receiver.recv_bytes(0).unwrap(), vec![7; len]);
        assert!(is_released(&alive), "{len} bytes");
    }
}

#[test]
fn what_cannot_be_sent_is_the_callers_as_before() {
    let context = zmq::Context::new();
    let mut sender = context.socket(zmq::PAIR).unwrap();
    let (bytes, alive) = watched(5000);
    assert_eq!(send(&mut sender, &bytes, zmq::DONTWAIT), Err(zmq::Error::EAGAIN));
    assert_eq!((Arc::strong_count(&alive), bytes.len()), (2, 5000));
    drop(bytes);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn what_never_gets_out_is_let_go_of_with_the_socket() {
    let context = zmq::Context::new();
    let mut sender = context.socket(zmq::DEALER).unwrap();
    // Nobody listens there.
    sender.connect("tcp://127.0.0.1:1").unwrap();
    let (bytes, alive) = watched(5000);
    send(&mut sender, &bytes, zmq::DONTWAIT).unwrap();
    drop(bytes);
    assert_eq!(Arc::strong_count(&alive), 2);
    sender.set_linger(0).unwrap();
    drop(sender);
    assert!(is_released(&alive));
}

#[test]
fn a_panic_at_the_end_of_bytes_stays_there() {
    struct Angry;
    impl AsRef<[u8]> for Angry {
        fn as_ref(&self) -> &[u8] {
            &[7; 5000]
        }
    }
    impl Drop for Angry {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("not like this"));
        }
    }
    let context = zmq::Context::new();
    let mut lost = context.socket(zmq::DEALER).unwrap();
    lost.connect("tcp://127.0.0.1:1").unwrap();
    let angry = Bytes::from_owner(Angry);
    send(&mut lost, &angry, zmq::DONTWAIT).unwrap();
    // Only libzmq has them from now on, and lets go of them on a thread of its own.
    drop(angry);
    lost.set_linger(0).unwrap();
    drop(lost);
    let (mut sender, receiver) = pair(&context);
    let (bytes, alive) = watched(5000);
    send(&mut sender, &bytes, 0).unwrap();
    drop(bytes);
    assert_eq!(receiver.recv_bytes(0).unwrap().len(), 5000);
    assert!(is_released(&alive));
}
