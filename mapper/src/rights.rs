//! Who may do what: the principals of a deployment, and what becomes of their keys.
//!
//! Without a list everything is in plain text, and everybody may do everything.

use std::collections::BTreeMap;

use svcmap_proto::control::{Admission, KeyAnswer, KeyRefusal, KeyRequest};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::Name;
use svcmap_proto::principals::{Principal, Role, Services};

/// Whose keys may take part, and whose may not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    principals: Vec<Principal>,
    /// The first one first.
    revoked: Vec<PublicKey>,
    /// Where the principal with that key stands.
    by_key: BTreeMap<PublicKey, usize>,
}

impl Rights {
    /// By what stands in a mapper's own file. Of a key that stands there twice, or among those that were
    /// revoked, the less counts.
    pub fn new(principals: Vec<Principal>, revoked: Vec<PublicKey>) -> Self {
        let mut rights = Self { principals: Vec::new(), revoked, by_key: BTreeMap::new() };
        for principal in principals {
            if !rights.has_key(&principal.key) {
                rights.push(principal);
            }
        }
        rights
    }

    fn has_key(&self, key: &PublicKey) -> bool {
        self.by_key.contains_key(key) || self.revoked.contains(key)
    }

    fn push(&mut self, principal: Principal) {
        self.by_key.insert(principal.key, self.principals.len());
        self.principals.push(principal);
    }

    /// Those who may take part, in the order in which they came.
    pub fn principals(&self) -> &[Principal] {
        &self.principals
    }

    /// Keys that are good no more, the first one first.
    pub fn revoked(&self) -> &[PublicKey] {
        &self.revoked
    }

    /// Whose key that is.
    pub fn of(&self, key: &PublicKey) -> Option<&Principal> {
        self.principals.get(*self.by_key.get(key)?)
    }

    /// Whether both keys are of one principal. Who came without one is of this machine.
    pub fn is_same(&self, one: Option<&PublicKey>, other: Option<&PublicKey>) -> bool {
        one == other
            || match (one, other) {
                (Some(one), Some(other)) => {
                    let name = |key| self.of(key).map(|principal| &principal.name);
                    name(one).is_some() && name(one) == name(other)
                }
                _ => false,
            }
    }

    /// Whether who has that key may play that role for that service. Who came without one is of this
    /// machine, and works for any.
    pub fn may(&self, key: Option<&PublicKey>, role: Role, service: &str) -> bool {
        match key {
            None => role <= Role::Worker,
            Some(key) => self.of(key).is_some_and(|known| known.role >= role && known.has(service)),
        }
    }

    /// Whether who has that key has to do with all services.
    pub fn has_all(&self, key: Option<&PublicKey>) -> bool {
        let has_all = |principal: &Principal| principal.services.contains(&Services::all());
        key.is_none_or(|key| self.of(key).is_some_and(has_all))
    }

    /// Whether who has that key says who may take part.
    pub fn is_operator(&self, key: Option<&PublicKey>) -> bool {
        self.operator(key).is_some()
    }

    fn operator(&self, key: Option<&PublicKey>) -> Option<&Principal> {
        self.of(key?).filter(|known| known.role == Role::Operator)
    }

    /// Whether who has that key may want this: an operator, who changes nothing but what is within his own
    /// services, and does not shut himself out.
    ///
    /// # Errors
    /// Why not.
    pub fn may_change(
        &self,
        user: Option<&PublicKey>,
        request: &KeyRequest,
    ) -> Result<(), KeyRefusal> {
        let operator = self.operator(user).ok_or(KeyRefusal::NotOperator)?;
        let is_within = |principal: &Principal| {
            let has = |wanted| operator.services.iter().any(|own| own.includes(wanted));
            principal.services.iter().all(has)
        };
        let may = match request {
            KeyRequest::List { .. } => true,
            KeyRequest::Add(principal) => is_within(principal),
            KeyRequest::Revoke { name } if *name == operator.name => {
                return Err(KeyRefusal::Oneself);
            }
            KeyRequest::Revoke { name } | KeyRequest::Rotate { name, .. } => {
                self.principals.iter().filter(|known| known.name == *name).all(is_within)
            }
        };
        if may { Ok(()) } else { Err(KeyRefusal::Beyond) }
    }

