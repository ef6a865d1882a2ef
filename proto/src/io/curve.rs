//! Encrypted sockets: which keys they have (CurveZMQ, ZeroMQ RFC 26).

use super::sockets::Socket;
use crate::keys::{KeyPair, PublicKey, SecretKey};

/// Keys that nobody else has.
pub fn new_keys() -> zmq::Result<KeyPair> {
    let zmq::CurveKeyPair { public_key, secret_key } = zmq::CurveKeyPair::new()?;
    Ok(KeyPair { public: PublicKey(public_key), secret: SecretKey::new(secret_key) })
}

/// Whether this process can encrypt: a plain libzmq may be built without.
pub fn can_encrypt() -> bool {
    zmq::has("curve") == Some(true)
}

/// From its next bind on, this socket proves that it has these keys, and asks the loop's
/// [`EventLoop::admit_only`](super::EventLoop::admit_only) whom it speaks with.
///
/// # Errors
/// If libzmq cannot encrypt.
pub fn secure_server(socket: &Socket, own: &KeyPair) -> zmq::Result<()> {
    socket.set_curve_server(true)?;
    socket.set_curve_secretkey(own.secret.expose())?;
    socket.set_zap_domain("svcmap")
}

/// From its next connect on, this socket speaks only with who has the server's key, and proves that it
/// has these.
///
/// # Errors
/// If libzmq cannot encrypt.
pub fn secure_client(socket: &Socket, own: &KeyPair, server: PublicKey) -> zmq::Result<()> {
    socket.set_curve_serverkey(&server.0)?;
    socket.set_curve_publickey(&own.public.0)?;
    socket.set_curve_secretkey(own.secret.expose())
}
