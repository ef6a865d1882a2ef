//! The processes of this machine as `/proc` tells of them: who descends from whom.

pub mod io;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Who started it, or took it over from a parent that ended.
    pub parent: i32,
    /// The number of the process that began its session.
    pub session: i32,
    /// Whether it has ended, and only its parent does not know yet.
    pub is_zombie: bool,
}

impl Process {
    /// What a line of `/proc/PID/stat` says; `None` if it is none.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        // The name in parentheses may hold anything, parentheses too.
        let mut fields = rest.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // Between them stands the process group.
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self {
            pid: pid.parse().ok()?,
            parent,
            session,
            is_zombie: matches!(state, "Z" | "X"),
        })
    }
}

/// Those of `all` that descend from one of them for which `is_root` holds, without the roots.
fn descendants(all: &[Process], is_root: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut known: Vec<i32> = all.iter().filter(|p| is_root(p)).map(|p| p.pid).collect();
    let mut left: Vec<Process> = all.iter().filter(|p| !is_root(p)).copied().collect();
    let mut found = Vec::new();
    loop {
        let (new, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|process| known.contains(&process.parent));
        if new.is_empty() {
            return found;
        }
        known = new.iter().map(|process| process.pid).collect();
        found.extend(new);
        left = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, session: 1, is_zombie: false }
    }

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let parsed = Process::parse("7 (a) R (b) S 5 6 4 0 -1 4194560 0\n");
        assert_eq!(parsed, Some(Process { pid: 7, parent: 5, session: 4, is_zombie: false }));
        assert!(Process::parse("7 (sh) Z 5 6 4 0").unwrap().is_zombie);
        for line in ["", "7", "7 (sh)", "7 (sh) S 5 6", "x (sh) S 5 6 4 0"] {
            assert_eq!(Process::parse(line), None, "{line}");
        }
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let all = [(9, 8), (1, 0), (8, 3), (3, 1), (4, 1), (5, 4)].map(|(a, b)| process(a, b));
        let of = |root: i32| {
            let mut found: Vec<i32> =
                descendants(&all, |p| p.pid == root).iter().map(|p| p.pid).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(of(3), [8, 9]);
        assert_eq!(of(1), [3, 4, 5, 8, 9]);
        assert_eq!(of(9), [0; 0]);
    }
}
