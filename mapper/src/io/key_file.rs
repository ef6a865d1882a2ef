//! The mapper's own file, in which the list of keys is kept.

use std::path::PathBuf;

use svcmap_proto::deployment::MapperFile;
use svcmap_proto::io::KeyFileError;

use crate::rights::Rights;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyFile {
    path: Option<PathBuf>,
}

impl KeyFile {
    /// The list is kept there; without a path it ends with the mapper.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Keeps this list from now on.
    pub(super) fn keep(&self, rights: &Rights) -> Result<(), KeyFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let MapperFile { own, .. } = MapperFile::load(path)?;
        let (principals, revoked) = (rights.principals().to_vec(), rights.revoked().to_vec());
        MapperFile { own, principals, revoked }.replace(path)
    }
}
