//! Builds libzmq 4.3.5, with CURVE through libsodium and with the definitions that libzmq's own
//! build systems find out about the platform. `zeromq-src` leaves those out, and libzmq then runs
//! without eventfd, monotonic clock and TCP keepalive, and says nothing.

use std::env;
use std::path::PathBuf;

const LINUX: &[&str] = &[
    "HAVE_ACCEPT4",
    "HAVE_CLOCK_GETTIME",
    "HAVE_IF_NAMETOINDEX",
    "HAVE_MKDTEMP",
    "HAVE_POSIX_MEMALIGN",
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_IFADDRS",
    "ZMQ_HAVE_LINUX",
    "ZMQ_HAVE_NOEXCEPT",
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
    "ZMQ_HAVE_PTHREAD_SET_AFFINITY",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    "ZMQ_IOTHREAD_POLLER_USE_EPOLL_CLOEXEC",
];

const MACOS: &[&str] = &[
    "HAVE_CLOCK_GETTIME",
    "HAVE_IF_NAMETOINDEX",
    "HAVE_MKDTEMP",
    "HAVE_POSIX_MEMALIGN",
    "ZMQ_HAVE_IFADDRS",
    "ZMQ_HAVE_LOCAL_PEERCRED",
    "ZMQ_HAVE_NOEXCEPT",
    "ZMQ_HAVE_OSX",
    "ZMQ_HAVE_PTHREAD_SETNAME_1",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPINTVL",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target_os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    define(match target_os.as_str() {
        "linux" => LINUX,
        "macos" => MACOS,
        _ => &[],
    });
    let include = env::var("DEP_SODIUM_INCLUDE").expect("libsodium-sys-stable says where it is");
    let include = PathBuf::from(include);
    let lib = include.with_file_name("lib");
    let libsodium = zeromq_src::LibLocation::new(lib, include);
    zeromq_src::Build::new().with_libsodium(Some(libsodium)).build();
}

/// Passes definitions to the compiler the only way that `zeromq-src` leaves: through the
/// environment, after whatever stands there already.
fn define(names: &[&str]) {
    let target = env::var("TARGET").unwrap_or_default();
    let key = format!("CXXFLAGS_{}", target.replace('-', "_"));
    let known = [key.as_str(), "TARGET_CXXFLAGS", "CXXFLAGS"];
    let mut flags = known.iter().find_map(|key| env::var(key).ok()).unwrap_or_default();
    for name in names {
        flags.push_str(&format!(" -D{name}=1"));
    }
    flags.push_str(" -DZMQ_CACHELINE_SIZE=64");
    env::set_var(key, flags);
}
