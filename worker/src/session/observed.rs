//! At which address the mappers see this process: what a worker that is bound to all interfaces
//! tells others.

/// The first word counts, and after that what any mapper sees change. Two mappers may see two
/// addresses, one on each side of a router: that is no change.
#[derive(Debug, Default)]
pub struct Observed {
    /// What each mapper saw last; empty if it has not said.
    seen: Vec<String>,
    address: String,
}

impl Observed {
    /// That mapper sees this address, or nothing. Returns the one that counts; empty if there is
    /// none.
    pub fn handle_welcome(&mut self, mapper: usize, observed: &str) -> &str {
        if self.seen.len() <= mapper {
            self.seen.resize(mapper + 1, String::new());
        }
        let seen = &mut self.seen[mapper];
        let has_changed = !seen.is_empty() && *seen != *observed;
        if !observed.is_empty() {
            observed.clone_into(seen);
            if self.address.is_empty() || has_changed {
                observed.clone_into(&mut self.address);
            }
        }
        &self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapper_sees_change_counts_and_two_views_do_not_quarrel() {
        let mut observed = Observed::default();
        assert_eq!(observed.handle_welcome(0, ""), "");
        assert_eq!(observed.handle_welcome(0, "10.0.0.1"), "10.0.0.1");
        assert_eq!(observed.handle_welcome(1, "192.168.0.1"), "10.0.0.1");
        assert_eq!(observed.handle_welcome(0, "10.0.0.1"), "10.0.0.1");
        assert_eq!(observed.handle_welcome(1, "192.168.0.1"), "10.0.0.1");
        // A new address, which both come to see.
        assert_eq!(observed.handle_welcome(0, "10.0.0.2"), "10.0.0.2");
        assert_eq!(observed.handle_welcome(1, "10.0.0.2"), "10.0.0.2");
        assert_eq!(observed.handle_welcome(1, ""), "10.0.0.2");
        assert_eq!(observed.handle_welcome(0, "10.0.0.2"), "10.0.0.2");
    }
}
