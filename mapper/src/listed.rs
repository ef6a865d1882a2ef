//! Who is listed, copied from the registry: what is made of it is made where it is wanted.

use std::collections::BTreeSet;

use svcmap_proto::control::{Activity, Entry};
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::status::{MapperRow, Report};

/// Who is listed. A report of thousands takes a moment, which is not to be the mapper's.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub(crate) mapper: MapperRow,
    pub(crate) services: BTreeSet<Name>,
    pub(crate) entries: Vec<(InstanceKey, Entry)>,
    pub(crate) activity: Vec<Activity>,
}

impl Listed {
    /// The facts, as the mapper's answer to STATUS states them.
    pub fn report(mut self) -> Report {
        self.entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let entries = self.entries.iter().map(|(key, entry)| (key, entry));
        Report::new(vec![self.mapper], true, self.services, entries, self.activity.iter())
    }
}
