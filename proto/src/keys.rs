//! Keys: who somebody is, and how it proves that (CurveZMQ, ZeroMQ RFC 26: Curve25519).
//!
//! As text they are in Z85 (ZeroMQ RFC 32), 40 characters that any ZeroMQ binding takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has 40 characters of Z85")]
pub struct KeyError;

/// Who somebody is. It may be known to all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

/// What proves who somebody is. Nobody else is to know it: it has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretKey([u8; KEY_BYTES]);

/// Both keys of one holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// Who it is.
    pub public: PublicKey,
    /// What proves it.
    pub secret: SecretKey,
}

impl SecretKey {
    /// From its bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for who proves something with them.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

fn decode(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let bytes = z85::decode(text).map_err(|_| KeyError)?;
    bytes.try_into().map_err(|_| KeyError)
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

// Text in files, bytes on the wire.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => <&str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom),
            false => Deserialize::deserialize(deserializer).map(Self),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z85::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for SecretKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        decode(&text).map(Self)
    }
}

impl From<SecretKey> for String {
    fn from(key: SecretKey) -> Self {
        z85::encode(key.0)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 26 and the manual of libzmq have this pair.
    const PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key: PublicKey = PUBLIC.parse().unwrap();
        assert_eq!(key.to_string(), PUBLIC);
        let secret = SecretKey::try_from(SECRET.to_owned()).unwrap();
        assert_eq!(String::from(secret.clone()), SECRET);
        assert_eq!(SecretKey::new(*secret.expose()), secret);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in
            ["", "short", &PUBLIC[1..], &format!("{PUBLIC}00000"), &PUBLIC.replace('Y', "~")]
        {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError), "{text}");
        }
        assert!("ä".repeat(20).parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = SecretKey::try_from(SECRET.to_owned()).unwrap();
        let pair = KeyPair { public: PUBLIC.parse().unwrap(), secret };
        let shown = format!("{pair:?} {pair:#?}");
        assert!(shown.contains(PUBLIC) && !shown.contains(SECRET), "{shown}");
        assert!(!shown.contains("68"), "{shown}");
    }
}
