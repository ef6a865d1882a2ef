//! The shapes that a handler may have.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::Job;
use super::responder::Responder;
use crate::answer::{HandlerError, IntoAnswer};
use crate::value::{from_json, to_json};

/// What runs jobs on one thread, one after the other.
pub(super) type Run = dyn FnMut(&Job) -> Result<Bytes, HandlerError>;

/// What user code is called as.
pub(super) enum Handler {
    /// Jobs are done on the threads that take them, as many as run at once. Makes what one of them calls.
    Now(Box<dyn Fn() -> Box<Run> + Send + Sync>),
    /// One thread takes the jobs, and they are answered from anywhere.
    Later(Box<dyn Fn(Job, Responder) + Send + Sync>),
}

impl Handler {
    /// How many threads it takes.
    pub(super) fn threads(&self, concurrency: u32) -> u32 {
        match self {
            Self::Now(_) => concurrency,
            Self::Later(_) => 1,
        }
    }
}

/// Without a state, all threads call the same function.
pub(super) fn plain<A: IntoAnswer>(handler: impl Fn(&Job) -> A + Send + Sync + 'static) -> Handler {
    with_state(|| (), move |(), job| handler(job))
}

pub(super) fn json<Request, Response, E>(
    handler: impl Fn(Request) -> Result<Response, E> + Send + Sync + 'static,
) -> Handler
where
    Request: DeserializeOwned,
    Response: Serialize,
    E: fmt::Display + 'static,
{
    plain(move |job: &Job| -> Result<Bytes, HandlerError> {
        let response = handler(from_json(job.payload())?).map_err(HandlerError::of)?;
        Ok(to_json(&response)?)
    })
}

/// Each thread has a state of its own, made when it starts, and made again after a panic.
pub(super) fn with_state<S: 'static, A: IntoAnswer>(
    make: impl Fn() -> S + Send + Sync + 'static,
    handler: impl Fn(&mut S, &Job) -> A + Send + Sync + 'static,
) -> Handler {
    let (make, handler) = (std::sync::Arc::new(make), std::sync::Arc::new(handler));
    Handler::Now(Box::new(move || {
        let (make, handler) = (make.clone(), handler.clone());
        let mut kept = caught(&*make).ok();
        Box::new(move |job| {
            let made = kept.take().map_or_else(|| caught(&*make), Ok);
            let mut state = made.map_err(|why| {
                HandlerError::reject(format!("what the handler needs could not be made: {why}"))
            })?;
            let answer = handler(&mut state, job).into_answer();
            kept = Some(state);
            answer
        })
    }))
}

/// What user code returns, or why it panicked.
pub(super) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
