//! The deployment file: all that a user handles to have everything encrypted and to itself.
//!
//! Whoever has it takes part; whoever has not gets nowhere. Beside it lies the mapper's own file, which
//! stays where it is. Both are TOML.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::keys::{KeyPair, PublicKey};
use crate::names::Endpoint;
use crate::principals::Principal;

/// What stands in a deployment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The mappers, of which each is enough.
    #[serde(rename = "mapper")]
    pub mappers: Vec<KnownMapper>,
    /// Whose file it is.
    pub own: KeyPair,
}

/// A mapper, and how it is told from who only listens there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownMapper {
    /// Where it listens.
    pub address: Endpoint,
    /// Its key.
    pub key: PublicKey,
}

/// What stands in a mapper's own file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapperFile {
    /// Keys that have been revoked, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<PublicKey>,
    /// The mapper's own keys.
    pub own: KeyPair,
    /// Who may take part.
    #[serde(rename = "principal", default)]
    pub principals: Vec<Principal>,
}

/// Not such a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(String);

const DEPLOYMENT_HEAD: &str = "\
# A deployment of svcmap: whoever has this file takes part in it, as HOLDER.
# Keep it private (chmod 600).

";

const MAPPER_HEAD: &str = "\
# A mapper of svcmap: its own keys, and who may take part. It stays on this machine.

";

impl Deployment {
    /// From the text of a file.
    ///
    /// # Errors
    /// See [`FormatError`]: it names the line.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let deployment: Self = from_text(text)?;
        if deployment.mappers.is_empty() {
            return Err(FormatError(
                "it names no mapper: [[mapper]] with address and key".to_owned(),
            ));
        }
        Ok(deployment)
    }

    /// As the text of a file. `holder` says, for people, who takes part with it.
    pub fn to_text(&self, holder: &str) -> String {
        to_text(&DEPLOYMENT_HEAD.replace("HOLDER", holder), self)
    }

    /// The key of the mapper there.
    pub fn key_of(&self, mapper: &Endpoint) -> Option<PublicKey> {
        self.mappers.iter().find(|known| known.address == *mapper).map(|known| known.key)
    }
}

impl MapperFile {
    /// From the text of a file.
    ///
    /// # Errors
    /// See [`FormatError`]: it names the line.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        from_text(text)
    }

    /// As the text of a file.
    pub fn to_text(&self) -> String {
        to_text(MAPPER_HEAD, self)
    }
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, FormatError> {
    toml::from_str(text).map_err(|error| format_error(text, &error))
}

/// What is wrong and where. What stands there may be a secret, so no value is quoted.
fn format_error(text: &str, error: &toml::de::Error) -> FormatError {
    let parts = error.message().split('"').step_by(2);
    let message = parts.collect::<Vec<_>>().join("\"…\"");
    let before = error.span().and_then(|span| text.get(..span.start));
    FormatError(match before {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    })
}

fn to_text(head: &str, file: &impl Serialize) -> String {
    // Keys and addresses are text, and lists of tables: TOML has all of that.
    let body = toml::to_string(file).unwrap_or_default();
    format!("{head}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;
    use crate::principals::{Role, Services};

    fn pair(number: u8) -> KeyPair {
        let (public, secret) = (PublicKey([number; 32]), SecretKey::new([number + 1; 32]));
        KeyPair { public, secret }
    }

    fn deployment() -> Deployment {
        let mapper = |address: &str, number| KnownMapper {
            address: address.parse().unwrap(),
            key: PublicKey([number; 32]),
        };
        let mappers = vec![mapper("tcp://10.0.0.5:5555", 9), mapper("tcp://[::1]:7", 8)];
        Deployment { mappers, own: pair(1) }
    }

    #[test]
    fn files_are_read_as_they_are_written() {
        let text = deployment().to_text("alice");
        assert!(
            text.starts_with("# A deployment of svcmap") && text.contains("[[mapper]]"),
            "{text}"
        );
        assert_eq!(Deployment::parse(&text), Ok(deployment()));
        let principal = |name: &str, ends_at_unix_s| Principal {
            name: name.parse().unwrap(),
            role: Role::Operator,
            services: vec!["resize*".parse().unwrap(), Services::all()],
            key: PublicKey([3; 32]),
            ends_at_unix_s,
        };
        let principals = vec![principal("a", None), principal("b", Some(1))];
        let file = MapperFile { principals, own: pair(5), revoked: vec![PublicKey([4; 32])] };
        assert_eq!(MapperFile::parse(&file.to_text()), Ok(file));
    }

    #[test]
    fn mappers_are_known_by_their_addresses() {
        let known = deployment();
        assert_eq!(known.key_of(&"tcp://[::1]:7".parse().unwrap()), Some(PublicKey([8; 32])));
        assert_eq!(known.key_of(&"tcp://[::1]:8".parse().unwrap()), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_secrets() {
        let text = deployment().to_text("alice");
        let secret = String::from(deployment().own.secret);
        let line = text.lines().position(|line| line.starts_with("secret")).unwrap() + 1;
        let told = |text: &str| Deployment::parse(text).unwrap_err().to_string();
        let short = told(&text.replace(&secret, &secret[1..]));
        assert_eq!(short, format!("line {line}: a key has 40 characters of Z85"));
        for wrong in [
            text.replace("secret = ", "secrt = "),
            text.replace("[own]", "own = \"SECRET\"\n[x]").replace("SECRET", &secret),
            text.replace(&secret, ""),
            text.replace("address = ", "address = 5 #"),
            "[own]".to_owned(),
        ] {
            let told = told(&wrong);
            assert!(told.starts_with("line ") && !told.contains(&secret[..8]), "{told}");
        }
        let nobody = format!("mapper = []\n{}", &text[text.find("[own]").unwrap()..]);
        assert_eq!(told(&nobody), "it names no mapper: [[mapper]] with address and key");
    }
}
