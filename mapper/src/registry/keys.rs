//! Who may do what here, and what happens when that changes.

use std::collections::BTreeMap;

use svcmap_proto::control::{FromMapper, KeyAnswer, KeyRefusal, KeyRequest};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::principals::Role;
use svcmap_proto::time::Timestamp;

use super::instance::Instance;
use super::{Connection, Output, Registry};
use crate::access::Access;

impl Registry {
    /// Nobody but these takes part, from now on.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Who may take part; `None`: everybody, in plain text.
    pub fn access(&self) -> Option<&Access> {
        self.access.as_ref()
    }

    /// Whether who is there may play that role for that service.
    pub(super) fn may(&self, user: Option<&PublicKey>, role: Role, service: &str) -> bool {
        self.access.as_ref().is_none_or(|access| access.may(user, role, service))
    }

    /// Whether who is there has to do with all services.
    pub(super) fn has_all(&self, user: Option<&PublicKey>) -> bool {
        self.access.as_ref().is_none_or(|access| access.has_all(user))
    }

    /// Whether the instance is one of who is there.
    pub(super) fn owns(&self, user: Option<&PublicKey>, listed: &Instance) -> bool {
        is_of(self.access.as_ref(), user, listed)
    }

    /// Whether who is there may say that the instance has left.
    pub(super) fn may_end(&self, user: Option<&PublicKey>, key: &InstanceKey) -> bool {
        let Some(access) = &self.access else { return true };
        let is_its = match self.listed(key) {
            Some(listed) => is_of(Some(access), user, listed),
            None => access.may(user, Role::Worker, key.service.as_str()),
        };
        is_its || access.is_operator(user)
    }

    /// Says to a worker of that service whom it is to let in.
    pub(super) fn admit_for(&mut self, to: &Connection, service: &Name) {
        if let Some(access) = &self.access {
            let message = FromMapper::Admit(access.admission(service.as_str()));
            self.reply(to, message);
        }
    }

    /// Somebody wants something of the keys.
    pub(super) fn handle_keys(&mut self, from: &Connection, request: KeyRequest) {
        let answer = match &self.access {
            None => KeyAnswer::Refused(KeyRefusal::NoKeys),
            Some(access) => match request {
                KeyRequest::List { skip } => access.page(from.user(), skip),
                _ if !access.is_operator(from.user()) => {
                    KeyAnswer::Refused(KeyRefusal::NotOperator)
                }
                request => {
                    return self.outputs.push_back(Output::Keys { from: from.clone(), request });
                }
            },
        };
        self.answer_keys(from, answer);
    }

    /// What became of what was wanted of the keys.
    pub fn answer_keys(&mut self, to: &Connection, answer: KeyAnswer) {
        self.reply(to, FromMapper::Keys(answer));
    }

    /// Those may take part from now on: who may not any more is not listed, and workers hear of it.
    pub fn handle_access(&mut self, now: Timestamp, access: Access) {
        let is_out = |listed: &Instance| {
            let user = listed.contact.connection().user();
            let service = listed.registration.key.service.as_str();
            !access.may(user, Role::Worker, service)
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
        self.access = Some(access);
        out.into_iter().for_each(|(key, incarnation)| self.leave(now, key, incarnation));
        workers.iter().for_each(|(at, service)| self.admit_for(at, service));
    }
}

/// Whether the instance is one of who is there.
pub(super) fn is_of(access: Option<&Access>, user: Option<&PublicKey>, listed: &Instance) -> bool {
    access.is_none_or(|access| access.is_same(user, listed.contact.connection().user()))
}

#[cfg(test)]
mod tests;
