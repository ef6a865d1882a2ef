//! What can be a payload.

use bytes::Bytes;

/// What can be the payload of a job or of a result: bytes and text, owned or borrowed. What is borrowed is
/// copied; `Vec<u8>`, `String` and [`Bytes`] are not.
///
/// ```
/// use svcmap_worker::IntoPayload;
///
/// assert_eq!("text".into_payload(), b"text".into_payload());
/// assert_eq!(vec![1, 2].into_payload(), [1, 2].into_payload());
/// assert!(().into_payload().is_empty());
/// ```
pub trait IntoPayload {
    /// The bytes of it.
    fn into_payload(self) -> Bytes;
}

macro_rules! moved {
    ($($owned:ty),*) => {$(
        impl IntoPayload for $owned {
            fn into_payload(self) -> Bytes {
                self.into()
            }
        }
    )*};
}

macro_rules! copied {
    ($($borrowed:ty),*) => {$(
        impl IntoPayload for $borrowed {
            fn into_payload(self) -> Bytes {
                let bytes: &[u8] = self.as_ref();
                Bytes::copy_from_slice(bytes)
            }
        }
    )*};
}

moved!(Bytes, Vec<u8>, String, Box<[u8]>);
copied!(&str, &String, &[u8], &Vec<u8>);

impl IntoPayload for &Bytes {
    fn into_payload(self) -> Bytes {
        self.clone()
    }
}

impl<const N: usize> IntoPayload for [u8; N] {
    fn into_payload(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

impl<const N: usize> IntoPayload for &[u8; N] {
    fn into_payload(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

/// Nothing.
impl IntoPayload for () {
    fn into_payload(self) -> Bytes {
        Bytes::new()
    }
}
