use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + ms * 1000)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn measurement() -> Measurement {
    Measurement::new(at(0), ms(1000), 2, ms(10))
}

#[test]
fn errors_are_counted_by_first_attempts() {
    let mut measurement = measurement();
    assert!(measurement.counts(at(0)) && !measurement.counts(at(1000)));
    for job in 0..10 {
        measurement.submit();
        measurement.choose(at(job), 0, true, Some(ms(4)));
    }
    measurement.reject(at(0), true, Full::Stale);
    measurement.reject(at(9), true, Full::Race);
    measurement.choose(at(11), 1, false, None);
    measurement.reject(at(11), false, Full::Race);
    for (ending, response) in [
        (Ending::Done, ms(20)),
        (Ending::Failed, ms(1)),
        (Ending::Refused { with_room: true }, ms(1)),
        (Ending::Refused { with_room: false }, ms(1)),
        (Ending::Unknown, ms(1)),
        (Ending::Accepted, ms(1)),
    ] {
        measurement.end(ending, response);
    }
    measurement.transfer(23, 460);
    let report = measurement.report(Setting::default());
    assert_eq!((report.far, report.far_stale, report.far_race), (0.2, 0.1, 0.1));
    assert_eq!((report.attempts.sent, report.attempts.rejected_full), (11, 3));
    assert_eq!((report.outcomes.all(), report.refused_with_room, report.frr), (6, 1, 0.1));
    assert_eq!(
        (report.goodput_per_s, report.messages_per_job, report.bytes_per_job),
        (1.0, 2.3, 46.0)
    );
    assert_eq!((report.age_ms.mean, report.response_ms.mean), (4.0, 20.0));
    // All were in the first of twenty batches: t * sqrt(variance / 20).
    let expected = 2.093 * 0.2 / 20.0;
    assert!((report.far_ci95 - expected).abs() < 1e-4, "{}", report.far_ci95);
}

#[test]
fn percentiles_come_from_a_histogram_and_the_mean_is_exact() {
    let mut measurement = measurement();
    (1..=1000).for_each(|wait| measurement.start(ms(wait)));
    let waits = measurement.report(Setting::default()).wait_ms;
    assert_eq!(waits.mean, 500.5);
    for (found, expected) in [(waits.p50, 500.0), (waits.p99, 990.0), (waits.p999, 999.0)] {
        assert!((found / expected - 1.0).abs() < 0.002, "{found} for {expected}");
    }
}

#[test]
fn a_herd_shows_in_its_index_and_in_the_spread() {
    // Ten jobs in each window, all for one worker, which changes: a herd.
    let mut herd = measurement();
    // One for each worker in each window: as even as can be.
    let mut even = measurement();
    for window in 0..100 {
        (0..10).for_each(|_| herd.choose(at(window * 10), window as usize % 2, true, None));
        (0..2).for_each(|worker| even.choose(at(window * 10), worker, true, None));
    }
    let [herd, even] = [herd, even].map(|m| m.report(Setting::default()).balance);
    assert!((herd.herd_index - 5.0).abs() < 0.1 && herd.cv < 0.01, "{herd:?}");
    assert!(even.herd_index < 0.01 && even.jain > 0.999, "{even:?}");
    let mut one = measurement();
    (0..10).for_each(|job| one.choose(at(job), 0, true, None));
    let one = one.report(Setting::default()).balance;
    assert_eq!((one.cv, one.jain), (1.0, 0.5));
}
