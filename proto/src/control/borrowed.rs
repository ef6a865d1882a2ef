//! Messages of which there are very many, as views of what somebody else holds: nothing is copied to
//! read or to write one.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::keys::PublicKey;
use crate::load::Load;
use crate::names::{Endpoint, HostId, Incarnation, Name};

/// A [`ToMapper::Report`](super::ToMapper::Report) where it was received. Its names may be none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReportRef<'a> {
    /// The service of whoever reports.
    pub service: &'a str,
    /// Its name there.
    pub instance: &'a str,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its load now.
    pub load: Load,
}

impl<'a> ReportRef<'a> {
    /// What [`ToMapper::Report`](super::ToMapper::Report) is among the kinds of messages.
    const KIND: u8 = 2;

    /// The report in a frame; `None` if it is anything else, or nothing.
    pub fn in_frame(frame: &'a [u8]) -> Option<Self> {
        codec::decode_kind(frame, Self::KIND)
    }
}

/// An [`Entry`](super::Entry) to be written.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EntryRef<'a> {
    /// Its name within the service.
    pub instance: &'a Name,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where senders reach it, best first.
    pub endpoints: &'a [Endpoint],
    /// On which machine it runs.
    pub host: HostId,
    /// Its process id there.
    pub pid: u32,
    /// Its newest load.
    pub load: &'a Load,
    /// How long ago the mapper heard that, in milliseconds.
    pub age_ms: u32,
    /// What its registration says.
    pub error: Option<&'a str>,
    /// Who it is, if it is known by a key.
    pub key: Option<PublicKey>,
}

/// A [`Change`](super::Change) to be written.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum ChangeRef<'a> {
    /// See [`Change::Put`](super::Change::Put).
    Put(EntryRef<'a>),
    /// See [`Change::Load`](super::Change::Load).
    Load {
        /// Whose load.
        instance: &'a Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// Its newest load.
        load: &'a Load,
        /// How long ago the mapper heard that, in milliseconds.
        age_ms: u32,
    },
    /// See [`Change::Left`](super::Change::Left).
    Left {
        /// Who left.
        instance: &'a Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// See [`Change::Expired`](super::Change::Expired).
    Expired {
        /// Who is silent.
        instance: &'a Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Entry, ToMapper};
    use super::*;
    use crate::codec::encode;

    fn entry() -> Entry {
        Entry {
            instance: "i".parse().unwrap(),
            incarnation: Incarnation(300),
            endpoints: vec!["tcp://h:1".parse().unwrap()],
            host: HostId(7),
            pid: 9,
            load: Load { sequence: 4, running: 2, ..Load::default() },
            age_ms: 1000,
            error: Some("no".to_owned()),
            key: None,
        }
    }

    #[test]
    fn a_view_is_written_as_the_whole() {
        let entry = entry();
        let view = EntryRef {
            instance: &entry.instance,
            incarnation: entry.incarnation,
            endpoints: &entry.endpoints,
            host: entry.host,
            pid: entry.pid,
            load: &entry.load,
            age_ms: entry.age_ms,
            error: entry.error.as_deref(),
            key: None,
        };
        let Entry { instance, incarnation, load, age_ms, .. } = entry.clone();
        let whole = [
            Change::Put(entry.clone()),
            Change::Load { instance: instance.clone(), incarnation, load, age_ms },
            Change::Left { instance: instance.clone(), incarnation },
            Change::Expired { instance: instance.clone(), incarnation },
        ];
        let (instance, load) = (&instance, &load);
        let views = [
            ChangeRef::Put(view),
            ChangeRef::Load { instance, incarnation, load, age_ms },
            ChangeRef::Left { instance, incarnation },
            ChangeRef::Expired { instance, incarnation },
        ];
        for (whole, view) in whole.iter().zip(&views) {
            assert_eq!(encode(whole), encode(view));
        }
    }

    #[test]
    fn only_a_report_is_read_as_one() {
        let Entry { instance, incarnation, load, .. } = entry();
        let key = crate::names::InstanceKey { service: "s".parse().unwrap(), instance };
        let frame = encode(&ToMapper::Report { key: key.clone(), incarnation, load });
        let report = ReportRef { service: "s", instance: "i", incarnation, load };
        assert_eq!(ReportRef::in_frame(&frame), Some(report));
        let longer = [&frame[..], &[0]].concat();
        let other = [&[frame[0] + 1], &frame[1..]].concat();
        let leave = encode(&ToMapper::Leave { key, incarnation });
        for none in [&longer, &other, &leave, &frame[..frame.len() - 1].to_vec(), &Vec::new()] {
            assert_eq!(ReportRef::in_frame(none), None);
        }
    }
}
