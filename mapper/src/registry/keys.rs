//! Who may do what here, and what happens when that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use svcmap_proto::codec::encode;
use svcmap_proto::control::{FromMapper, KeyAnswer, KeyRefusal, KeyRequest};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::principals::Role;
use svcmap_proto::time::Timestamp;

use super::instance::Instance;
use super::{Connection, Output, Registry};
use crate::rights::Rights;

/// Most services for which it is kept, encoded, whom their workers let in: each may take 48 KiB.
const ADMISSIONS_MAX: usize = 64;

impl Registry {
    /// Nobody but these takes part, from now on.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// Who may take part; `None`: everybody, in plain text.
    pub fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    /// Whether who is there may play that role for that service.
    pub(super) fn may(&self, user: Option<&PublicKey>, role: Role, service: &str) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.may(user, role, service))
    }

    /// Whether who is there has to do with all services.
    pub(super) fn has_all(&self, user: Option<&PublicKey>) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.has_all(user))
    }

    /// Whether the instance is one of who is there.
    pub(super) fn owns(&self, user: Option<&PublicKey>, listed: &Instance) -> bool {
        is_of(self.rights.as_ref(), user, listed)
    }

    /// Whether who is there may say that the instance has left.
    pub(super) fn may_end(&self, user: Option<&PublicKey>, key: &InstanceKey) -> bool {
        let Some(rights) = &self.rights else { return true };
        // Of one that is not listed here, nobody else knows whose it is.
        let is_its = |listed| is_of(Some(rights), user, listed);
        self.listed(key).is_some_and(is_its) || rights.is_operator(user)
    }

    /// Says to a worker of that service whom it is to let in.
    pub(super) fn admit_for(&mut self, to: &Connection, service: &Name) {
        let Some(rights) = &self.rights else { return };
        if self.admissions.len() >= ADMISSIONS_MAX {
            self.admissions.clear();
        }
        let encoded = || encode(&FromMapper::Admit(rights.admission(service.as_str()))).into();
        let frame = self.admissions.entry(service.clone()).or_insert_with(encoded);
        self.outputs.push_back(Output::Send { to: to.clone(), frame: Arc::clone(frame) });
    }

    /// Somebody wants something of the keys.
    pub(super) fn handle_keys(&mut self, from: &Connection, request: KeyRequest) {
        let answer = match &self.rights {
            None => KeyAnswer::Refused(KeyRefusal::NoKeys),
            Some(rights) => match request {
                KeyRequest::List { skip } => rights.page(from.user(), skip),
                request => match rights.may_change(from.user(), &request) {
                    Err(refusal) => KeyAnswer::Refused(refusal),
                    Ok(()) => {
                        return self
                            .outputs
                            .push_back(Output::Keys { from: from.clone(), request });
                    }
                },
            },
        };
        self.answer_keys(from, answer);
    }

    /// What became of what was wanted of the keys.
    pub fn answer_keys(&mut self, to: &Connection, answer: KeyAnswer) {
        self.reply(to, FromMapper::Keys(answer));
    }

    /// Those may take part from now on: who may not any more is not listed, and workers hear of it.
    pub fn handle_rights(&mut self, now: Timestamp, rights: Rights) {
        let is_out = |listed: &Instance| {
            let user = listed.contact.connection().user();
            let service = listed.registration.key.service.as_str();
            !rights.may(user, Role::Worker, service)
        };
        let (out, stay): (Vec<_>, Vec<_>) = self.services.iter().partition(|listed| is_out(listed));
        let out: Vec<_> = out
            .into_iter()
            .map(|listed| (listed.registration.key.clone(), listed.registration.incarnation))
            .collect();
        let workers: BTreeMap<Connection, Name> = stay
            .into_iter()
            .filter_map(|listed| {
                let at = listed.contact.reachable_at()?.clone();
                Some((at, listed.registration.key.service.clone()))
            })
            .collect();
        self.rights = Some(rights);
        self.admissions.clear();
        out.into_iter().for_each(|(key, incarnation)| self.leave(now, key, incarnation));
        workers.iter().for_each(|(at, service)| self.admit_for(at, service));
    }
}

/// Whether the instance is one of who is there.
pub(super) fn is_of(rights: Option<&Rights>, user: Option<&PublicKey>, listed: &Instance) -> bool {
    rights.is_none_or(|rights| rights.is_same(user, listed.contact.connection().user()))
}

#[cfg(test)]
mod tests;
