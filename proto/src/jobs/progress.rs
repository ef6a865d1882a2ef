//! What a job that runs says of how far it is.

use serde::{Deserialize, Deserializer, Serialize};

use super::AttemptId;
use crate::limits::PROGRESS_BYTES_MAX;

/// How far an attempt is, in the words of its handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Which attempt of which job.
    pub attempt: AttemptId,
    /// A short text for people, of at most [`PROGRESS_BYTES_MAX`].
    #[serde(deserialize_with = "bounded_text")]
    pub text: String,
}

/// The text without what is beyond [`PROGRESS_BYTES_MAX`], cut where a character ends.
pub fn cut_progress(mut text: String) -> String {
    let mut end = text.len().min(PROGRESS_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn bounded_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > PROGRESS_BYTES_MAX {
        return Err(serde::de::Error::custom("text too long"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        let long = |text: &str| cut_progress(text.repeat(PROGRESS_BYTES_MAX));
        assert_eq!(long("x"), "x".repeat(PROGRESS_BYTES_MAX));
        // Of three bytes each, of which 256 hold 85 and one more.
        assert_eq!(long("€"), "€".repeat(PROGRESS_BYTES_MAX / 3));
        assert_eq!(cut_progress("40 %".to_owned()), "40 %");
        assert_eq!(cut_progress(String::new()), "");
    }
}
