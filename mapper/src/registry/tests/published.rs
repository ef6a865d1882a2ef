//! What is published, and when.

use super::*;

#[test]
fn crossings_are_published_at_once_and_old_loads_never() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.run_until(ms(99));
    let published = |registry: &mut Registry, end| {
        let outputs = registry.run_until(ms(end));
        outputs.iter().find_map(|(at, output)| match output.publication() {
            Some(Publication::Changes(_)) => Some(at.as_micros() / 1000),
            _ => None,
        })
    };
    registry.say_report(ms(200), "w", "s/a", 5, load(2, 1));
    assert_eq!(published(&mut registry, 210), Some(205), "idle no more");
    registry.say_report(ms(210), "w", "s/a", 5, load(3, 2));
    registry.say_report(ms(220), "w", "s/a", 5, load(2, 8));
    assert_eq!(published(&mut registry, 400), Some(305), "an ordinary change waits");
    let draining = Load { state: svcmap_proto::load::State::Draining, ..load(4, 2) };
    registry.say_report(ms(310), "w", "s/a", 5, draining);
    assert_eq!(published(&mut registry, 400), Some(315));
}

#[test]
fn ordinary_changes_are_published_once_in_the_mean_service_time() {
    let mut registry = registry();
    let with_mean = |sequence, ms: u64| Load { mean_service_us: ms * 1000, ..load(sequence, 1) };
    let loads = [("s/a", with_mean(2, 20)), ("s/b", with_mean(2, 40)), ("s/new", with_mean(2, 0))];
    for (text, load) in loads {
        registry.say_register(ms(1100), "w", text, 5);
        registry.say_report(ms(1100), "w", text, 5, load);
    }
    assert_eq!(registry.changes_until(ms(1105)).len(), 3);
    registry.say_report(ms(1106), "w", "s/a", 5, with_mean(3, 20));
    assert_eq!(registry.changes_until(ms(1134)), []);
    // That of the new one is not known and does not count.
    registry.say_report(ms(1134), "w", "s/b", 5, Load { mean_service_us: u64::MAX, ..load(3, 1) });
    assert_eq!(registry.changes_until(ms(1135)).len(), 2);
    // One that claims an age counts as a second: the mean of 20 ms and that.
    registry.say_report(ms(1140), "w", "s/a", 5, with_mean(4, 20));
    assert_eq!(registry.changes_until(ms(1135 + 509)), []);
    assert_eq!(registry.changes_until(ms(1135 + 510)).len(), 1);
}

#[test]
fn the_pulse_comes_every_beat_and_counts_instances() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 1);
    let pulses: Vec<_> = registry
        .run_until(ms(3500))
        .into_iter()
        .filter_map(|(at, output)| {
            let Some(Publication::Pulse { epoch, instances }) = output.publication() else {
                return None;
            };
            let Output::Publish { topic, .. } = output else { return None };
            assert_eq!((topic.as_slice(), epoch), (PULSE_TOPIC, Epoch(7)));
            Some((at.as_micros() / 1000, instances))
        })
        .collect();
    assert_eq!(pulses, [(0, 1), (1000, 1), (2000, 1), (3000, 0)]);
}

#[test]
fn a_large_service_is_published_in_parts_that_fit() {
    let mut registry = registry();
    for number in 0..1000 {
        let from = number.to_string();
        registry.say_register(ms(0), &from, &format!("s/{number:04}-{}", "x".repeat(50)), 1);
    }
    let outputs = registry.run_until(ms(10));
    let (mut changes, mut entries) = (Vec::new(), Vec::new());
    for (_, output) in outputs {
        let Some(message) = output.publication() else { continue };
        let Output::Publish { topic: to, frame } = output else { continue };
        assert!(frame.len() < limits::CONTROL_BYTES_MAX);
        match message {
            Publication::Changes(part) => {
                assert_eq!(to, topic(&"s".parse().unwrap()));
                assert_eq!((part.previous, part.revision), (1, 2));
                changes.push((part.part, part.parts, part.changes.len()));
            }
            Publication::Snapshot(part) => {
                entries.push((part.part, part.parts, part.entries.len()));
            }
            Publication::Pulse { .. } => {}
        }
    }
    for parts in [changes, entries] {
        let count = u16::try_from(parts.len()).unwrap();
        assert!(count > 1);
        assert!(parts.iter().zip(0..).all(|(part, number)| (part.0, part.1) == (number, count)));
        assert_eq!(parts.iter().map(|part| part.2).sum::<usize>(), 1000);
    }
}
