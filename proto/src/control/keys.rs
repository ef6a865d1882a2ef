//! Who may take part: what operators say of it to a mapper, and a mapper to workers.

use serde::{Deserialize, Serialize};

use crate::codec::bounded_list;
use crate::keys::PublicKey;
use crate::limits;
use crate::names::Name;
use crate::principals::Principal;

/// What an operator wants of a mapper. Each is answered by a [`KeyAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRequest {
    /// Who may take part? Answered by [`KeyAnswer::Listed`].
    List {
        /// Without the first so many: the way to the next page.
        skip: u32,
    },
    /// Let in somebody new.
    Add(Principal),
    /// Shut somebody out, with all keys of that name: at once and for good.
    Revoke {
        /// Whom.
        name: Name,
    },
    /// Give somebody another key. Those that he has end then.
    Rotate {
        /// Whom.
        name: Name,
        /// The new one.
        key: PublicKey,
        /// For how long the old ones are good, in seconds.
        keep_s: u32,
    },
}

/// What a mapper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAnswer {
    /// Those who may take part, in the order in which they came.
    Listed {
        /// A page of them.
        #[serde(deserialize_with = "bounded_list")]
        principals: Vec<Principal>,
        /// Whether there are more.
        more: bool,
    },
    /// It is so, and kept.
    Done,
    /// It is as it was.
    Refused(KeyRefusal),
}

/// Why a mapper did not do what was wanted with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeyRefusal {
    /// In plain text everybody takes part.
    #[error("this mapper does not encrypt: there are no keys")]
    NoKeys,
    /// Whoever asks is no operator.
    #[error("only an operator may do that")]
    NotOperator,
    /// His own services are fewer.
    #[error("an operator gives and takes only what is within his own services")]
    Beyond,
    /// Who asks would be shut out himself.
    #[error("it is your own key: another operator can revoke it")]
    Oneself,
    /// There is somebody with that name, or that key.
    #[error("somebody has that name or key already")]
    Taken,
    /// Its keys were taken away, and do not come back.
    #[error("that key was revoked")]
    Revoked,
    /// There is nobody with that name.
    #[error("nobody has that name")]
    Unknown,
    /// It would be the end: nobody could add a key any more.
    #[error("it is the last operator: add another one first")]
    LastOperator,
    /// It has two keys already.
    #[error("it has got another key a while ago, and its former one is still good")]
    Rotating,
    /// There is no room.
    #[error("there are {} keys already: revoke some first", limits::KEYS_MAX)]
    Full,
    /// Its file cannot be written, so nothing was changed.
    #[error("the mapper cannot write its file: its log says why")]
    NotKept,
}

/// Whose connections a worker takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// All those that may send jobs to its service.
    #[serde(deserialize_with = "bounded_list")]
    pub keys: Vec<PublicKey>,
    /// Those that nobody is to let in any more, whatever another mapper says.
    #[serde(deserialize_with = "bounded_list")]
    pub revoked: Vec<PublicKey>,
}
