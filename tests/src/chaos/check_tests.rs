use super::*;

const BEAT: Duration = Duration::from_millis(500);
const TIMING: Timing = Timing { beat: BEAT, expiry: Duration::from_millis(1500) };

fn line(at_ms: u64, who: &str, event: Event) -> Line {
    Line { at_us: at_ms * 1000, who: who.to_owned(), life: 1, event }
}

fn job() -> String {
    "s-1.1.1".to_owned()
}

fn submit(at_ms: u64, spec: Spec) -> Line {
    line(at_ms, "s-1", Event::Submit { job: job(), spec })
}

fn sent(at_ms: u64, to: &str) -> Line {
    line(at_ms, "s-1", Event::Sent { job: job(), to: to.to_owned() })
}

fn start(at_ms: u64, who: &str) -> Line {
    line(at_ms, who, Event::Start { job: job() })
}

fn end(at_ms: u64, who: &str) -> Line {
    line(at_ms, who, Event::End { job: job(), is_done: true })
}

fn told(at_ms: u64, told: Told) -> Line {
    line(at_ms, "s-1", Event::Outcome { job: job(), told })
}

fn done(at_ms: u64) -> Line {
    told(at_ms, Told::Done { by: "w-1".to_owned() })
}

fn refused(at_ms: u64, reason: &str) -> Line {
    told(at_ms, Told::Refused { reason: reason.to_owned() })
}

fn unknown(at_ms: u64, cause: &str) -> Line {
    told(at_ms, Told::Unknown { cause: cause.to_owned() })
}

fn within(deadline_ms: u64) -> Spec {
    Spec { deadline_us: Some(deadline_ms * 1000), ..Spec::default() }
}

fn idempotent() -> Spec {
    Spec { idempotent: true, ..Spec::default() }
}

/// What is found in these lines, which need not come in order.
fn found(mut lines: Vec<Line>) -> Vec<Broken> {
    lines.push(line(0, "w-1", Event::Started));
    lines.push(line(100_000, "m-1", Event::Ended));
    lines.sort_by_key(|line| line.at_us);
    violations(&lines, TIMING).into_iter().map(|violation| violation.broken).collect()
}

#[test]
fn an_ordinary_job_breaks_nothing() {
    let job = || vec![submit(10, within(50)), sent(11, "w-1"), start(12, "w-1"), end(13, "w-1")];
    assert_eq!(found([job(), vec![done(14)]].concat()), []);
    let no_credit = Spec { hold_us: Some(0), ..Spec::default() };
    assert_eq!(found(vec![submit(10, no_credit), refused(11, "NoCredit")]), []);
}

#[test]
fn two_outcomes_are_found() {
    let twice = vec![submit(10, Spec::default()), refused(11, "Draining"), refused(12, "Draining")];
    assert_eq!(found(twice), [Broken::OutcomeTwice]);
    let settled = || line(11, "s-1", Event::Settled { job: job() });
    let twice = vec![submit(10, Spec::default()), settled(), settled(), refused(12, "Draining")];
    assert_eq!(found(twice), [Broken::OutcomeTwice]);
}

#[test]
fn a_missing_outcome_is_found_unless_its_sender_was_killed() {
    assert_eq!(found(vec![submit(10, Spec::default())]), [Broken::NoOutcome]);
    let ended = |event| line(500, "s-1", event);
    assert_eq!(found(vec![submit(10, Spec::default()), ended(Event::Killed)]), []);
    assert_eq!(found(vec![submit(10, Spec::default()), ended(Event::Ended)]), [Broken::NoOutcome]);
    // It lived for long enough.
    let killed = line(2000, "s-1", Event::Killed);
    assert_eq!(found(vec![submit(10, within(900)), killed]), [Broken::NoOutcome]);
}

#[test]
fn a_late_outcome_is_found_unless_its_sender_stood_still() {
    let late = || vec![submit(10, within(100)), refused(3000, "Expired")];
    assert_eq!(found(late()), [Broken::OutcomeLate(Duration::from_millis(2890))]);
    let pause =
        |from, to| [line(from, "s-1", Event::Stopped), line(to, "s-1", Event::Continued)].to_vec();
    assert_eq!(found([late(), pause(50, 2500)].concat()), []);
    assert_eq!(found([late(), pause(50, 1500)].concat()).len(), 1);
    let machine = line(2200, crate::chaos::EVERYBODY, Event::Late { from_us: 1_000_000 });
    assert_eq!(found([late(), vec![machine]].concat()), []);
}

#[test]
fn a_refused_job_that_ran_is_found_whenever_it_ran() {
    for started_at in [11, 40] {
        let lines =
            vec![submit(10, idempotent()), start(started_at, "w-1"), refused(20, "Draining")];
        assert_eq!(found(lines), [Broken::RefusedAndRan]);
    }
}

#[test]
fn a_second_run_is_found_unless_it_is_allowed() {
    let twice = |spec| {
        let ran = vec![start(11, "w-2"), sent(12, "w-1"), start(13, "w-1"), end(14, "w-1")];
        [vec![submit(10, spec)], ran, vec![done(15)]].concat()
    };
    assert_eq!(found(twice(Spec::default())), [Broken::RanTwice(2)]);
    assert_eq!(found(twice(idempotent())), []);
}

