//! Values as people read them: text from elsewhere, times, figures.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Text from elsewhere, as it may be shown on a terminal: what would command the terminal (control
/// characters) or turn the text around (marks of writing direction) is escaped, so that it can be
/// seen. Line ends and tabs stay.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    push_printable(&mut shown, text);
    shown
}

/// The same for bytes; those that are no UTF-8 are shown as `\xff`.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        push_printable(&mut shown, chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// A path as one line.
pub fn printable_path(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes()).replace('\n', "\\n")
}

/// The same as one line.
pub fn printable_line(text: &str) -> String {
    printable(text.trim_end()).replace('\n', "\\n")
}

/// Whether all of it is shown as it is.
pub fn is_printable(text: &str) -> bool {
    printable(text) == text
}

fn push_printable(shown: &mut String, text: &str) {
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            // The line ends of some systems and protocols.
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\t' => shown.push(char),
            _ if char.is_control() || is_direction(char) => shown.extend(char.escape_default()),
            _ => shown.push(char),
        }
    }
}

/// Marks that change the order in which characters are shown, and line ends that are none of ours:
/// `Bidi_Control` of Unicode, and U+2028 and U+2029.
fn is_direction(char: char) -> bool {
    matches!(char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time in its best unit, with two or three digits: `380us`, `38ms`, `1.2s`, `3s`, `41s`, `5m`,
/// `3h`.
pub fn time(time: Duration) -> String {
    time_ms(time.as_secs_f64() * 1e3)
}

/// The same for milliseconds.
pub fn time_ms(ms: f64) -> String {
    match ms {
        0.0 => "0s".to_owned(),
        ms if ms < 0.9995 => format!("{:.0}us", ms * 1e3),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        ms if ms < 9_950.0 => {
            let seconds = format!("{:.1}", ms / 1e3);
            format!("{}s", seconds.strip_suffix(".0").unwrap_or(&seconds))
        }
        ms if ms < 119_500.0 => format!("{:.0}s", ms / 1e3),
        ms if ms < 7_170_000.0 => format!("{:.0}m", ms / 6e4),
        ms => format!("{:.0}h", ms / 3.6e6),
    }
}

/// A measured figure with the digits that mean something: `0`, `1.4e-5`, `0.9988`, `3.07`, `20.8`,
/// `1440`.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.001 => format!("{value:.1e}").replace(".0e", "e"),
        size if size < 0.99995 => format!("{value:.4}"),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// So many in a second, for people: `3.0/h`, `2.9/min`, `0.17/s`, `7.5/s`, `36/s`, `1440/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rare if rare * 60.0 < 0.95 => format!("{:.1}/h", rare * 3600.0),
        few if few < 0.095 => format!("{:.1}/min", few * 60.0),
        few if few < 0.995 => format!("{few:.2}/s"),
        some if some < 9.95 => format!("{some:.1}/s"),
        many => format!("{many:.0}/s"),
    }
}

/// A figure that changes while it is looked at, in at most five characters: `0`, `0.25`, `4.1`, `310`,
/// `1.1k`, `22.0k`, `9.9M`.
pub fn compact(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        small if small < 0.995 => format!("{small:.2}"),
        some if some < 9.95 => format!("{some:.1}"),
        many if many < 999.5 => format!("{many:.0}"),
        thousands if thousands < 99_950.0 => format!("{:.1}k", thousands / 1e3),
        thousands if thousands < 999_500.0 => format!("{:.0}k", thousands / 1e3),
        millions if millions < 99.95e6 => format!("{:.1}M", millions / 1e6),
        more => format!("{:.0}M", more / 1e6),
    }
}

/// Most names of a list in one sentence.
const NAMES_MAX: usize = 10;

/// `a, b, c and 7 more`.
pub fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `1 service`, `4 services`.
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The share below which something lies (95 %) that was seen `count` times in `of` tries, if that
/// is never: the rule of three (Hanley and Lippman-Hand, JAMA 249(13), 1983).
pub fn below(count: u64, of: u64) -> Option<f64> {
    (count == 0 && of > 0).then(|| (3.0 / of as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_and_not_done() {
        assert_eq!(
            printable("\u{1b}[31mred\u{7}\u{9b}0m\u{7f}"),
            r"\u{1b}[31mred\u{7}\u{9b}0m\u{7f}"
        );
        assert_eq!(
            printable("gnp.\u{202e}txt\u{2066}\u{2029}"),
            r"gnp.\u{202e}txt\u{2066}\u{2029}"
        );
        assert_eq!(printable("over\rwritten\r\nnext\tä €\n"), "over\\rwritten\nnext\tä €\n");
        assert_eq!(printable_bytes(b"a\xff\x1bb\x9b"), r"a\xff\u{1b}b\x9b");
        assert_eq!(printable_line("one\ntwo\n"), r"one\ntwo");
        assert!(is_printable("plain\n") && !is_printable("\u{1b}"));
    }

    #[test]
    fn times_have_two_or_three_digits() {
        let us = |us| time(Duration::from_micros(us));
        for (time_us, shown) in [
            (0, "0s"),
            (380, "380us"),
            (999_600, "1s"),
            (38_400, "38ms"),
            (989_101, "989ms"),
            (1_234_000, "1.2s"),
            (3_000_000, "3s"),
            (9_960_000, "10s"),
            (41_000_000, "41s"),
            (300_000_000, "5m"),
            (10_800_000_000, "3h"),
        ] {
            assert_eq!(us(time_us), shown);
        }
    }

    #[test]
    fn rates_have_two_digits_or_are_whole() {
        let shown = [0.166_666, 0.999, 7.52, 9.96, 35.978_2, 1440.1].map(rate);
        assert_eq!(shown, ["0.17/s", "1.0/s", "7.5/s", "10/s", "36/s", "1440/s"]);
        assert_eq!([0.05, 0.01, 8.3e-4].map(rate), ["3.0/min", "36.0/h", "3.0/h"]);
    }

    #[test]
    fn figures_that_change_keep_their_place() {
        let values = [0.0, 0.251, 4.13, 99.9, 310.4, 1_149.0, 22_000.0, 412_000.0, 9.91e6];
        let shown = values.map(compact);
        assert_eq!(shown, ["0", "0.25", "4.1", "100", "310", "1.1k", "22.0k", "412k", "9.9M"]);
    }

    #[test]
    fn figures_have_the_digits_that_mean_something() {
        let values = [0.0, 1e-5, 1.4e-5, 0.001_639, 0.998_812, 0.999_96, 1.239_259, 20.77, 1440.1];
        let shown = values.map(figure);
        assert_eq!(
            shown,
            ["0", "1e-5", "1.4e-5", "0.0016", "0.9988", "1.00", "1.24", "20.8", "1440"]
        );
        assert_eq!(below(0, 86_406).map(figure).as_deref(), Some("3.5e-5"));
        assert_eq!((below(1, 10), below(0, 0), below(0, 1)), (None, None, Some(1.0)));
    }
}
