//! Peers that speak ZMTP 3.0 by hand: for what no libzmq says, and for thousands of peers that take
//! one file each and next to no time.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with,
};

use svcmap_proto::io::Clock;

use crate::PATIENCE;

/// How long a peer by hand waits for a reader that does not read.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// A connection to there from that address of this machine.
///
/// # Errors
/// If nobody listens there.
pub fn stream_from(source: [u8; 4], endpoint: &str) -> io::Result<TcpStream> {
    let to = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
    let to: SocketAddrV4 = to.parse().map_err(io::Error::other)?;
    let kind = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, kind, None)?;
    bind(&socket, &SocketAddrV4::new(source.into(), 0))?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

/// What a peer says of itself when it connects (ZeroMQ RFC 23).
fn property(name: &str, value: &[u8]) -> Vec<u8> {
    let lengths = (u8::try_from(name.len()), u32::try_from(value.len()));
    let (name_length, value_length) = (lengths.0.expect("short"), lengths.1.expect("short"));
    [&[name_length], name.as_bytes(), &value_length.to_be_bytes(), value].concat()
}

/// A connection that speaks ZMTP by hand.
pub struct Raw {
    stream: TcpStream,
    /// What came and was not taken.
    received: Vec<u8>,
}

impl Raw {
    /// Connects as a DEALER does.
    ///
    /// # Errors
    /// If nobody listens there, or greets.
    pub fn connect(endpoint: &str) -> io::Result<Self> {
        Self::connect_within(endpoint, PATIENCE)
    }

    /// The same, with so much time for the other end to greet.
    ///
    /// # Errors
    /// If nobody listens there, or greets in time.
    pub fn connect_within(endpoint: &str, patience: Duration) -> io::Result<Self> {
        Self::connect_as("DEALER", endpoint, patience)
    }

    /// Connects as a SUB does that wants everything of that topic.
    ///
    /// # Errors
    /// If nobody listens there, or greets.
    pub fn subscribe(endpoint: &str, topic: &[u8]) -> io::Result<Self> {
        let mut peer = Self::connect_as("SUB", endpoint, PATIENCE)?;
        peer.send(&[&[&[1], topic].concat()])?;
        Ok(peer)
    }

    /// Connects as a DEALER does, from that address of this machine.
    ///
    /// # Errors
    /// If nobody listens there, or greets in time.
    pub fn connect_from(source: [u8; 4], endpoint: &str, patience: Duration) -> io::Result<Self> {
        Self::greet("DEALER", stream_from(source, endpoint)?, patience)
    }

    /// Connects as a DEALER does that says this of itself as well: a name, and a value.
    ///
    /// # Errors
    /// If nobody listens there, or greets.
    pub fn connect_claiming(endpoint: &str, name: &str, value: &[u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap_or(endpoint))?;
        Self::greet_claiming("DEALER", stream, PATIENCE, &property(name, value))
    }

    fn connect_as(kind: &str, endpoint: &str, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap_or(endpoint))?;
        Self::greet(kind, stream, patience)
    }

    fn greet(kind: &str, stream: TcpStream, patience: Duration) -> io::Result<Self> {
        Self::greet_claiming(kind, stream, patience, &[])
    }

    fn greet_claiming(
        kind: &str,
        mut stream: TcpStream,
        patience: Duration,
        claims: &[u8],
    ) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        stream.set_nodelay(true)?;
        // Signature, version, mechanism, not a server, filler.
        let mut greeting = vec![0; 64];
        (greeting[0], greeting[9]) = (0xff, 0x7f);
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        stream.write_all(&greeting)?;
        let kind = property("Socket-Type", kind.as_bytes());
        let ready = [&b"\x05READY"[..], &kind, claims].concat();
        stream.write_all(&[4, u8::try_from(ready.len()).expect("short")])?;
        stream.write_all(&ready)?;
        // What comes before the other end has greeted is no message.
        stream.set_read_timeout(Some(patience))?;
        stream.read_exact(&mut greeting)?;
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        stream.read_exact(&mut vec![0; usize::from(head[1])])?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the other end has closed the connection, or has read nothing for half a second.
    pub fn send(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        self.write(&message(frames))
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// As [`Raw::send`] does.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The frames of the next message, once it is there.
    ///
    /// # Errors
    /// If the connection is closed, or nothing comes for long.
    pub fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        loop {
            if let Some(message) = self.next_message() {
                return Ok(message);
            }
            self.read()?;
        }
    }

    /// Reads what is there, and waits for it if need be.
    ///
    /// # Errors
    /// As [`Raw::receive`] does.
    pub fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }

    /// Whether the other end has neither closed it nor gone, as far as is known now.
    pub fn is_open(&self) -> bool {
        let peeked = recv(&self.stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Ok((_, 1..)) | Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// The next message of those that were read.
    pub fn next_message(&mut self) -> Option<Vec<Vec<u8>>> {
        let (mut frames, mut rest) = (Vec::new(), &self.received[..]);
        loop {
            let (&flags, behind) = rest.split_first()?;
            let (length, behind) = if flags & 2 == 0 {
                let (&length, behind) = behind.split_first()?;
                (usize::from(length), behind)
            } else {
                let (length, behind) = behind.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*length)).expect("it fits"), behind)
            };
            frames.push(behind.get(..length)?.to_vec());
            rest = &behind[length..];
            if flags & 1 == 0 {
                let taken = self.received.len() - rest.len();
                self.received.drain(..taken);
                return Some(frames);
            }
        }
    }

    /// Whether the other end closes the connection, sooner or later.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Clock.now() + PATIENCE;
        let mut bytes = [0; 4096];
        while Clock.now() < deadline {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
        false
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A message as ZMTP writes it.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let last = frames.len() - 1;
    let framed = frames.iter().enumerate().map(|(index, bytes)| frame(index < last, bytes));
    framed.collect::<Vec<_>>().concat()
}

/// A frame as ZMTP writes it.
pub fn frame(more: bool, bytes: &[u8]) -> Vec<u8> {
    let more = u8::from(more);
    let head = match u8::try_from(bytes.len()) {
        Ok(length) => vec![more, length],
        Err(_) => [&[more | 2][..], &(bytes.len() as u64).to_be_bytes()].concat(),
    };
    [&head, bytes].concat()
}