#[test]
fn an_unknown_that_nothing_explains_is_found() {
    let lost = |cause| vec![submit(10, Spec::default()), sent(3000, "w-1"), unknown(4000, cause)];
    let unexplained = |cause: &str| vec![Broken::UnknownUnexplained(cause.to_owned())];
    for cause in ["PeerEnded", "PeerSilent", "Drain", "Forgotten", "Deadline", "Stopped"] {
        assert_eq!(found(lost(cause)), unexplained(cause));
        // What happens to another one, afterwards, or had been over for long, explains nothing.
        let elsewhere = line(3500, "w-2", Event::Killed);
        let later = line(4500, "w-1", Event::Killed);
        let before = vec![line(5, "w-1", Event::Killed), line(600, "w-1", Event::Started)];
        for other in [vec![elsewhere], vec![later], before] {
            assert_eq!(found([lost(cause), other].concat()), unexplained(cause));
        }
    }
    for event in [Event::Killed, Event::Stopped, Event::Asked] {
        let happened = line(3500, "w-1", event);
        assert_eq!(found([lost("PeerEnded"), vec![happened]].concat()), []);
    }
    let asked = line(3900, "s-1", Event::Asked);
    assert_eq!(found([lost("Stopped"), vec![asked]].concat()), []);
}

#[test]
fn a_sender_that_stood_still_could_not_know_who_had_ended() {
    let killed = [line(500, "w-1", Event::Killed), line(600, "w-1", Event::Started)].to_vec();
    let lost =
        [submit(10, Spec::default()), sent(5000, "w-1"), unknown(6000, "PeerEnded")].to_vec();
    assert_eq!(found([killed.clone(), lost.clone()].concat()).len(), 1);
    let pause = [line(400, "s-1", Event::Stopped), line(4900, "s-1", Event::Continued)].to_vec();
    assert_eq!(found([killed, lost, pause].concat()), []);
}

#[test]
fn a_deadline_explains_an_unknown_only_when_it_is_over_and_the_job_was_sent() {
    let lost = |at| vec![submit(10, within(500)), sent(11, "w-1"), unknown(at, "Deadline")];
    assert_eq!(found(lost(510)), []);
    assert_eq!(found(lost(500)).len(), 1);
    assert_eq!(found(vec![submit(10, within(500)), unknown(510, "Deadline")]).len(), 1);
}

#[test]
fn a_refusal_that_cannot_be_is_found() {
    for reason in ["Cancelled", "Expired", "NoCredit", "NotHere", "NoSuchService"] {
        let lines = vec![submit(10, Spec::default()), refused(11, reason)];
        assert_eq!(found(lines), [Broken::RefusedUnexplained(reason.to_owned())]);
    }
    let cancel = line(11, "s-1", Event::Cancel { job: job() });
    assert_eq!(found(vec![submit(10, Spec::default()), cancel, refused(12, "Cancelled")]), []);
}

#[test]
fn a_result_that_nobody_has_computed_is_found() {
    let lines = |ran: Vec<Line>| [vec![submit(10, Spec::default())], ran, vec![done(20)]].concat();
    assert_eq!(found(lines(vec![start(11, "w-1")])), [Broken::DoneAndNotRun]);
    assert_eq!(found(lines(vec![start(11, "w-2"), end(12, "w-2")])), [Broken::DoneAndNotRun]);
    assert_eq!(found(lines(vec![start(11, "w-1"), end(21, "w-1")])), [Broken::DoneAndNotRun]);
    let unfinished = line(12, "w-1", Event::End { job: job(), is_done: false });
    assert_eq!(found(lines(vec![start(11, "w-1"), unfinished])), [Broken::DoneAndNotRun]);
}

#[test]
fn a_result_of_another_job_is_found() {
    let told = told(11, Told::Mistaken { by: "w-1".to_owned() });
    assert_eq!(found(vec![submit(10, Spec::default()), told]), [Broken::Mistaken]);
}

#[test]
fn work_for_a_dead_sender_is_found_unless_it_is_detached_or_its_worker_stood_still() {
    let late = |spec| vec![submit(10, spec), line(20, "s-1", Event::Killed), start(4000, "w-1")];
    let for_nobody = vec![Broken::ForNobody(Duration::from_millis(3980))];
    assert_eq!(found(late(Spec::default())), for_nobody);
    assert_eq!(found(late(Spec { detached: true, ..Spec::default() })), []);
    let pause = |to| [line(15, "w-1", Event::Stopped), line(to, "w-1", Event::Continued)].to_vec();
    assert_eq!(found([late(Spec::default()), pause(3500)].concat()), []);
    assert_eq!(found([late(Spec::default()), pause(500)].concat()), for_nobody);
    let soon =
        vec![submit(10, Spec::default()), line(20, "s-1", Event::Killed), start(2000, "w-1")];
    assert_eq!(found(soon), []);
}

#[test]
fn a_job_from_nowhere_is_found() {
    assert_eq!(found(vec![start(10, "w-1")]), [Broken::FromNowhere]);
}

#[test]
fn a_story_has_the_job_and_what_happened_to_who_had_it() {
    let lines = vec![
        submit(10, Spec::default()),
        sent(11, "w-1"),
        line(12, "w-2", Event::Killed),
        line(13, "w-1", Event::Killed),
        unknown(14, "PeerEnded"),
    ];
    let text = story(&lines, &job());
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("w-1.1  Killed") && !text.contains("w-2"), "{text}");
}
