//! Principals: who may take part in a deployment, and in what.
//!
//! A principal has a name, one key (two for a while, when it gets another), a role and the services that
//! it has to do with. Whoever has its key is that principal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::bounded_list;
use crate::keys::PublicKey;
use crate::limits;
use crate::names::Name;

/// What a principal may do with its services.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Send jobs to them, and see who serves them.
    Client,
    /// Serve them as well.
    #[default]
    Worker,
    /// Say who may take part, and that an instance of somebody else has left, as well.
    Operator,
}

/// Not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is client, worker or operator")]
pub struct RoleError;

impl Role {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let all = [Self::Client, Self::Worker, Self::Operator];
        all.into_iter().find(|role| role.as_str() == text).ok_or(RoleError)
    }
}

/// Some services: one by its name (`resize`), all that begin alike (`resize*`), or all (`*`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Services {
    start: String,
    /// Whether the name may go on.
    is_open: bool,
}

/// Not a name, nor the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("services are `NAME`, `BEGINNING*` or `*`: letters, digits, `.`, `_` or `-`, at most 64")]
pub struct ServicesError;

impl Services {
    /// All of them.
    pub fn all() -> Self {
        Self { start: String::new(), is_open: true }
    }

    /// Whether those are among them.
    pub fn includes(&self, others: &Self) -> bool {
        match self.is_open {
            true => others.start.starts_with(&self.start),
            false => self == others,
        }
    }

    /// Whether this is one of them.
    pub fn contains(&self, service: &str) -> bool {
        match self.is_open {
            true => service.starts_with(&self.start),
            false => service == self.start,
        }
    }
}

impl FromStr for Services {
    type Err = ServicesError;

    fn from_str(text: &str) -> Result<Self, ServicesError> {
        let (start, is_open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        let is_empty = is_open && start.is_empty();
        if !is_empty && start.parse::<Name>().is_err() {
            return Err(ServicesError);
        }
        Ok(Self { start: start.to_owned(), is_open })
    }
}

impl TryFrom<String> for Services {
    type Error = ServicesError;

    fn try_from(text: String) -> Result<Self, ServicesError> {
        text.parse()
    }
}

impl From<Services> for String {
    fn from(services: Services) -> Self {
        services.to_string()
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.start, if self.is_open { "*" } else { "" })
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A key that may take part, and whose it is. Those of one name are one principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// What people call it.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// With which services; at most [`limits::PRINCIPAL_SERVICES_MAX`].
    #[serde(deserialize_with = "bounded_services")]
    pub services: Vec<Services>,
    /// How it is known.
    pub key: PublicKey,
    /// When this key ends, in seconds of Unix time, if another takes its place.
    pub ends_at_unix_s: Option<u64>,
}

impl Principal {
    /// Whether it has to do with that service.
    pub fn has(&self, service: &str) -> bool {
        self.services.iter().any(|services| services.contains(service))
    }

    /// Its services, for people.
    pub fn services_text(&self) -> String {
        self.services.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

fn bounded_services<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Services>, D::Error> {
    let services: Vec<Services> = bounded_list(deserializer)?;
    match services.len() {
        1..=limits::PRINCIPAL_SERVICES_MAX => Ok(services),
        _ => Err(serde::de::Error::custom(format_args!(
            "a principal has 1 to {} entries in its services",
            limits::PRINCIPAL_SERVICES_MAX
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_one_or_all_that_begin_alike_or_all() {
        let services = |text: &str| text.parse::<Services>().unwrap();
        for (text, inside, outside) in [
            ("resize", &["resize"][..], &["resize-2", "resiz", ""][..]),
            ("resize*", &["resize", "resize-2"], &["resiz", "thumb"]),
            ("*", &["resize", "x"], &[]),
        ] {
            inside.iter().for_each(|name| assert!(services(text).contains(name), "{text} {name}"));
            outside
                .iter()
                .for_each(|name| assert!(!services(text).contains(name), "{text} {name}"));
            assert_eq!(services(text).to_string(), text);
        }
        for (all, some, is_so) in [
            ("*", "resize*", true),
            ("resize*", "resize-2*", true),
            ("resize*", "resize", true),
            ("resize*", "*", false),
            ("resize", "resize", true),
            ("resize", "resize*", false),
        ] {
            assert_eq!(services(all).includes(&services(some)), is_so, "{all} {some}");
        }
        for text in ["", "re*size", "**", "re size", "ä*", &format!("{}*", "x".repeat(65))] {
            assert_eq!(text.parse::<Services>(), Err(ServicesError), "{text}");
        }
    }

    #[test]
    fn roles_are_words() {
        for role in [Role::Client, Role::Worker, Role::Operator] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("boss".parse::<Role>(), Err(RoleError));
        assert!(Role::Client < Role::Worker && Role::Worker < Role::Operator);
    }

    #[test]
    fn a_principal_has_a_few_services_and_at_least_one() {
        let principal = |count: usize| Principal {
            name: "alice".parse().unwrap(),
            role: Role::Client,
            services: vec!["resize*".parse().unwrap(); count],
            key: PublicKey([7; 32]),
            ends_at_unix_s: None,
        };
        for (count, is_taken) in [(0, false), (1, true), (8, true), (9, false)] {
            let bytes = postcard::to_allocvec(&principal(count)).unwrap();
            assert_eq!(postcard::from_bytes::<Principal>(&bytes).is_ok(), is_taken, "{count}");
        }
        assert!(principal(1).has("resize-2") && !principal(1).has("thumb"));
    }
}
