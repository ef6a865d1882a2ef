//! How to get at the mappers: where they are, and the deployment file, if everything is encrypted.

use std::path::{Path, PathBuf};

use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::KeyFileError;
use svcmap_proto::names::Endpoint;
use svcmap_worker::{Client, ClientBuilder, Worker, WorkerBuilder};

use crate::errors::Failure;
use crate::parse;

/// The environment variable that replaces `--deployment`.
pub const DEPLOYMENT_VARIABLE: &str = "SVCMAP_DEPLOYMENT";

/// What a deployment file is called.
const FILE_NAME: &str = "svcmap.toml";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where the mappers are.
    pub mappers: Vec<Endpoint>,
    /// With what one proves who one is, unless nothing is encrypted.
    pub deployment: Option<Deployment>,
}

impl From<&Access> for Access {
    fn from(access: &Access) -> Self {
        access.clone()
    }
}

/// In plain text.
impl From<&[Endpoint]> for Access {
    fn from(mappers: &[Endpoint]) -> Self {
        Self { mappers: mappers.to_vec(), deployment: None }
    }
}

/// In plain text.
impl From<&Endpoint> for Access {
    fn from(mapper: &Endpoint) -> Self {
        Self { mappers: vec![mapper.clone()], deployment: None }
    }
}

/// What somebody has said of it.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The mappers that were named.
    pub mappers: Vec<Endpoint>,
    /// The deployment file that was named.
    pub file: Option<PathBuf>,
    /// Plain text will do anywhere.
    pub insecure: bool,
}

impl Access {
    /// What follows from what was said. A deployment file lies at `default`, or not.
    ///
    /// A file that is named is used. One that lies there is used if no mappers are named, or if it knows
    /// them. Without one there is plain text, on this machine only unless that will do anywhere.
    ///
    /// # Errors
    /// If the file is of no use, or there is none and it takes one.
    pub fn resolve(said: Said, default: Option<&Path>) -> Result<Self, Failure> {
        let Said { mappers, file, insecure } = said;
        let knows_all = |deployment: &Deployment| {
            mappers.iter().all(|mapper| deployment.key_of(mapper).is_some())
        };
        let deployment = match (&file, default) {
            (Some(path), _) => Some(Deployment::load(path).map_err(|error| unusable(&error))?),
            (None, _) if insecure => None,
            (None, None) => None,
            (None, Some(path)) => match Deployment::load(path) {
                Ok(deployment) => Some(deployment).filter(&knows_all),
                Err(error) if error.is_missing() => None,
                // Whoever has named mappers of this machine may not mean it.
                Err(_) if !mappers.is_empty() && mappers.iter().all(Endpoint::is_loopback) => None,
                Err(error) => return Err(unusable(&error)),
            },
        };
        if let Some(deployment) = deployment {
            let unknown = mappers.iter().find(|mapper| deployment.key_of(mapper).is_none());
            if let Some(mapper) = unknown {
                return Err(Failure::usage(format!("the deployment file has no key of {mapper}"))
                    .fix("leave --mapper out, or add it to the file"));
            }
            let mappers = match mappers.is_empty() {
                true => deployment.mappers.iter().map(|known| known.address.clone()).collect(),
                false => mappers,
            };
            return Ok(Self { mappers, deployment: Some(deployment) });
        }
        let mappers = match mappers.is_empty() {
            true => vec![parse::peer(parse::MAPPER_DEFAULT).map_err(Failure::usage)?],
            false => mappers,
        };
        match mappers.iter().find(|mapper| !mapper.is_loopback()) {
            Some(mapper) if !insecure => Err(without_keys(mapper, default)),
            _ => Ok(Self { mappers, deployment: None }),
        }
    }

    /// A worker of that service that gets at them.
    pub fn worker(&self, service: &str) -> WorkerBuilder {
        let builder = Worker::builder(service).mapper(&self.mappers);
        match &self.deployment {
            Some(deployment) => builder.deployment(deployment.clone()),
            None => builder,
        }
    }

    /// A sender that gets at them.
    pub fn client(&self) -> ClientBuilder {
        let builder = Client::builder().mapper(&self.mappers);
        match &self.deployment {
            Some(deployment) => builder.deployment(deployment.clone()),
            None => builder,
        }
    }
}

/// Nothing would be encrypted, beyond this machine.
pub fn without_keys(endpoint: &Endpoint, default: Option<&Path>) -> Failure {
    let to = default.map_or("a file here".to_owned(), |path| path.display().to_string());
    Failure::usage(format!(
        "no deployment file has a key for {endpoint}: nothing would be encrypted"
    ))
    .fix(format!(
        "copy {FILE_NAME} from the mapper's machine to {to}, or name it with --deployment, or \
             do without: --insecure"
    ))
}

