//! Networks of a test's own: namespaces joined by a bridge, in which addresses change and
//! connections die without a word. Nothing of it touches the machine's own network.
//!
//! It takes root and `ip` and `ss` from iproute2.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use svcmap::commands::status::{self, Report};
use svcmap_proto::io::{Clock, random_u64};
use svcmap_proto::names::Endpoint;
use svcmap_proto::time::Timestamp;

use crate::{PATIENCE, executable};

/// What these tests say is said in plain text: they are about connections.
const PLAIN: &str = "--insecure";

/// A bridge, and hosts that are connected to it.
pub struct Network {
    switch: String,
    /// The hosts, with addresses from [`address`] 1 on.
    pub hosts: Vec<Host>,
}

/// A namespace with one interface and one address.
pub struct Host {
    namespace: String,
    /// Its address.
    pub address: String,
}

/// A process of the command under test, killed when this is dropped.
pub struct Process(Child);

/// The address of that number.
pub fn address(number: usize) -> String {
    format!("10.77.0.{number}")
}

impl Network {
    /// So many hosts; `None`, with a word about it, where a test may not make any.
    pub fn new(hosts: usize) -> Option<Self> {
        let has_tool = |tool| Command::new(tool).arg("-V").output().is_ok();
        if !rustix::process::geteuid().is_root() || !has_tool("ip") || !has_tool("ss") {
            eprintln!("skipped: network namespaces take root, and ip and ss from iproute2");
            return None;
        }
        if !is_permitted(&["--net", "true"]) {
            eprintln!("skipped: root may make no network namespaces here");
            return None;
        }
        let id = format!("svcmap-{}-{:08x}", std::process::id(), random_u64() >> 32);
        // From here on what was made is removed, also if the rest fails.
        let mut network = Self { switch: format!("{id}-switch"), hosts: Vec::new() };
        let switch = network.switch.clone();
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        for number in 1..=hosts {
            let namespace = format!("{id}-{number}");
            ip(&["netns", "add", &namespace]);
            let host = Host { namespace, address: address(number) };
            let (namespace, port) = (host.namespace.clone(), format!("port{number}"));
            network.hosts.push(host);
            let peer = ["type", "veth", "peer", "name", &port, "netns", &switch];
            ip(&[&["link", "add", "name", "eth0", "netns", &namespace], &peer[..]].concat());
            ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"]);
            ip(&["-n", &namespace, "link", "set", "lo", "up"]);
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
            network.hosts[number - 1].add_address(number);
        }
        Some(network)
    }
}

/// Whether the system lets this process unshare that.
pub fn is_permitted(what: &[&str]) -> bool {
    Command::new("unshare").args(what).output().is_ok_and(|output| output.status.success())
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = self.hosts.iter().map(|host| &host.namespace);
        for namespace in hosts.chain([&self.switch]) {
            // What is missing was not made.
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
            let _ = std::fs::remove_dir_all(names(namespace));
        }
    }
}

impl Host {
    /// Gives it the address of that number, beside those that it has.
    pub fn add_address(&self, number: usize) {
        let address = format!("{}/24", address(number));
        ip(&["-n", &self.namespace, "address", "add", &address, "dev", "eth0"]);
    }

    /// Gives it that address instead of the one that it has. What is connected is not told.
    pub fn change_address(&mut self, number: usize) {
        ip(&["-n", &self.namespace, "address", "flush", "dev", "eth0"]);
        self.add_address(number);
        self.address = address(number);
    }

    /// Lets that name mean these addresses for the processes that are started there, those that run
    /// included if the name meant others before.
    pub fn set_name(&self, name: &str, addresses: &[&str]) {
        let folder = names(&self.namespace);
        std::fs::create_dir_all(&folder).expect("root may do that");
        // In place: `ip netns exec` puts this file over that of the machine.
        let lines: String = addresses.iter().map(|it| format!("{it} {name}\n")).collect();
        std::fs::write(folder.join("hosts"), lines).expect("likewise");
    }

    /// Takes its network away. Nobody who is connected is told.
    pub fn unplug(&self) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", "down"]);
    }

    /// Starts the command under test there. Its log goes to `log`.
    pub fn start(&self, args: &[&str], log: Stdio) -> Process {
        self.spawn(&[args, &[PLAIN]].concat(), log)
    }

    /// The same, with what is said encrypted if these arguments say so.
    pub fn spawn(&self, args: &[&str], log: Stdio) -> Process {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().expect("the command starts"))
    }

    /// Runs a command of svcmap there, to its end.
    pub fn svcmap(&self, args: &[&str]) -> Output {
        self.command(args).arg(PLAIN).output().expect("the command starts")
    }

    /// A command of svcmap there.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, executable()]).args(args);
        command
    }

    /// Runs something in a thread that lives there, as do the threads that it starts.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace));
        let namespace = namespace.expect("it was made");
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
                    .expect("root may go there");
                action()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Asks a mapper from there until it knows something. Returns when it did.
    pub fn wait_for(
        &self,
        mapper: &Endpoint,
        what: &str,
        wanted: impl Fn(&Report) -> bool + Sync,
    ) -> Timestamp {
        self.run(|| {
            let deadline = Clock.now() + PATIENCE;
            let (mappers, look) = (std::slice::from_ref(mapper), Duration::from_millis(500));
            while !status::ask(mappers, None, look).is_ok_and(|report| wanted(&report)) {
                assert!(Clock.now() < deadline, "waited in vain for {what}");
                svcmap::io::pause_until(Clock.now() + Duration::from_millis(10));
            }
            Clock.now()
        })
    }

    /// The local ports of its connections to that port.
    pub fn connections_to(&self, port: u16) -> Vec<String> {
        let filter = format!("dport = :{port}");
        let ss = ["netns", "exec", &self.namespace, "ss", "-tnH", "state", "established", &filter];
        let local = |line: &str| -> Option<String> {
            // Received, sent, local address, remote address.
            Some(line.split_whitespace().nth(2)?.rsplit_once(':')?.1.to_owned())
        };
        ip(&ss).lines().filter_map(local).collect()
    }

    /// Makes its connections to that port of another host die without a word, as a router on the way
    /// does that forgets them. New ones are not affected. Returns how many died.
    pub fn lose_connections(&self, peer: &Host, port: u16) -> usize {
        let connections = self.connections_to(port);
        for local in &connections {
            let rule = |namespace: &str, selector: [&str; 4]| {
                let start = ["-n", namespace, "rule", "add", "ipproto", "tcp"];
                ip(&[&start, &selector[..], &["blackhole"]].concat());
            };
            rule(&self.namespace, ["to", &peer.address, "sport", local]);
            rule(&peer.namespace, ["to", &self.address, "dport", local]);
        }
        connections.len()
    }
}

impl Process {
    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `ip netns exec` looks for files of a namespace's own.
fn names(namespace: &str) -> PathBuf {
    ["/etc/netns", namespace].iter().collect()
}

/// Runs `ip`, which must succeed, and returns what it says.
fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("ip is there");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
