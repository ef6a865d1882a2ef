//! Reading what processes write, without waiting for more.

use std::io::{ErrorKind, Read};
use std::os::fd::BorrowedFd;

use crate::fleet::lines::Splitter;

/// What has come through a pipe; one that is at its end is closed.
pub(super) fn read(pipe: &mut Option<impl Read>, lines: &mut Splitter) -> Vec<String> {
    /// So much at a time: the others have their turn.
    const BYTES_MAX: usize = 256 * 1024;
    let (mut found, mut bytes, mut total) = (Vec::new(), [0; 16 * 1024], 0);
    while let Some(open) = pipe {
        match open.read(&mut bytes) {
            Ok(count) if count > 0 => {
                found.extend(lines.push(&bytes[..count]));
                total += count;
                if total >= BYTES_MAX {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            _ => {
                found.extend(lines.take());
                *pipe = None;
            }
        }
    }
    found
}

/// Reads from it return at once.
pub(super) fn without_waiting(pipe: BorrowedFd<'_>) {
    // It is a pipe of this process's own making: that works.
    let _ = rustix::io::ioctl_fionbio(pipe, true);
}
