//! The three pipes of a program.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of one read or write: what a pipe holds by default.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Reads after the program's end that a pipe is still worth: 16 chunks are the largest pipe that an
/// unprivileged process can make.
pub(super) const LAST_READS_MAX: usize = 16;

/// Our ends. None of them blocks.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: PipeWriter,
    pub(super) stdout: PipeReader,
    pub(super) stderr: PipeReader,
}

impl Pipes {
    /// Three pipes: the program's ends, and ours.
    pub(super) fn open() -> std::io::Result<([OwnedFd; 3], Self)> {
        let (stdin, ours_in) = std::io::pipe()?;
        let (ours_out, stdout) = std::io::pipe()?;
        let (ours_err, stderr) = std::io::pipe()?;
        for pipe in [ours_in.as_fd(), ours_out.as_fd(), ours_err.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let ours = Self { stdin: ours_in, stdout: ours_out, stderr: ours_err };
        Ok(([stdin.into(), stdout.into(), stderr.into()], ours))
    }
}

/// Reads what is there: 0 bytes at the end, `None` if there is nothing now.
pub(super) fn read_now(mut pipe: impl Read, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    loop {
        match pipe.read(buffer) {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
