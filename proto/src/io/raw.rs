//! What no safe function does: bytes that libzmq sends from where they lie and keeps alive until they are
//! out, an option of its sockets, and one connection among many: from where it is, and its end.
//!
//! The one place in this crate that may be unsafe.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use zmq_sys::{
    ZMQ_XPUB_MANUAL, zmq_errno, zmq_msg_close, zmq_msg_init_data, zmq_msg_send, zmq_msg_t,
    zmq_setsockopt,
};

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

/// From now on this XPUB waits for a word of its owner to each subscription.
pub(super) fn decide_subscriptions(socket: &mut Socket) -> zmq::Result<()> {
    let value: i32 = 1;
    let (pointer, size) = ((&raw const value).cast::<c_void>(), size_of_val(&value));
    // SAFETY: the socket is open as long as it is borrowed, and libzmq reads `size` bytes of `value`,
    // which outlives the call.
    match unsafe { zmq_setsockopt(socket.as_mut_ptr(), ZMQ_XPUB_MANUAL as i32, pointer, size) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Ends what goes over the connection behind that number, in both directions. libzmq, which owns it,
/// notices and closes it. Nothing happens if there is none by now. That it may be another one, or a
/// listening socket, is the caller's to exclude, by [`ends`].
pub(super) fn shut_down(connection: i32) {
    // SAFETY: it takes two numbers and touches no memory; a number that is no socket is an error.
    unsafe { libc::shutdown(connection, libc::SHUT_RDWR) };
}

/// The port at this end of that connection, and the address at the other; `None` if there is none, or not
/// on a network.
pub(super) fn ends(connection: i32) -> Option<(u16, IpAddr)> {
    let (near, far) = (end(connection, libc::getsockname)?, end(connection, libc::getpeername)?);
    Some((near.port(), far.ip().to_canonical()))
}

/// What tells the socket behind that number from every other that there was or will be; `None` if there is
/// none, or where the system has no such thing.
pub(super) fn cookie(connection: i32) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let mut cookie: u64 = 0;
        let mut size = size_of_val(&cookie) as libc::socklen_t;
        let pointer = (&raw mut cookie).cast::<c_void>();
        // SAFETY: the system writes at most `size` bytes to where `pointer` leads, and they are there; a
        // number that is no socket is an error.
        let got = unsafe {
            libc::getsockopt(connection, libc::SOL_SOCKET, libc::SO_COOKIE, pointer, &mut size)
        };
        (got == 0).then_some(cookie)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = connection;
        None
    }
}

/// What the system calls by which it names an end of a connection have in common.
type NameEnd = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

fn end(connection: i32, name: NameEnd) -> Option<SocketAddr> {
    // SAFETY: zeros are an address of no kind.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&address) as libc::socklen_t;
    let pointer = (&raw mut address).cast::<libc::sockaddr>();
    // SAFETY: the system writes at most `size` bytes to where `pointer` leads, and they are there; a
    // number that is no socket, or not connected, is an error.
    if unsafe { name(connection, pointer, &mut size) } != 0 {
        return None;
    }
    match i32::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: an address of that kind has this form, and is shorter.
            let address = unsafe { *pointer.cast::<libc::sockaddr_in>() };
            let host = IpAddr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(host, u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of that kind has this form, and is shorter.
            let address = unsafe { *pointer.cast::<libc::sockaddr_in6>() };
            let host = IpAddr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::new(host, u16::from_be(address.sin6_port)))
        }
        _ => None,
    }
}

fn last_error() -> zmq::Error {
    // SAFETY: it takes nothing and reads a number of this thread.
    zmq::Error::from_raw(unsafe { zmq_errno() })
}

#[cfg(test)]
mod tests;
