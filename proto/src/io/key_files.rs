//! Files with secrets: made so that nobody else can read them, and not taken if somebody else can.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::deployment::{Deployment, FormatError, MapperFile};

/// Largest file that is read, in bytes: a thousand keys and more.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file with secrets is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// In the system's words.
        error: io::Error,
    },
    /// Others than its owner can read it: `chmod 600` it, and make new keys if others have.
    #[error("{} can be read by others than its owner (mode {mode:o})", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no such file.
    #[error("{}: {error}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: FormatError,
    },
}

impl KeyFileError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl Deployment {
    /// Reads a deployment file.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        Self::parse(&read(path)?).map_err(|error| format(path, error))
    }

    /// Writes it to a new file. `holder` says, for people, who takes part with it.
    ///
    /// # Errors
    /// See [`KeyFileError`]: among others, if there is one.
    pub fn create(&self, path: &Path, holder: &str) -> Result<(), KeyFileError> {
        create(path, &self.to_text(holder))
    }
}

impl MapperFile {
    /// Reads a mapper's own file.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        Self::parse(&read(path)?).map_err(|error| format(path, error))
    }

    /// Writes it to a new file.
    ///
    /// # Errors
    /// See [`KeyFileError`]: among others, if there is one.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        create(path, &self.to_text())
    }

    /// Puts it in the place of what is there: whoever looks finds the one or the other, whole.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn replace(&self, path: &Path) -> Result<(), KeyFileError> {
        // What a link leads to, and not the link.
        let path = &fs::canonicalize(path).map_err(system(path))?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        // Of a mapper that ended amid this.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system(&new)(error));
            }
            _ => {}
        }
        let text = self.to_text();
        // It has secrets that are nowhere else.
        if let Err(error) = Self::parse(&text) {
            return Err(format(path, error));
        }
        create(&new, &text)?;
        fs::rename(&new, path).map_err(system(path))?;
        // After a loss of power, too, it is there.
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(system(folder))
    }
}

fn system(path: &Path) -> impl Fn(io::Error) -> KeyFileError + '_ {
    |error| KeyFileError::System { path: path.to_owned(), error }
}

fn format(path: &Path, error: FormatError) -> KeyFileError {
    KeyFileError::Format { path: path.to_owned(), error }
}

fn read(path: &Path) -> Result<String, KeyFileError> {
    let file = File::open(path).map_err(system(path))?;
    let found = file.metadata().map_err(system(path))?;
    let mode = found.mode() & 0o7777;
    if !is_private(mode, found.uid(), rustix::process::geteuid().as_raw()) {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(system(path))?;
    Ok(text)
}

/// Whether a file of that mode and that owner is for the user of this process. Root gives others what is
/// theirs by a group of their own, or by a list that shows as one: containers and systemd mount secrets so.
fn is_private(mode: u32, owner: u32, user: u32) -> bool {
    let of_others = if owner == 0 && user != 0 { 0o037 } else { 0o077 };
    mode & of_others == 0
}

fn create(path: &Path, text: &str) -> Result<(), KeyFileError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(system(folder))?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(system(path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(system(path))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::deployment::KnownMapper;
    use crate::io::curve::new_keys;

    fn deployment() -> Deployment {
        let address = "tcp://10.0.0.5:5555".parse().unwrap();
        let mapper = KnownMapper { address, key: new_keys().unwrap().public };
        Deployment { mappers: vec![mapper], own: new_keys().unwrap() }
    }

    #[test]
    fn a_file_is_its_owners_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("svcmap.toml");
        let deployment = deployment();
        deployment.create(&path, "alice").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(Deployment::load(&path).unwrap(), deployment);
        let again = deployment.create(&path, "alice").unwrap_err();
        assert!(again.to_string().contains("exists"), "{again}");
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svcmap.toml");
        deployment().create(&path, "alice").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Deployment::load(&path).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Exposed { mode: told, .. } if told == mode),
                "{error}"
            );
        }
        set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(Deployment::load(&path).is_ok());
    }

    #[test]
    fn what_root_owns_a_group_may_read_and_nobody_else() {
        for mode in [0o440, 0o640, 0o400, 0o600] {
            assert!(is_private(mode, 0, 1000), "{mode:o}");
        }
        for mode in [0o444, 0o460, 0o450, 0o404] {
            assert!(!is_private(mode, 0, 1000), "{mode:o}");
        }
        // Neither a user's own file, nor root's where that is who reads it, nor somebody else's.
        for (owner, user) in [(1000, 1000), (0, 0), (1001, 1000)] {
            assert!(!is_private(0o440, owner, user) && is_private(0o400, owner, user));
        }
    }

    #[test]
    fn what_is_missing_or_no_such_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svcmap.toml");
        let missing = Deployment::load(&path).unwrap_err();
        assert!(missing.is_missing() && missing.to_string().contains("svcmap.toml"), "{missing}");
        create(&path, "mapper = 1\n").unwrap();
        let wrong = Deployment::load(&path).unwrap_err();
        assert!(!wrong.is_missing() && wrong.to_string().contains("line 1"), "{wrong}");
    }
}
