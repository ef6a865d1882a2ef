//! Tells the mappers of a worker that has died, as soon as it has: on a thread of its own, as a mapper may
//! be slow to answer, or be gone as well.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};

use crate::access::{Access, Said};
use crate::control::{self, PATIENCE, Question};
use crate::topology::Protection;

/// A death, and who has to know.
pub(super) struct Death {
    pub(super) key: InstanceKey,
    pub(super) incarnation: Incarnation,
    pub(super) mappers: Vec<Endpoint>,
    pub(super) protection: Protection,
}

/// See the module.
pub(super) struct Farewell(Sender<Death>);

impl Farewell {
    pub(super) fn start() -> std::io::Result<Self> {
        let (deaths, taken) = channel();
        Builder::new().name("farewell".to_owned()).spawn(move || tell(&taken))?;
        Ok(Self(deaths))
    }

    pub(super) fn tell(&self, death: Death) {
        // The thread ends with this.
        let _ = self.0.send(death);
    }
}

fn tell(deaths: &Receiver<Death>) {
    while let Ok(first) = deaths.recv() {
        // Who died together is told of together.
        let (same, others): (Vec<Death>, Vec<Death>) = deaths.try_iter().partition(|death| {
            death.mappers == first.mappers && death.protection == first.protection
        });
        let left = std::iter::once(&first).chain(&same).map(|d| (d.key.clone(), d.incarnation));
        ask(&first, left.collect());
        others.iter().for_each(|death| ask(death, vec![(death.key.clone(), death.incarnation)]));
    }
}

fn ask(death: &Death, left: Vec<(InstanceKey, Incarnation)>) {
    let access = access(&death.mappers, &death.protection);
    // A mapper that does not hear of it finds out by itself.
    if let Ok(access) = access {
        let _ = control::ask(access, &Question { left, ..Question::default() }, PATIENCE);
    }
}

/// How to get at these mappers. A deployment file says itself where they are.
pub(super) fn access(
    mappers: &[Endpoint],
    protection: &Protection,
) -> Result<Access, crate::errors::Failure> {
    let file = protection.deployment.clone();
    let mappers = if file.is_some() { Vec::new() } else { mappers.to_vec() };
    let default = crate::access::default_file();
    let default = default.as_deref().filter(|_| !protection.insecure);
    Access::resolve(Said { mappers, file, insecure: protection.insecure }, default)
}
