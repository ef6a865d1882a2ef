//! What a worker and the keeper of its programs say to each other.

use std::io::{Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use svcmap_proto::codec;

/// The worker: run the program once, with the three files that come along. Its [`Environment`]
/// follows.
pub const START: u8 = b's';

/// The worker: the job is over, end the program.
pub const END: u8 = b'e';

/// Largest orders, in bytes: more than a system passes to a program.
const ORDERS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest environment of a job, in bytes: some five times what there can be.
const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;

/// What a program finds in its environment beyond what the worker's own has: names and values.
pub type Environment = Vec<(String, String)>;

/// What a keeper is told first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Time between SIGTERM and SIGKILL.
    pub kill_after: Duration,
    /// The soft limit of open files that the program gets; `None` leaves it.
    pub open_files: Option<u64>,
}

impl Orders {
    /// Writes them.
    pub fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        to.write_all(&with_length(self)?)
    }

    /// Reads them.
    pub fn read(from: &mut impl Read) -> std::io::Result<Self> {
        read(from, ORDERS_BYTES_MAX)
    }
}

/// The word that starts a program, and what comes with it.
pub fn start(environment: &Environment) -> std::io::Result<Vec<u8>> {
    Ok([&[START], with_length(environment)?.as_slice()].concat())
}

/// Reads what comes with [`START`].
pub fn read_environment(from: &mut impl Read) -> std::io::Result<Environment> {
    read(from, ENVIRONMENT_BYTES_MAX)
}

fn with_length(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let bytes = codec::encode_value(value).map_err(std::io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    Ok([&length.to_le_bytes(), bytes.as_slice()].concat())
}

fn read<T: DeserializeOwned>(from: &mut impl Read, bytes_max: usize) -> std::io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    codec::decode_value(&bytes).map_err(std::io::Error::other)
}

/// What a keeper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Once: it can look after programs. What was asked before was not begun.
    Ready,
    /// The program could not be started, with the system's error number.
    NotStarted(i32),
    /// The program has ended, with this wait status, and so has all that it had started.
    Ended(i32),
}

impl Report {
    /// In bytes.
    pub const LENGTH: usize = 5;

    /// As bytes.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let (tag, value) = match self {
            Report::Ready => (0, 0),
            Report::NotStarted(errno) => (1, errno),
            Report::Ended(status) => (2, status),
        };
        let [a, b, c, d] = value.to_le_bytes();
        [tag, a, b, c, d]
    }

    /// What those bytes say.
    pub fn decode([tag, a, b, c, d]: [u8; Self::LENGTH]) -> Option<Self> {
        let value = i32::from_le_bytes([a, b, c, d]);
        match tag {
            0 => Some(Report::Ready),
            1 => Some(Report::NotStarted(value)),
            2 => Some(Report::Ended(value)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for report in [Report::Ready, Report::NotStarted(2), Report::Ended(-1 << 8)] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([3, 0, 0, 0, 0]), None);
        let orders = Orders {
            argv: ["sh", "-c", ""].map(str::to_owned).to_vec(),
            kill_after: Duration::from_millis(1),
            open_files: Some(1024),
        };
        let mut bytes = Vec::new();
        orders.write(&mut bytes).unwrap();
        assert_eq!(Orders::read(&mut bytes.as_slice()).unwrap(), orders);
        assert!(Orders::read(&mut [0xff; 8].as_slice()).is_err());
        let environment = vec![("SVCMAP_JOB".to_owned(), "17".to_owned())];
        let word = start(&environment).unwrap();
        assert_eq!(word[0], START);
        assert_eq!(read_environment(&mut &word[1..]).unwrap(), environment);
        let endless = u32::try_from(ENVIRONMENT_BYTES_MAX + 1).unwrap().to_le_bytes();
        assert!(read_environment(&mut endless.as_slice()).is_err());
    }
}
