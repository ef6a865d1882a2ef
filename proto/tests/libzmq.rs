//! The libzmq that this crate builds can what svcmap counts on, and the event loop delivers.

use std::ops::ControlFlow;
use std::time::Duration;

use svcmap_proto::io::{
    BindError, Clock, Event, EventLoop, SendError, Socket, SocketKey, SocketSettings, bind,
    connect, dealer, router,
};
use svcmap_proto::limits::FRAMES_MAX;
use svcmap_proto::names::Endpoint;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// What a loop delivered, to keep.
#[derive(Debug, PartialEq)]
enum Seen {
    Received(Vec<Vec<u8>>),
    TooManyFrames,
    CutOff,
    Writable,
    Unwritable,
    Signal(i32),
    Woken,
}

/// One turn that waits no longer than that.
fn turn(event_loop: &mut EventLoop, at_most: Duration) -> Vec<Seen> {
    let mut seen = Vec::new();
    let deliver = |event: Event<'_>| {
        seen.push(match event {
            Event::Received(_, frames) => {
                Seen::Received(frames.iter().map(|frame| frame.to_vec()).collect())
            }
            Event::TooManyFrames(..) => Seen::TooManyFrames,
            Event::CutOff(..) => Seen::CutOff,
            Event::Writable(_) => Seen::Writable,
            Event::Unwritable(_) => Seen::Unwritable,
            Event::Signal(signal) => Seen::Signal(signal),
            Event::Woken => Seen::Woken,
        });
    };
    event_loop.turn(Some(Clock.now() + at_most), deliver).unwrap();
    seen
}

/// Turns until `look` has what it looks for; what is delivered after that in the same turn is lost.
fn find<T>(event_loop: &mut EventLoop, mut look: impl FnMut(Seen) -> ControlFlow<T>) -> T {
    let deadline = Clock.now() + LONG;
    while Clock.now() < deadline {
        for seen in turn(event_loop, deadline.since(Clock.now())) {
            if let ControlFlow::Break(found) = look(seen) {
                return found;
            }
        }
    }
    panic!("nothing came for {LONG:?}");
}

