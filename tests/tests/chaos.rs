//! A minute of chaos: half of it with one mapper, half with two. `svcmap-chaos --seconds N` goes on
//! for as long as wanted.

use std::process::Command;

use svcmap_tests::children_of;

/// Seeds are numbered here, so that what fails can be done again.
fn chaos(flags: &[&str]) {
    let child = Command::new(env!("CARGO_BIN_EXE_svcmap-chaos"))
        .args(["--seconds", "30"])
        .args(flags)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert_eq!(children_of(pid), [0_u32; 0]);
    // It would find nothing where nothing happens.
    let before = |what: &str| -> usize {
        let words: Vec<&str> = said.split([' ', '(']).collect();
        let at = words.iter().position(|word| word.trim_end_matches(',') == what).expect(what);
        words[at - 1].parse().unwrap()
    };
    assert!(before("faults") > 30 && before("jobs") > 1000, "{said}");
    assert!(before("done") > 500 && before("refused") > 0 && before("unknown") > 0, "{said}");
}

#[test]
fn promises_are_kept_whatever_happens_with_one_mapper() {
    chaos(&["--mappers", "1", "--seed", "1"]);
}

#[test]
fn promises_are_kept_whatever_happens_with_two_mappers() {
    chaos(&["--mappers", "2", "--seed", "2"]);
}
