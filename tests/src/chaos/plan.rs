//! What is done to whom, and when: the same for the same seed.

use std::time::Duration;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `svcmap mapper`.
    Mapper,
    /// A worker whose handler is in the process.
    Worker,
    /// `svcmap worker --exec`.
    ExecWorker,
    /// Whoever submits jobs.
    Sender,
}

/// Something that is done to a process. Afterwards it is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and the next life after so long.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after so long.
    Stop(Duration),
    /// SIGTERM, and so long after its end the next life.
    Terminate(Duration),
}

/// When it is done, since the beginning, and to which of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the beginning.
    pub at: Duration,
    /// A process, by its place among all.
    pub target: usize,
    /// What.
    pub fault: Fault,
}

/// Mean time between two faults of one process.
fn gap(role: Role) -> Duration {
    match role {
        Role::Worker | Role::ExecWorker => Duration::from_secs(5),
        Role::Sender => Duration::from_secs(4),
        Role::Mapper => Duration::from_secs(6),
    }
}

/// Shortest and longest time that a process is away or stands still, in seconds: from what nobody
/// notices to more than two expiries.
const AWAY_S: (f64, f64) = (0.01, 3.5);

/// Faults for each process, in the order of time, all over by `length`.
pub fn plan(seed: u64, length: Duration, roles: &[Role]) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (target, &role) in roles.iter().enumerate() {
        let mut random =
            fastrand::Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(target as u64));
        let mut at = Duration::ZERO;
        loop {
            at += gap(role).mul_f64(random.f64() + 0.5);
            let (least, most) = AWAY_S;
            let away = Duration::from_secs_f64(least * (most / least).powf(random.f64()));
            let fault = match random.u8(0..3) {
                0 => Fault::Kill(away),
                1 => Fault::Stop(away),
                _ => Fault::Terminate(away),
            };
            if at + away >= length {
                break;
            }
            planned.push(Planned { at, target, fault });
            at += away;
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_spares_nobody() {
        let roles = [Role::Mapper, Role::Worker, Role::ExecWorker, Role::Sender];
        let length = Duration::from_secs(60);
        let first = plan(7, length, &roles);
        assert_eq!(first, plan(7, length, &roles));
        assert_ne!(first, plan(8, length, &roles));
        for target in 0..roles.len() {
            let own: Vec<_> = first.iter().filter(|planned| planned.target == target).collect();
            let of = |wanted: fn(&Fault) -> bool| own.iter().any(|planned| wanted(&planned.fault));
            assert!(of(|fault| matches!(fault, Fault::Kill(_))), "{own:?}");
            assert!(of(|fault| matches!(fault, Fault::Stop(_))), "{own:?}");
            assert!(of(|fault| matches!(fault, Fault::Terminate(_))), "{own:?}");
            assert!(own.iter().is_sorted_by_key(|planned| planned.at));
        }
    }
}
