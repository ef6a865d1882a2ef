//! What queueing theory says of systems that the simulator can be set up as. Times are in mean
//! service times.

/// Probability that a job waits in M/M/c (Erlang C; Kleinrock, Queueing Systems 1, 3.5).
fn erlang_c(servers: u32, utilisation: f64) -> f64 {
    let load = f64::from(servers) * utilisation;
    // Erlang's B by its recursion, which no factorial can overflow.
    let blocked = (1..=servers).fold(1.0, |b, n| load * b / (f64::from(n) + load * b));
    blocked / (1.0 - utilisation * (1.0 - blocked))
}

/// Mean wait in M/M/c.
pub fn mean_wait(servers: u32, utilisation: f64) -> f64 {
    erlang_c(servers, utilisation) / (f64::from(servers) * (1.0 - utilisation))
}

/// Share of jobs lost in M/M/1/K with so many slots (Kleinrock, Queueing Systems 1, 3.6).
pub fn loss(slots: u32, utilisation: f64) -> f64 {
    let weights = (0..=slots).map(|jobs| utilisation.powi(jobs as i32));
    utilisation.powi(slots as i32) / weights.sum::<f64>()
}

/// Share of jobs that no system can do.
pub fn overload_floor(utilisation: f64) -> f64 {
    (1.0 - 1.0 / utilisation).max(0.0)
}

/// Mean response of the better of two random true queues, with very many workers (Mitzenmacher,
/// IEEE TPDS 12(10), theorem 3).
pub fn fresh_two_response(utilisation: f64) -> f64 {
    (1..12).map(|i| utilisation.powf(2f64.powi(i) - 2.0)).sum()
}

/// The better of two random queues as a board shows them, with very many workers and senders
/// (Mitzenmacher, IEEE TPDS 11(1)).
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// Offered load / capacity.
    pub utilisation: f64,
    /// Time between two renewals.
    pub interval: f64,
    /// Room at each worker. What is never reached stands for any number.
    pub slots: usize,
    /// No job goes to a worker that is shown as full.
    pub avoids_full: bool,
}

/// Step of the integration: rates are a few per service time, and the method is of fourth order.
const STEP: f64 = 0.05;

impl Board {
    /// Mean response of jobs that are taken, and the share of jobs that find their worker full.
    pub fn solve(&self) -> (f64, f64) {
        let mut shown = self.empty();
        shown[0] = 1.0;
        let mut result = (0.0, 0.0);
        // Each interval starts from what the one before led to, until nothing changes any more.
        for round in 0.. {
            let (next, response, full) = self.interval(&shown);
            let change: f64 = shown.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
            (shown, result) = (next, (response, full));
            if change < 1e-12 || round as f64 * self.interval > 4000.0 {
                break;
            }
        }
        result
    }

    fn empty(&self) -> Vec<f64> {
        vec![0.0; self.slots + 1]
    }

    /// From one renewal to the next: the shares of workers by number of jobs, the mean response of
    /// jobs taken between, and the share of jobs that found their worker full.
    fn interval(&self, shown: &[f64]) -> (Vec<f64>, f64, f64) {
        let steps = (self.interval / STEP).ceil().max(1.0);
        let step = self.interval / steps;
        let (mut next, mut jobs, mut lost) = (self.empty(), 0.0, 0.0);
        for (at, share) in shown.iter().enumerate().filter(|(_, share)| **share > 1e-15) {
            let rate = self.rate(shown, at);
            let mut state = self.empty();
            state[at] = 1.0;
            for _ in 0..steps as usize {
                let before = (mean(&state), state[self.slots]);
                state = runge_kutta(&state, rate, step);
                // Trapezoids: what is summed up changes little within a step.
                jobs += share * (before.0 + mean(&state)) / 2.0 * step;
                lost += share * rate * (before.1 + state[self.slots]) / 2.0 * step;
            }
            next.iter_mut().zip(&state).for_each(|(sum, s)| *sum += share * s);
        }
        let offered = self.utilisation * self.interval;
        // Little's law: jobs here = rate of jobs taken * response.
        (next, jobs / (offered - lost), lost / offered)
    }

