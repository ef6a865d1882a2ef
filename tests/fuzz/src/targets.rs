//! All targets, by name.

use crate::{answers, mapper, messages, process, program, words};

/// Something that reads what a stranger wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, and its folder in `corpora`.
    pub name: &'static str,
    /// Reads an input.
    ///
    /// # Panics
    /// If something is wrong with what reads it.
    pub read: fn(&[u8]),
}

/// All that there are.
pub const TARGETS: &[Target] = &[
    Target { name: "to-mapper", read: messages::to_mapper },
    Target { name: "from-mapper", read: messages::from_mapper },
    Target { name: "publication", read: messages::publication },
    Target { name: "to-worker", read: messages::to_worker },
    Target { name: "from-worker", read: messages::from_worker },
    Target { name: "names", read: words::names },
    Target { name: "metadata", read: words::metadata },
    Target { name: "json", read: words::json },
    Target { name: "answers", read: answers::read },
    Target { name: "program", read: program::read },
    Target { name: "mapper", read: mapper::read },
    Target { name: "process", read: process::read },
];

/// The one of that name.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
