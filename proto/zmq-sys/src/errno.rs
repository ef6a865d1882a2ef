//! Error numbers that libzmq returns: the system's, its own, and its stand-ins for those that a
//! system lacks.

use std::os::raw::c_int;

pub use libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EBUSY, ECONNREFUSED, EFAULT, EHOSTUNREACH,
    EINPROGRESS, EINTR, EINVAL, EMFILE, EMSGSIZE, ENAMETOOLONG, ENETDOWN, ENOBUFS, ENODEV, ENOENT,
    ENOMEM, ENOTCONN, ENOTSOCK, ENOTSUP, EPROTO, EPROTONOSUPPORT,
};

/// `ZMQ_HAUSNUMERO`: a number so odd that no system's own are near it.
const BASE: c_int = 156_384_712;

macro_rules! numbers {
    ($($name:ident = $offset:expr;)*) => { $(pub const $name: c_int = BASE + $offset;)* };
}

numbers! {
    EFSM = 51;
    ENOCOMPATPROTO = 52;
    ETERM = 53;
    EMTHREAD = 54;
}

numbers! {
    ENOTSUP_ALT = 1;
    EPROTONOSUPPORT_ALT = 2;
    ENOBUFS_ALT = 3;
    ENETDOWN_ALT = 4;
    EADDRINUSE_ALT = 5;
    EADDRNOTAVAIL_ALT = 6;
    ECONNREFUSED_ALT = 7;
    EINPROGRESS_ALT = 8;
    ENOTSOCK_ALT = 9;
    EMSGSIZE_ALT = 10;
    EAFNOSUPPORT_ALT = 11;
    ENETUNREACH_ALT = 12;
    ECONNABORTED_ALT = 13;
    ECONNRESET_ALT = 14;
    ENOTCONN_ALT = 15;
    ETIMEDOUT_ALT = 16;
    EHOSTUNREACH_ALT = 17;
    ENETRESET_ALT = 18;
}