    /// Jobs per service time for a worker that is shown with so many jobs.
    fn rate(&self, shown: &[f64], at: usize) -> f64 {
        let shown = if self.avoids_full { &shown[..self.slots] } else { shown };
        let eligible: f64 = shown.iter().sum();
        if at >= shown.len() || eligible <= 0.0 {
            return 0.0;
        }
        // Both of two lie at or above it, with the chance of the tail squared.
        let tail = |from: usize| shown[from..].iter().sum::<f64>() / eligible;
        self.utilisation * (tail(at).powi(2) - tail(at + 1).powi(2)) / shown[at]
    }
}

fn mean(state: &[f64]) -> f64 {
    state.iter().enumerate().map(|(jobs, share)| jobs as f64 * share).sum()
}

/// One step of an M/M/1/K queue's distribution (Runge and Kutta's classical method).
fn runge_kutta(state: &[f64], rate: f64, step: f64) -> Vec<f64> {
    let plus = |slope: &[f64], by: f64| -> Vec<f64> {
        state.iter().zip(slope).map(|(s, d)| s + d * by).collect()
    };
    let a = slope(state, rate);
    let b = slope(&plus(&a, step / 2.0), rate);
    let c = slope(&plus(&b, step / 2.0), rate);
    let d = slope(&plus(&c, step), rate);
    let sum = |i: usize| state[i] + step / 6.0 * (a[i] + 2.0 * b[i] + 2.0 * c[i] + d[i]);
    (0..state.len()).map(sum).collect()
}

fn slope(state: &[f64], rate: f64) -> Vec<f64> {
    let last = state.len() - 1;
    let change = |jobs: usize| {
        let arrives = if jobs > 0 { rate * state[jobs - 1] } else { 0.0 };
        let finishes = if jobs < last { state[jobs + 1] } else { 0.0 };
        let leaves = f64::from(u8::from(jobs < last)) * rate + f64::from(u8::from(jobs > 0));
        arrives + finishes - leaves * state[jobs]
    };
    (0..=last).map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found / expected - 1.0).abs() < tolerance, "{found} for {expected}");
    }

    #[test]
    fn formulas_give_known_figures() {
        for (servers, wait) in [(4, 1.969), (8, 0.877), (16, 0.370), (32, 0.143)] {
            near(mean_wait(servers, 0.9), wait, 3e-3);
        }
        near(loss(11, 1.0), 1.0 / 12.0, 1e-9);
        near(loss(11, 0.9), 4.37e-2, 2e-3);
        near(fresh_two_response(0.9), 2.6141, 1e-4);
        near(fresh_two_response(0.5), 1.2657, 1e-4);
        near(overload_floor(1.25), 0.2, 1e-9);
        assert_eq!(overload_floor(0.9), 0.0);
    }

    #[test]
    fn the_board_at_its_ends_is_the_fresh_queue_and_the_random_one() {
        let board = |interval, slots| {
            Board { utilisation: 0.7, interval, slots, avoids_full: true }.solve()
        };
        near(board(0.01, 30).0, fresh_two_response(0.7), 0.02);
        // Short queues get up to twice their share for so long that it is worse than chance.
        let (fresh, old) = (board(0.1, 5).1, board(20.0, 5).1);
        assert!(fresh < loss(5, 0.7) && loss(5, 0.7) < old, "{fresh} {old}");
    }

    #[test]
    fn the_board_gives_the_figures_of_the_literature() {
        let solve = |interval, slots| {
            Board { utilisation: 0.9, interval, slots, avoids_full: false }.solve()
        };
        near(solve(1.0, 60).0, 2.94, 5e-3);
        near(solve(5.0, 60).0, 3.97, 5e-3);
        near(solve(5.0, 11).1, 2.8e-3, 0.05);
        near(solve(10.0, 11).1, 2.4e-2, 0.05);
    }
}
