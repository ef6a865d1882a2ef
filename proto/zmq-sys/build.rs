//! Builds libzmq 4.3.5, with CURVE through libsodium and with the definitions that libzmq's own
//! build systems find out about the platform. `zeromq-src` leaves those out, and libzmq then runs
//! without eventfd, monotonic clock and TCP keepalive, and says nothing.
//!
//! Changes of libzmq stand in `patches`, each with its reason. Without them, as in a build that
//! takes another libzmq, everything works, but what one peer can make this process keep is bounded
//! less tightly. `zmq_has("svcmap")` tells which of the two runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// What `zeromq-src` defines for the files that the patches change.
const ZEROMQ_SRC: &[&str] = &[
    "HAVE_STRNLEN",
    "ZMQ_HAVE_CURVE",
    "ZMQ_HAVE_IPC",
    "ZMQ_HAVE_STRUCT_SOCKADDR_UN",
    "ZMQ_HAVE_UIO",
    "ZMQ_HAVE_WS",
    "ZMQ_POLL_BASED_ON_POLL",
    "ZMQ_STATIC",
    "ZMQ_USE_BUILTIN_SHA1",
    "ZMQ_USE_CV_IMPL_STL11",
    "ZMQ_USE_LIBSODIUM",
];

/// Changes of libzmq, as `diff -u` writes them.
const PATCHES: &[&str] = &[
    "patches/bytes.patch",
    "patches/capability.patch",
    "patches/listener.patch",
    "patches/routing-ids.patch",
    "patches/subscriptions.patch",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    PATCHES.iter().for_each(|patch| println!("cargo:rerun-if-changed={patch}"));
    let target_os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    define(match target_os.as_str() {
        "linux" => LINUX,
        "macos" => MACOS,
        _ => &[],
    });
    let include = env::var("DEP_SODIUM_INCLUDE").expect("libsodium-sys-stable says where it is");
    let include = PathBuf::from(include);
    let lib = include.with_file_name("lib");
    let libsodium = zeromq_src::LibLocation::new(lib, &include);
    // An earlier build left its patched copy, if there was one.
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let _ = fs::remove_dir_all(out.join("source"));
    zeromq_src::Build::new().with_libsodium(Some(libsodium)).build();
    // The patches count on gaps in classes that other objects know, too: 64-bit pointers leave them.
    if env::var("CARGO_CFG_TARGET_POINTER_WIDTH").as_deref() == Ok("64") {
        patch(&out, &include, &target_os);
    } else {
        println!("cargo:warning=libzmq is built without svcmap's patches: pointers are too short");
    }
}

/// Compiles the files that the patches change once more, and puts them into the library in place of
/// the original ones.
fn patch(out: &Path, sodium: &Path, target_os: &str) {
    let source = out.join("source");
    let mut changed: Vec<String> = PATCHES
        .iter()
        .flat_map(|patch| apply(&fs::read_to_string(patch).expect("a patch"), &source))
        .filter_map(|file| file.strip_suffix(".cpp").map(str::to_owned))
        .collect();
    changed.sort();
    changed.dedup();

    let mut build = cc::Build::new();
    build.cpp(true).std("c++11").warnings(false);
    build.include(source.join("src")).include(source.join("include")).include(out).include(sodium);
    for name in ZEROMQ_SRC {
        build.define(name, "1");
    }
    let poller = if target_os == "linux" { "EPOLL" } else { "KQUEUE" };
    build.define(&format!("ZMQ_IOTHREAD_POLLER_USE_{poller}"), "1");
    build.files(changed.iter().map(|stem| source.join(format!("{stem}.cpp"))));
    build.out_dir(out.join("patched"));
    let objects = build.compile_intermediates();

    let library = out.join("lib/libzmq.a");
    let archive = |action: &str, members: &[PathBuf]| {
        let mut command: Command = build.get_archiver();
        let output = command.arg(action).arg(&library).args(members).output();
        let output = output.expect("the archiver starts");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let members = archive("t", &[]);
    let originals = changed.iter().map(|stem| {
        let ending = format!("-{}.o", stem.trim_start_matches("src/"));
        let mut found = members.lines().filter(|member| member.ends_with(&ending));
        let original = found.next().unwrap_or_else(|| panic!("nothing ends in {ending}"));
        assert_eq!(found.next(), None, "more than one ends in {ending}");
        PathBuf::from(original)
    });
    archive("d", &originals.collect::<Vec<_>>());
    archive("rs", &objects);
}

/// Applies a patch to the files below `source`, and returns which ones it changes. What it replaces
/// must stand there exactly once: a patch that does not fit ends the build.
fn apply(patch: &str, source: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for part in patch.split("\n--- ").skip(1) {
        let (names, hunks) = part.split_once("\n@@").expect("hunks behind the names");
        let (_, name) = names.split_once("\n+++ b/").expect("two names");
        let path = source.join(name);
        let mut text = fs::read_to_string(&path).expect("a file of libzmq");
        for hunk in hunks.split("\n@@") {
            let lines: Vec<&str> = hunk.lines().skip(1).collect();
            let side = |other: char| -> String {
                let kept = lines.iter().filter(|line| !line.starts_with(other));
                kept.map(|line| format!("{}\n", line.get(1..).unwrap_or(""))).collect()
            };
            let (before, after) = (side('+'), side('-'));
            assert_eq!(text.matches(&before).count(), 1, "not once in {name}:\n{before}");
            text = text.replacen(&before, &after, 1);
        }
        fs::write(&path, text).expect("the copy can be written");
        files.push(name.to_owned());
    }
    files
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