fn await_event_of(event_loop: &mut EventLoop, wanted: impl Fn(&Seen) -> bool) {
    find(event_loop, |seen| {
        if wanted(&seen) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}

fn await_event(event_loop: &mut EventLoop, wanted: Seen) {
    await_event_of(event_loop, |seen| *seen == wanted);
}

/// The frames of the next message.
fn receive(event_loop: &mut EventLoop) -> Vec<Vec<u8>> {
    find(event_loop, |seen| match seen {
        Seen::Received(frames) => ControlFlow::Break(frames),
        Seen::TooManyFrames => panic!("too many frames"),
        _ => ControlFlow::Continue(()),
    })
}

/// A ROUTER and a DEALER, each in a loop of its own, and connected.
struct Pair {
    server: EventLoop,
    router: SocketKey,
    client: EventLoop,
    dealer: SocketKey,
    endpoint: Endpoint,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    fn with(of_router: impl FnOnce(&Socket), of_dealer: impl FnOnce(&Socket)) -> Self {
        let mut server = EventLoop::new(&[]).unwrap();
        let socket = router(server.context(), SocketSettings::default()).unwrap();
        of_router(&socket);
        let endpoint = bind(&socket, &"tcp://127.0.0.1:*".parse().unwrap()).unwrap();
        let router = server.add(socket).unwrap();
        let mut client = EventLoop::new(&[]).unwrap();
        let socket = dealer(client.context(), SocketSettings::default()).unwrap();
        of_dealer(&socket);
        connect(&socket, &endpoint).unwrap();
        let dealer = client.add(socket).unwrap();
        client.watch_writable(dealer);
        await_event(&mut client, Seen::Writable);
        Self { server, router, client, dealer, endpoint }
    }

    fn ask(&mut self, frames: &[&[u8]]) {
        self.client.send(self.dealer, frames.iter().copied()).unwrap();
    }
}

#[test]
fn libzmq_is_4_3_5_with_curve() {
    assert_eq!(zmq::version(), (4, 3, 5));
    assert_eq!(zmq::has("curve"), Some(true));
    assert_eq!(svcmap_proto::io::libzmq_doubt(), None);
}

#[test]
fn curve_carries_messages() {
    let (server, client) = (zmq::CurveKeyPair::new().unwrap(), zmq::CurveKeyPair::new().unwrap());
    let mut pair = Pair::with(
        |router| {
            router.set_curve_server(true).unwrap();
            router.set_curve_secretkey(&server.secret_key).unwrap();
        },
        |dealer| {
            dealer.set_curve_serverkey(&server.public_key).unwrap();
            dealer.set_curve_publickey(&client.public_key).unwrap();
            dealer.set_curve_secretkey(&client.secret_key).unwrap();
            assert_eq!(dealer.get_mechanism(), Ok(zmq::Mechanism::ZMQ_CURVE));
        },
    );
    pair.ask(&[b"secret"]);
    assert_eq!(receive(&mut pair.server)[1], b"secret");
}

/// A keepalive that libzmq was built without is set without an error and does nothing.
#[cfg(target_os = "linux")]
#[test]
fn the_kernel_watches_over_both_ends_of_a_connection() {
    let mut pair = Pair::new();
    let port = format!(":{:04X}", pair.endpoint.port().unwrap());
    let deadline = Clock.now() + LONG;
    loop {
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|t| std::fs::read_to_string(t).unwrap());
        // local address, remote address, state (01: established), queues, timer, ...
        let timers: Vec<&str> = tables
            .iter()
            .flat_map(|table| table.lines())
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|line| line.len() > 5 && line[3] == "01")
            .filter(|line| line[1].ends_with(&port) || line[2].ends_with(&port))
            .map(|line| line[5])
            .collect();
        // 02 is the keepalive timer, and behind it stands when it ends, in 1/100 s: 30 s at most
        // are ours, two hours would be the system's.
        let watched = |timer: &&str| {
            let left = timer.strip_prefix("02:").map(|left| u32::from_str_radix(left, 16).unwrap());
            left.is_some_and(|left| left <= 3000)
        };
        if timers.len() == 2 && timers.iter().all(watched) {
            break;
        }
        assert!(Clock.now() < deadline, "{timers:?}");
        turn(&mut pair.client, Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_threads_of_libzmq_have_names() {
    let _pair = Pair::new();
    let named = |task: std::fs::DirEntry| {
        // A thread of another test may end in between.
        std::fs::read_to_string(task.path().join("comm"))
            .unwrap_or_default()
            .starts_with("ZMQbg/IO")
    };
    assert!(std::fs::read_dir("/proc/self/task").unwrap().any(|task| named(task.unwrap())));
}

#[test]
fn localhost_is_where_clients_look() {
    let event_loop = EventLoop::new(&[]).unwrap();
    let context = event_loop.context();
    let socket = || router(context, SocketSettings::default()).unwrap();
    let (first, second) = (socket(), socket());
    let bound = bind(&first, &"tcp://localhost:0".parse().unwrap()).unwrap();
    let port = bound.port().unwrap();
    assert_eq!(bound, Endpoint::tcp("127.0.0.1", port).unwrap());
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        std::net::TcpStream::connect(("::1", port)).unwrap();
    }
    let again = bind(&second, &Endpoint::tcp("localhost", port).unwrap());
    assert_eq!(again, Err(BindError::InUse(bound)));
}

#[test]
fn a_name_for_this_machine_leads_to_who_listens_there() {
    let mut server = EventLoop::new(&[]).unwrap();
    let listener = router(server.context(), SocketSettings::default()).unwrap();
    let bound = bind(&listener, &"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    server.add(listener).unwrap();
    let mut client = EventLoop::new(&[]).unwrap();
    let socket = dealer(client.context(), SocketSettings::default()).unwrap();
    connect(&socket, &Endpoint::tcp("localhost", bound.port().unwrap()).unwrap()).unwrap();
    let key = client.add(socket).unwrap();
    client.watch_writable(key);
    let deadline = Clock.now() + LONG;
    while !turn(&mut client, Duration::from_millis(20)).contains(&Seen::Writable) {
        turn(&mut server, Duration::ZERO);
        assert!(Clock.now() < deadline, "nobody is there");
    }
}

#[test]
fn messages_go_to_the_other_loop_and_back() {
    let mut pair = Pair::new();
    // Whether they are expected or not.
    for expects in [false, true].repeat(20) {
        pair.ask(&[b"job", b"payload"]);
        if expects {
            pair.server.expect_soon();
            pair.client.expect_soon();
        }
        let [id, header, payload] = receive(&mut pair.server).try_into().unwrap();
        assert_eq!((&header[..], &payload[..]), (&b"job"[..], &b"payload"[..]));
        pair.server.send(pair.router, [&id[..], b"outcome"]).unwrap();
        assert_eq!(receive(&mut pair.client), [b"outcome"]);
    }
}

#[test]
fn a_flood_comes_whole_and_in_order_though_no_turn_takes_all_of_it() {
    const MESSAGES: u16 = 2000;
    let mut pair = Pair::new();
    let (mut sent, mut came) = (0_u16, 0_u16);
    let started = Clock.now();
    while came < MESSAGES {
        while sent < MESSAGES && pair.client.send(pair.dealer, [&sent.to_le_bytes()[..]]).is_ok() {
            sent += 1;
        }
        if sent < MESSAGES {
            turn(&mut pair.client, Duration::ZERO);
        }
        // A turn that slept over what its budget left would sleep for long.
        let seen = turn(&mut pair.server, LONG);
        assert!(seen.len() <= 256, "others must have their turn as well");
        for event in seen {
            let Seen::Received(frames) = event else { panic!("{event:?}") };
            assert_eq!(frames[1], came.to_le_bytes());
            came += 1;
        }
        assert!(Clock.now().since(started) < LONG, "{came} of {sent} came");
    }
}

#[test]
fn a_message_with_too_many_frames_is_told_and_the_next_one_comes() {
    let mut pair = Pair::new();
    // The routing id is a frame as well.
    pair.ask(&[&b"x"[..]; FRAMES_MAX]);
    pair.ask(&[&b"y"[..]; FRAMES_MAX - 1]);
    pair.ask(&[&b"z"[..]; 100]);
    pair.ask(&[b"end"]);
    let mut seen = Vec::new();
    find(&mut pair.server, |event| {
        let end = matches!(&event, Seen::Received(frames) if frames[1] == b"end");
        seen.push(match event {
            Seen::Received(frames) => frames.len(),
            _ => 0,
        });
        if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(seen, [0, FRAMES_MAX, 0, 2]);
}

#[test]
fn a_sender_is_told_that_nobody_takes_its_message() {
    let mut pair = Pair::new();
    let nobody = pair.server.send(pair.router, [&b"nobody"[..], b"x"]);
    assert_eq!(nobody, Err(SendError::Unreachable));
    pair.server.close(Duration::ZERO);
    await_event(&mut pair.client, Seen::Unwritable);
    assert_eq!(pair.client.send(pair.dealer, [&b"x"[..]]), Err(SendError::Full));
    pair.client.remove(pair.dealer, Duration::ZERO);
    assert_eq!(pair.client.send(pair.dealer, [&b"x"[..]]), Err(SendError::Unreachable));
}

#[test]
fn what_was_sent_last_still_gets_out() {
    let queue = svcmap_proto::limits::queue(16 * 1024 * 1024);
    let mut pair = Pair::with(
        |router| router.set_rcvhwm(queue).unwrap(),
        |dealer| dealer.set_sndhwm(queue).unwrap(),
    );
    // More than the kernel takes at once, and less than the queues hold.
    let heavy = vec![0; 20_000];
    (0..500).for_each(|_| pair.ask(&[&heavy]));
    pair.ask(&[b"goodbye"]);
    pair.client.close(LONG);
    await_event_of(
        &mut pair.server,
        |seen| matches!(seen, Seen::Received(frames) if frames[1] == b"goodbye"),
    );
}

#[test]
fn another_thread_wakes_the_loop_again_and_again() {
    let mut event_loop = EventLoop::new(&[]).unwrap();
    for expects in [false, true].repeat(50) {
        if expects {
            event_loop.expect_soon();
        }
        let waker = event_loop.waker();
        let wake = move || (0..3).for_each(|_| waker.wake());
        let thread = std::thread::Builder::new().spawn(wake).unwrap();
        assert_eq!(turn(&mut event_loop, LONG), [Seen::Woken]);
        thread.join().unwrap();
        // The first call may have been delivered before the others came: let them not count for
        // the next round.
        turn(&mut event_loop, Duration::ZERO);
    }
}

#[test]
fn a_signal_is_an_event() {
    let signal = signal_hook::consts::SIGUSR1;
    let mut event_loop = EventLoop::new(&[signal]).unwrap();
    // To this thread alone: it would end the waits of other tests early.
    signal_hook::low_level::raise(signal).unwrap();
    await_event(&mut event_loop, Seen::Signal(signal));
}

#[test]
fn a_deadline_ends_a_turn() {
    let mut event_loop = EventLoop::new(&[]).unwrap();
    for (wait, expects) in [(0, false), (30, false), (30, true)] {
        if expects {
            event_loop.expect_soon();
        }
        let deadline = Clock.now() + Duration::from_millis(wait);
        assert_eq!(turn(&mut event_loop, deadline.since(Clock.now())), []);
        assert!(Clock.now() >= deadline && Clock.now().since(deadline) < LONG);
    }
}

#[test]
fn a_turn_ends_in_time_however_long_each_message_takes() {
    let mut pair = Pair::new();
    (0..100).for_each(|_| pair.ask(&[b"x"]));
    let mut came = 0;
    while came < 100 {
        let (started, before) = (Clock.now(), came);
        let deliver = |event: Event<'_>| {
            if matches!(event, Event::Received(..)) {
                came += 1;
                std::thread::park_timeout(Duration::from_millis(4));
            }
        };
        pair.server.turn(Some(Clock.now() + LONG), deliver).unwrap();
        assert!(came - before <= 16, "{} in one turn", came - before);
        assert!(Clock.now().since(started) < LONG);
    }
}

#[test]
fn large_messages_are_looked_at_one_by_one() {
    let mut pair = Pair::new();
    let large = vec![0; 100 * 1024];
    (0..5).for_each(|_| pair.ask(&[&large]));
    let (mut came, mut was_behind) = (0, false);
    while came < 5 {
        let before = came;
        let deliver = |event: Event<'_>| {
            if matches!(event, Event::Received(..)) {
                came += 1;
                std::thread::park_timeout(Duration::from_millis(12));
            }
        };
        pair.server.turn(Some(Clock.now() + LONG), deliver).unwrap();
        assert!(came - before <= 1, "{} in one turn", came - before);
        was_behind |= pair.server.is_behind(pair.router);
        turn(&mut pair.client, Duration::ZERO);
    }
    turn(&mut pair.server, Duration::ZERO);
    assert!(was_behind && !pair.server.is_behind(pair.router));
}

/// With a plain libzmq a water mark would count messages: eight, however large they are.
#[test]
fn water_marks_count_kibibytes() {
    let mut pair = Pair::with(|router| router.set_rcvhwm(8).unwrap(), |_| {});
    let large = vec![0; 64 * 1024];
    let mut sent = 0;
    // Until the kernel takes no more either.
    while sent < 2000 && pair.client.send(pair.dealer, [&large[..]]).is_ok() {
        sent += 1;
        turn(&mut pair.client, Duration::ZERO);
    }
    assert!((16..400).contains(&sent), "{sent}");
    find(&mut pair.server, |_| {
        sent -= 1;
        if sent == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    // A message of many frames is taken whole, though it goes beyond the mark amid them.
    let frames = [&large[..1024]; FRAMES_MAX - 1];
    (0..100).for_each(|_| {
        // A socket that is written to again and again looks at what was read only now and then.
        turn(&mut pair.client, Duration::ZERO);
        pair.ask(&frames);
        assert_eq!(receive(&mut pair.server).len(), FRAMES_MAX);
    });
}
