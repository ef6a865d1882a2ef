//! What a handler makes of a job: a result, or an error.

use std::any::Any;
use std::error::Error;
use std::fmt;

use bytes::Bytes;

use crate::payload::IntoPayload;
use crate::value::ValueError;

type Boxed = Box<dyn Error + Send + Sync>;

/// A handler's error, as its sender will read it.
///
/// A handler may return any error that can be shown; this one can say more than a text. Made by `?` from
/// text and from common errors, and from any other by [`HandlerError::new`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct HandlerError {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
    pub(crate) was_started: bool,
}

impl HandlerError {
    /// An error with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        // Those of anyhow tell what led to them then.
        Self { text: format!("{text:#}"), code: None, was_started: true }
    }

    /// Nothing of the job has run, and it is tried at another instance: what would run it is missing or
    /// busy, such as a program or a device. This instance's log and `svcmap status` show the text. If
    /// no instance takes it, it is refused.
    pub fn reject(text: impl fmt::Display) -> Self {
        Self { was_started: false, ..Self::new(text) }
    }

    /// The same with a number for programs to go by, such as an exit status: its sender reads it in
    /// [`Failure::code`](crate::Failure::code).
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The number, if it has one.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// The error that a handler returned. One that is a `HandlerError`, also in a box, says all that it
    /// knows.
    pub(crate) fn of<E: fmt::Display + 'static>(error: E) -> Self {
        let mut error = Some(error);
        let any: &mut dyn Any = &mut error;
        if let Some(Some(known)) = any.downcast_mut::<Option<Self>>().map(Option::take) {
            return known;
        }
        if let Some(Some(boxed)) = any.downcast_mut::<Option<Boxed>>().map(Option::take) {
            return boxed.into();
        }
        if let Some(Some(boxed)) = any.downcast_mut::<Option<Box<dyn Error>>>().map(Option::take) {
            return boxed.downcast::<Self>().map_or_else(Self::new, |known| *known);
        }
        error.map_or_else(|| Self::new("no message"), Self::new)
    }
}

impl From<Boxed> for HandlerError {
    fn from(error: Boxed) -> Self {
        error.downcast::<Self>().map_or_else(Self::new, |known| *known)
    }
}

macro_rules! shown {
    ($($error:ty),*) => {$(
        impl From<$error> for HandlerError {
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        }
    )*};
}

shown!(
    &str,
    String,
    std::io::Error,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    ValueError,
    crate::NotDone,
    crate::SubmitError
);

/// What a handler may return: a payload, or a `Result` with one, whose error is anything that can be shown
/// (a text, any [`Error`], a box of one, `anyhow::Error`). [`HandlerError`] says more than a text, on
/// its own and in a box, but not inside an `anyhow::Error`.
pub trait IntoAnswer {
    /// The result of the job, or why it has none.
    ///
    /// # Errors
    /// If the handler returned one.
    fn into_answer(self) -> Result<Bytes, HandlerError>;
}

impl<T: IntoPayload> IntoAnswer for T {
    fn into_answer(self) -> Result<Bytes, HandlerError> {
        Ok(self.into_payload())
    }
}

impl<T: IntoPayload, E: fmt::Display + 'static> IntoAnswer for Result<T, E> {
    fn into_answer(self) -> Result<Bytes, HandlerError> {
        self.map(IntoPayload::into_payload).map_err(HandlerError::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<E: fmt::Display + 'static>(error: E) -> HandlerError {
        Err::<(), E>(error).into_answer().unwrap_err()
    }

    #[test]
    fn an_error_of_any_kind_is_its_text() {
        let full = || std::io::Error::other("disk full");
        let boxed = Boxed::from(full());
        let texts =
            [error("disk full"), error("disk full".to_owned()), error(full()), error(boxed)];
        assert_eq!(texts, [(); 4].map(|()| HandlerError::new("disk full")));
        let chain = anyhow::Error::new(full()).context("a.jpg");
        assert_eq!(error(chain), HandlerError::new("a.jpg: disk full"));
    }

    #[test]
    fn what_a_handler_error_says_beside_its_text_is_kept() {
        let rejected = HandlerError::reject("no device").with_code(3);
        assert_eq!(error(rejected.clone()), rejected);
        assert_eq!(error(Boxed::from(rejected.clone())), rejected);
        assert_eq!(error::<Box<dyn Error>>(rejected.clone().into()), rejected);
        let known = |error: Boxed| -> Result<(), HandlerError> { Err(error)? };
        assert_eq!(known(rejected.clone().into()), Err(rejected));
    }

    #[test]
    fn payloads_are_answers() {
        assert_eq!("text".into_answer(), Ok(Bytes::from_static(b"text")));
        assert_eq!(Ok::<_, String>(vec![1]).into_answer(), Ok(Bytes::from_static(&[1])));
        assert_eq!(().into_answer(), Ok(Bytes::new()));
    }
}
