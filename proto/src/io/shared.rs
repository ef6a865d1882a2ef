//! Bytes that libzmq sends from where they lie, and keeps alive until they are out.
//!
//! The crate `zmq` can only send what it copies or takes over whole, so this speaks to libzmq itself: the
//! one place in this crate that may be unsafe.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use zmq_sys::{zmq_errno, zmq_msg_close, zmq_msg_init_data, zmq_msg_send, zmq_msg_t};

use super::sockets::Socket;

/// Sends a frame that is not copied. Not over `inproc`, where the receiver gets the very memory and may
/// write to it.
///
/// # Errors
/// As [`zmq::Socket::send`]. The bytes were not sent then, and the caller's own are as they were.
pub(super) fn send(socket: &mut Socket, bytes: &Bytes, flags: i32) -> zmq::Result<()> {
    let (data, len) = (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len());
    let owner = Box::into_raw(Box::new(bytes.clone())).cast::<c_void>();
    let mut message = zmq_msg_t::default();
    // SAFETY: `data` and `len` are the memory of `owner`, a clone of its own, which lies where it is and
    // is not written to until `release` drops it: libzmq only reads what it sends to another process.
    // `owner` came out of a `Box` a moment ago, so that `release` can take it back, once. `message` is
    // one that nobody uses yet, as this function requires.
    let made = unsafe { zmq_msg_init_data(&mut message, data, len, Some(release), owner) };
    if made != 0 {
        let error = last_error();
        // SAFETY: for want of memory libzmq has taken nothing, so it is still ours.
        unsafe { release(data, owner) };
        return Err(error);
    }
    // SAFETY: `message` was made above, and the socket is open as long as it is borrowed.
    let sent = unsafe { zmq_msg_send(&mut message, socket.as_mut_ptr(), flags) };
    if sent >= 0 {
        // It belongs to libzmq, which has left an empty one in its place: nothing is to be closed.
        return Ok(());
    }
    let error = last_error();
    // SAFETY: what was not sent is still ours, and closed once; that releases the bytes.
    unsafe { zmq_msg_close(&mut message) };
    Err(error)
}

/// What libzmq calls, on whatever thread, when it has no more use for the bytes.
///
/// # Safety
/// `owner` came from the `Box` of [`send`], and this is called once for it.
unsafe extern "C" fn release(_data: *mut c_void, owner: *mut c_void) {
    // SAFETY: the caller's promise. `Bytes` may be dropped on any thread.
    let owner = unsafe { Box::from_raw(owner.cast::<Bytes>()) };
    // Whoever made the bytes may have code of his own for their end; no panic may pass through libzmq,
    // nor one at the end of what that one carries.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(owner))) {
        std::mem::forget(panic);
    }
}

fn last_error() -> zmq::Error {
    // SAFETY: it takes nothing and reads a number of this thread.
    zmq::Error::from_raw(unsafe { zmq_errno() })
}

#[cfg(test)]
mod tests;
