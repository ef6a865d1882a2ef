//! The open files of libzmq's sockets. One test alone in its process: any other would open files
//! in between.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;

use svcmap_proto::io::{
    EventLoop, SocketSettings, bind, connect, dealer, raise_open_files_limit, router,
};

/// The numbers of all open files, without the one that this look itself opens.
fn open_files() -> BTreeSet<i32> {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let files: Vec<i32> =
        files.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    files.into_iter().filter(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect()
}

#[test]
fn a_socket_is_one_file_that_no_child_inherits_and_there_may_be_many() {
    let of_the_harness = open_files();
    let event_loop = EventLoop::new(&[]).unwrap();
    let dealer = || dealer(event_loop.context(), SocketSettings::default()).unwrap();

    // The context opens files of its own together with its first socket.
    let first = dealer();
    let before = open_files().len();
    let sockets: Vec<_> = (0..50).map(|_| dealer()).collect();
    assert_eq!(open_files().len(), before + 50);
    for socket in &sockets {
        let file = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        assert_eq!(file.to_str(), Some("anon_inode:[eventfd]"));
    }

    // Listener and connections count as well: the launcher's children shall not hold them open.
    let router = router(event_loop.context(), SocketSettings::default()).unwrap();
    let endpoint = bind(&router, &"tcp://127.0.0.1:*".parse().unwrap()).unwrap();
    connect(&first, &endpoint).unwrap();
    assert_eq!(first.poll(zmq::POLLOUT, 20_000), Ok(1), "not connected");
    const O_CLOEXEC: u32 = 0o2_000_000;
    for fd in open_files().difference(&of_the_harness) {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        let file = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert_ne!(flags & O_CLOEXEC, 0, "{file:?} is inherited");
    }

    // libzmq's own default is 1023.
    assert!(raise_open_files_limit() > 1200, "the system allows too few files for this test");
    let many: Vec<_> = (0..1100).map(|_| dealer()).collect();
    assert_eq!(many.len(), 1100);
}
