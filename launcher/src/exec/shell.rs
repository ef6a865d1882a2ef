//! What only a shell understands. No shell runs, so a program would get it as an argument and each
//! job would fail, or worse, seem to go well: it is refused when the worker starts.

/// The first thing in a command that a shell would act on, beyond splitting it into words; what is
/// quoted is meant as it is. Patterns such as `*.jpg` and names such as `$HOME` are left alone: there
/// are programs that take them.
pub fn first_operator(command: &str) -> Option<String> {
    let mut rest = command.char_indices().peekable();
    let mut is_word_start = true;
    while let Some((at, char)) = rest.next() {
        match char {
            '\\' => {
                rest.next();
            }
            '\'' => while rest.next().is_some_and(|(_, char)| char != '\'') {},
            '"' => {
                while let Some((_, char)) = rest.next().filter(|(_, char)| *char != '"') {
                    if char == '\\' {
                        rest.next();
                    }
                }
            }
            // A comment, as the words are split.
            '#' if is_word_start => while rest.next_if(|(_, char)| *char != '\n').is_some() {},
            '|' | '&' | ';' | '<' | '>' => {
                let all = command[at..].chars().take_while(|char| "|&;<>".contains(*char));
                return Some(all.collect());
            }
            '`' => return Some("`".to_owned()),
            '$' if rest.peek().is_some_and(|(_, next)| *next == '(') => {
                return Some("$(".to_owned());
            }
            _ => {}
        }
        is_word_start = char.is_ascii_whitespace();
    }
    None
}

/// What to write for the same command in a shell, behind that flag.
pub fn in_shell(flag: &str, command: &str) -> String {
    if command.contains(['"', '\\', '\'', '\n']) {
        format!("{flag} {}", quoted(command))
    } else {
        format!("{flag} 'sh -c \"{command}\"'")
    }
}

/// `sh -c` and the command, for two rounds of splitting into words.
fn quoted(command: &str) -> String {
    // No shell takes a NUL, which is all that cannot be quoted.
    let once = |text: &str| shlex::try_quote(text).map_or_else(|_| "…".into(), String::from);
    once(&format!("sh -c {}", once(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_act_on_is_found() {
        for (command, operator) in [
            ("a | b", "|"),
            ("a|b", "|"),
            ("a && b", "&&"),
            ("a || b", "||"),
            ("a; b", ";"),
            ("a &", "&"),
            ("a >out", ">"),
            ("a 2>&1", ">&"),
            ("a >> out", ">>"),
            ("a < in", "<"),
            ("a $(b)", "$("),
            ("a `b`", "`"),
            ("a 'b' | c", "|"),
            (r#"a "b\"" | c"#, "|"),
            (r"a \\| b", "|"),
            ("a # b\n| c", "|"),
        ] {
            assert_eq!(first_operator(command).as_deref(), Some(operator), "{command}");
        }
    }

    #[test]
    fn what_is_quoted_or_means_nothing_to_a_shell_is_not() {
        for command in [
            "convert - -resize 50% -",
            r#"sh -c "a | b > c; d && e $(f) $HOME""#,
            "sh -c 'a | b'",
            r"a \| b \$HOME \`",
            "awk '{print $1}'",
            "echo $HOME ${HOME}",
            "grep end$",
            "grep $",
            "jq .a[0]",
            "find . -name *.jpg",
            "a b#c # d | e",
            "ä 'ö | ü' ß",
        ] {
            assert_eq!(first_operator(command), None, "{command}");
        }
    }

    #[test]
    fn the_remedy_runs_the_same_command() {
        assert_eq!(in_shell("--exec", "a | b"), r#"--exec 'sh -c "a | b"'"#);
        for command in ["a | b", r#"a "b" | c"#, "a 'b' | c", r"a \| b | c"] {
            let typed = shlex::split(&in_shell("--exec", command)).unwrap();
            let argv = shlex::split(&typed[1]).unwrap();
            assert_eq!(
                (argv.as_slice(), typed.len()),
                (&["sh", "-c", command].map(str::to_owned)[..], 2)
            );
            assert_eq!(first_operator(&typed[1]), None);
        }
    }
}
