//! What `svcmap completions` and `svcmap man` make: of every command, and of nothing that is hidden.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use svcmap::cli::shown;
use svcmap_tests::batch::{code, text};
use svcmap_tests::executable;

/// What no page and no script may mention.
const HIDDEN: &[&str] = &["exec-child", "soak-sender", "supervised", "incarnation", "open-files"];

fn run(args: &[&str]) -> String {
    let output = Command::new(executable()).args(args).output().unwrap();
    assert_eq!(code(&output), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn commands() -> Vec<String> {
    shown().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

fn assert_hides(what: &str, page: &str) {
    for hidden in HIDDEN {
        assert!(
            !page.contains(hidden) && !page.contains(&hidden.replace('-', "\\-")),
            "{what}: {hidden}"
        );
    }
    assert!(!page.contains('\u{1b}'), "{what}: an escape code");
}

#[test]
fn the_scripts_of_all_shells_know_every_command_and_nothing_hidden() {
    assert!(commands().len() > 20);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        assert!(script.contains("payload-max"), "{shell}");
        assert_hides(shell, &script);
    }
}

/// What bash would offer for the last of these words.
fn offered(script: &str, words: &[&str]) -> BTreeSet<String> {
    let ask = r#"
        source "$0" || exit 1
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p svcmap | sed 's/.* -F \([^ ]*\) .*/\1/')
        previous=${COMP_WORDS[$((COMP_CWORD - 1))]}
        "$function" svcmap "${COMP_WORDS[$COMP_CWORD]}" "$previous"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let asked = Command::new("bash").args(["-c", ask, script]).args(words).output().unwrap();
    assert_eq!(code(&asked), Some(0), "{}", text(&asked.stderr));
    text(&asked.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("svcmap").display().to_string();
    fs::write(&path, run(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").args(["-n", &path]).output().unwrap();
    assert_eq!(code(&checked), Some(0), "{}", text(&checked.stderr));
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(offered(&path, &["svcmap", "sta"]), set(&["start", "status"]));
    assert_eq!(offered(&path, &["svcmap", "worker", "--exec"]), set(&["--exec", "--exec-loop"]));
    let kinds = set(&["echo", "sleep", "spin"]);
    assert_eq!(offered(&path, &["svcmap", "worker", "--builtin", ""]), kinds);
    assert_eq!(offered(&path, &["svcmap", "key", "rev"]), set(&["revoke"]));
}

#[test]
fn there_is_a_page_for_every_command_that_says_what_its_help_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("man1");
    run(&["man", "--output", &folder.display().to_string()]);
    let page = |name: &str| fs::read_to_string(folder.join(format!("{name}.1"))).expect(name);
    let main = page("svcmap");
    assert_eq!(main, run(&["man"]));
    for command in commands() {
        let page = page(&format!("svcmap-{command}"));
        assert_hides(&command, &page);
        assert!(main.contains(&format!("svcmap\\-{command}(1)")), "{command} in {main}");
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH \"SEE ALSO\""), "{page}");
    }
    let worker = page("svcmap-worker");
    // An example in a line of its own, and a flag with its default.
    assert!(
        worker.contains("\n  svcmap worker \\-\\-service sum \\-\\-exec sha256sum\n"),
        "{worker}"
    );
    assert!(worker.contains("\\-\\-kill\\-after") && worker.contains("[default: 2s]"), "{worker}");
    assert!(page("svcmap-key-add").contains("\\-\\-role"));
    // One of each, and those of `svcmap key`.
    let pages = fs::read_dir(&folder).unwrap().count();
    assert_eq!(pages, 1 + commands().len() + 4);
}