/// What to do about a file that is of no use.
pub fn unusable(error: &KeyFileError) -> Failure {
    let failure = Failure::usage(error);
    match error {
        KeyFileError::System { .. } if error.is_missing() => failure
            .fix(format!("copy it from the mapper's machine, where it is called {FILE_NAME}")),
        KeyFileError::System { path, .. } => failure.fix(format!("ls -l {}", path.display())),
        KeyFileError::Exposed { path, .. } => failure.fix(format!("chmod 600 {}", path.display())),
        KeyFileError::Format { .. } => failure.fix("copy it again from the mapper's machine"),
    }
}

/// Where a deployment file lies if nobody says otherwise: with the user's other settings.
pub fn default_file() -> Option<PathBuf> {
    let of =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let settings = of("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let settings = settings.or_else(|| Some(of("HOME")?.join(".config")))?;
    Some(settings.join("svcmap").join(FILE_NAME))
}

/// The mapper's own file beside a deployment file: `svcmap.mapper.toml` beside `svcmap.toml`.
pub fn mapper_file(deployment: &Path) -> PathBuf {
    deployment.with_extension("mapper.toml")
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use svcmap_proto::deployment::KnownMapper;
    use svcmap_proto::io::curve::new_keys;

    use super::*;

    const FAR: &str = "tcp://10.0.0.5:5555";

    fn at(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    /// A file that knows the mapper at [`FAR`].
    fn written(folder: &tempfile::TempDir) -> PathBuf {
        let mapper = KnownMapper { address: at(FAR), key: new_keys().unwrap().public };
        let path = folder.path().join(FILE_NAME);
        let deployment = Deployment { mappers: vec![mapper], own: new_keys().unwrap() };
        deployment.create(&path, "alice").unwrap();
        path
    }

    fn said(mappers: &[&str]) -> Said {
        Said { mappers: mappers.iter().map(|text| at(text)).collect(), ..Said::default() }
    }

    #[test]
    fn without_a_file_there_is_plain_text_on_this_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join(FILE_NAME);
        let here = Access::resolve(said(&[]), Some(&missing)).unwrap();
        assert_eq!(here, Access::from(&at("tcp://127.0.0.1:5555")));
        let far = Access::resolve(said(&[FAR]), Some(&missing)).unwrap_err();
        assert!(far.message.contains(FAR) && far.fix.unwrap().contains("--insecure"));
        let insecure = Said { insecure: true, ..said(&[FAR]) };
        assert_eq!(Access::resolve(insecure, None).unwrap(), Access::from(&at(FAR)));
    }

    #[test]
    fn a_file_that_lies_there_is_used_for_the_mappers_that_it_knows() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(&folder);
        for named in [&[][..], &[FAR]] {
            let access = Access::resolve(said(named), Some(&path)).unwrap();
            assert_eq!(access.mappers, [at(FAR)]);
            assert!(access.deployment.is_some());
        }
        let other = Access::resolve(said(&["tcp://127.0.0.1:7"]), Some(&path)).unwrap();
        assert_eq!(other, Access::from(&at("tcp://127.0.0.1:7")));
        let insecure = Said { insecure: true, ..said(&[FAR]) };
        assert!(Access::resolve(insecure, Some(&path)).unwrap().deployment.is_none());
    }

    #[test]
    fn a_file_that_is_named_has_to_be_there_and_to_know_the_mappers() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(written(&folder));
        let access = Access::resolve(Said { file: file.clone(), ..said(&[]) }, None).unwrap();
        assert_eq!(access.mappers, [at(FAR)]);
        let unknown = Said { file, ..said(&["tcp://127.0.0.1:7"]) };
        assert!(Access::resolve(unknown, None).unwrap_err().message.contains("no key of"));
        let missing = Said { file: Some(folder.path().join("none")), ..said(&[]) };
        assert!(Access::resolve(missing, None).unwrap_err().fix.unwrap().contains("copy it"));
    }

    #[test]
    fn one_that_lies_there_and_is_of_no_use_is_told_where_it_would_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(&folder);
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        for named in [&[][..], &[FAR]] {
            let error = Access::resolve(said(named), Some(&path)).unwrap_err();
            assert!(error.fix.unwrap().starts_with("chmod 600"));
        }
        assert!(Access::resolve(said(&["tcp://127.0.0.1:7"]), Some(&path)).is_ok());
    }

    #[test]
    fn the_mappers_own_file_lies_beside_it() {
        assert_eq!(mapper_file(Path::new("a/svcmap.toml")), Path::new("a/svcmap.mapper.toml"));
        assert_eq!(mapper_file(Path::new("keys")), Path::new("keys.mapper.toml"));
    }
}