    /// Whom a worker of that service lets in.
    pub fn admission(&self, service: &str) -> Admission {
        let of_use = self.principals.iter().filter(|principal| principal.has(service));
        let keys = of_use.map(|principal| principal.key).collect();
        Admission { keys, revoked: self.revoked.clone() }
    }

    /// Everybody, and of which services each may hear.
    pub fn admitted(&self) -> BTreeMap<PublicKey, Vec<Services>> {
        let of = |principal: &Principal| (principal.key, principal.services.clone());
        self.principals.iter().map(of).collect()
    }

    /// A page of those who may take part, for an operator; others are told of themselves only.
    pub fn page(&self, user: Option<&PublicKey>, skip: u32) -> KeyAnswer {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let is_operator = self.is_operator(user);
        let is_told = |known: &&Principal| is_operator || self.is_same(user, Some(&known.key));
        let mut left = self.principals.iter().filter(is_told).skip(skip);
        let principals = left.by_ref().take(limits::PRINCIPALS_PAGE).cloned().collect();
        KeyAnswer::Listed { principals, more: left.next().is_some() }
    }

    /// How it would be after that, at that Unix time in seconds.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn after(&self, unix_s: u64, request: KeyRequest) -> Result<Self, KeyRefusal> {
        match request {
            KeyRequest::List { .. } => Ok(self.clone()),
            KeyRequest::Add(principal) => self.with(principal),
            KeyRequest::Revoke { name } => self.without(&name),
            KeyRequest::Rotate { name, key, keep_s } => {
                self.rotated(&name, key, unix_s.saturating_add(keep_s.into()))
            }
        }
    }

    fn with(&self, principal: Principal) -> Result<Self, KeyRefusal> {
        // Whoever heard no answer asks again.
        if self.of(&principal.key) == Some(&principal) {
            return Ok(self.clone());
        }
        let is_taken = self.principals.iter().any(|known| known.name == principal.name);
        if is_taken || self.by_key.contains_key(&principal.key) {
            return Err(KeyRefusal::Taken);
        }
        self.check_new(&principal.key)?;
        let mut rights = self.clone();
        rights.push(principal);
        Ok(rights)
    }

    fn check_new(&self, key: &PublicKey) -> Result<(), KeyRefusal> {
        match () {
            () if self.revoked.contains(key) => Err(KeyRefusal::Revoked),
            () if self.principals.len() >= limits::KEYS_MAX => Err(KeyRefusal::Full),
            () => Ok(()),
        }
    }

    fn without(&self, name: &Name) -> Result<Self, KeyRefusal> {
        let mut others = self.principals.iter().filter(|known| known.name != *name);
        if others.clone().count() == self.principals.len() {
            return Err(KeyRefusal::Unknown);
        }
        // One whose key ends is none to rely on.
        let stays = |known: &Principal| known.ends_at_unix_s.is_none();
        if !others.any(|known| known.role == Role::Operator && stays(known)) {
            return Err(KeyRefusal::LastOperator);
        }
        Ok(self.revoking(|known| known.name == *name))
    }

    /// How it would be without those keys.
    fn revoking(&self, is_revoked: impl Fn(&Principal) -> bool) -> Self {
        let (gone, stay): (Vec<_>, Vec<_>) = self.principals.iter().cloned().partition(is_revoked);
        let mut revoked = self.revoked.clone();
        revoked.extend(gone.iter().map(|principal| principal.key));
        revoked.drain(..revoked.len().saturating_sub(limits::REVOKED_MAX));
        Self::new(stay, revoked)
    }

    fn rotated(
        &self,
        name: &Name,
        key: PublicKey,
        ends_at_unix_s: u64,
    ) -> Result<Self, KeyRefusal> {
        let mut of_name = self.principals.iter().filter(|known| known.name == *name);
        let former = of_name.next().ok_or(KeyRefusal::Unknown)?;
        if of_name.next().is_some() {
            // Whoever heard no answer asks again.
            let is_done = self.of(&key).is_some_and(|known| known.name == *name);
            return if is_done { Ok(self.clone()) } else { Err(KeyRefusal::Rotating) };
        }
        if self.by_key.contains_key(&key) {
            return Err(KeyRefusal::Taken);
        }
        self.check_new(&key)?;
        let next = Principal { key, ends_at_unix_s: None, ..former.clone() };
        let mut rights = self.clone();
        rights.push(next);
        for known in &mut rights.principals {
            if known.name == *name && known.key != key {
                known.ends_at_unix_s = Some(ends_at_unix_s);
            }
        }
        Ok(rights)
    }

    /// How it is at that Unix time in seconds, if a key has ended by then.
    pub fn at(&self, unix_s: u64) -> Option<Self> {
        let has_ended =
            |known: &Principal| known.ends_at_unix_s.is_some_and(|ends_at| ends_at <= unix_s);
        self.principals.iter().any(has_ended).then(|| self.revoking(has_ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey([number; 32])
    }

    fn principal(name: &str, role: Role, services: &str, number: u8) -> Principal {
        Principal {
            name: name.parse().unwrap(),
            role,
            services: services.split(',').map(|one| one.parse().unwrap()).collect(),
            key: key(number),
            ends_at_unix_s: None,
        }
    }

    fn rights() -> Rights {
        let all = [
            principal("boss", Role::Operator, "*", 1),
            principal("alice", Role::Client, "resize*,thumb", 2),
            principal("host-1", Role::Worker, "resize", 3),
        ];
        Rights::new(all.to_vec(), vec![key(9)])
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn revoke(text: &str) -> KeyRequest {
        KeyRequest::Revoke { name: name(text) }
    }

    fn rotate(text: &str, number: u8, keep_s: u32) -> KeyRequest {
        KeyRequest::Rotate { name: name(text), key: key(number), keep_s }
    }

    #[test]
    fn each_may_play_its_role_for_its_services() {
        let rights = rights();
        for (number, role, service, may) in [
            (1, Role::Operator, "anything", true),
            (2, Role::Client, "resize-2", true),
            (2, Role::Client, "thumb", true),
            (2, Role::Client, "thumb-2", false),
            (2, Role::Worker, "thumb", false),
            (3, Role::Worker, "resize", true),
            (3, Role::Client, "resize", true),
            (3, Role::Client, "resize-2", false),
            (3, Role::Operator, "resize", false),
            (9, Role::Client, "resize", false),
            (4, Role::Client, "resize", false),
        ] {
            assert_eq!(rights.may(Some(&key(number)), role, service), may, "{number} {service}");
        }
        // Who came without a key is of this machine.
        assert!(rights.may(None, Role::Worker, "x") && !rights.may(None, Role::Operator, "x"));
        assert!(rights.has_all(None) && rights.has_all(Some(&key(1))));
        assert!(!rights.has_all(Some(&key(2))) && !rights.has_all(Some(&key(4))));
        let operators: Vec<_> =
            (0..10).filter(|number| rights.is_operator(Some(&key(*number)))).collect();
        assert_eq!(operators, [1]);
        assert!(!rights.is_operator(None));
        let of_thumb = rights.admission("thumb");
        assert_eq!((of_thumb.keys, of_thumb.revoked), (vec![key(1), key(2)], vec![key(9)]));
    }

    #[test]
    fn who_is_added_takes_part_and_only_once() {
        let bob = principal("bob", Role::Worker, "thumb", 4);
        let added = rights().after(0, KeyRequest::Add(bob.clone())).unwrap();
        assert!(added.may(Some(&key(4)), Role::Worker, "thumb"));
        // Whoever heard no answer asks again.
        assert_eq!(added.after(0, KeyRequest::Add(bob.clone())), Ok(added.clone()));
        for (other, refusal) in [
            (principal("bob", Role::Worker, "thumb", 5), KeyRefusal::Taken),
            (principal("carol", Role::Worker, "thumb", 4), KeyRefusal::Taken),
            (principal("carol", Role::Worker, "thumb", 9), KeyRefusal::Revoked),
        ] {
            assert_eq!(added.after(0, KeyRequest::Add(other)), Err(refusal));
        }
        let crowd = (0..limits::KEYS_MAX as u16).map(|number| {
            let mut bytes = [7; 32];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            Principal { key: PublicKey(bytes), name: name(&format!("n{number}")), ..bob.clone() }
        });
        let full = Rights::new(crowd.collect(), Vec::new());
        assert_eq!(full.after(0, KeyRequest::Add(bob)), Err(KeyRefusal::Full));
    }

    #[test]
    fn who_is_revoked_takes_part_no_more_and_does_not_come_back() {
        let without = rights().after(0, revoke("alice")).unwrap();
        assert!(!without.may(Some(&key(2)), Role::Client, "thumb"));
        assert_eq!(without.revoked(), [key(9), key(2)]);
        assert!(without.admission("thumb").revoked.contains(&key(2)));
        assert!(!without.admitted().contains_key(&key(2)));
        assert_eq!(without.after(0, revoke("alice")), Err(KeyRefusal::Unknown));
        let again = principal("alice", Role::Client, "thumb", 2);
        assert_eq!(without.after(0, KeyRequest::Add(again.clone())), Err(KeyRefusal::Revoked));
        // Not by a file either.
        let read = Rights::new(vec![again], vec![key(2)]);
        assert!(read.principals().is_empty());
        // The list does not grow for ever.
        let many = (0..600_u16).map(|number| {
            let mut bytes = [8; 32];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            PublicKey(bytes)
        });
        let long = Rights::new(rights().principals().to_vec(), many.collect());
        let revoked = long.after(0, revoke("alice")).unwrap();
        assert_eq!(revoked.revoked().len(), limits::REVOKED_MAX);
        assert_eq!(revoked.revoked().last(), Some(&key(2)));
    }

    #[test]
    fn the_last_operator_stays() {
        assert_eq!(rights().after(0, revoke("boss")), Err(KeyRefusal::LastOperator));
        let second = principal("second", Role::Operator, "*", 4);
        let two = rights().after(0, KeyRequest::Add(second)).unwrap();
        assert!(two.after(0, revoke("boss")).unwrap().is_operator(Some(&key(4))));
    }

    #[test]
    fn two_keys_of_one_name_are_good_for_a_while() {
        let two = rights().after(100, rotate("host-1", 5, 60)).unwrap();
        for number in [3, 5] {
            assert!(two.may(Some(&key(number)), Role::Worker, "resize"));
        }
        assert!(two.is_same(Some(&key(3)), Some(&key(5))));
        assert!(!two.is_same(Some(&key(3)), Some(&key(1))));
        assert_eq!(two.after(100, rotate("host-1", 5, 60)), Ok(two.clone()));
        assert_eq!(two.after(100, rotate("host-1", 6, 60)), Err(KeyRefusal::Rotating));
        assert_eq!(two.after(100, rotate("nobody", 6, 60)), Err(KeyRefusal::Unknown));
        assert_eq!(two.after(100, rotate("alice", 5, 60)), Err(KeyRefusal::Taken));
        assert_eq!(two.at(159), None);
        let one = two.at(160).unwrap();
        assert!(one.may(Some(&key(5)), Role::Worker, "resize"));
        assert!(!one.may(Some(&key(3)), Role::Worker, "resize"));
        assert!(one.revoked().contains(&key(3)) && one.at(1000).is_none());
        // And then again.
        assert!(one.after(200, rotate("host-1", 6, 0)).is_ok());
        // With its name go both keys.
        let none = two.after(100, revoke("host-1")).unwrap();
        assert!([3, 5].iter().all(|number| none.of(&key(*number)).is_none()));
    }

    #[test]
    fn operators_see_everybody_page_by_page_and_others_themselves() {
        let name_of = |answer| match answer {
            KeyAnswer::Listed { principals, more } => {
                let names = principals.into_iter().map(|one| one.name.to_string());
                (names.collect::<Vec<_>>(), more)
            }
            other => panic!("{other:?}"),
        };
        let listed = |number, skip| name_of(rights().page(Some(&key(number)), skip));
        assert_eq!(listed(1, 0), (vec!["boss".into(), "alice".into(), "host-1".into()], false));
        assert_eq!(listed(1, 2), (vec!["host-1".into()], false));
        assert_eq!(listed(2, 0), (vec!["alice".into()], false));
        assert_eq!(listed(4, 0), (Vec::new(), false));
    }
}
