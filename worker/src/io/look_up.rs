//! Look-ups of names, which may take seconds: each in a thread of its own, one at a time.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::Builder;

use svcmap_proto::io::{self, Waker};
use svcmap_proto::names::Endpoint;

/// The addresses of a name, or in the system's words why there are none.
type Answer = Result<Vec<Endpoint>, String>;

/// See the module.
pub(super) struct LookUp {
    waker: Waker,
    /// From whom the answer comes, while a name is being looked up.
    answers: Option<Receiver<Answer>>,
}

impl LookUp {
    /// None yet: there is no thread before there is a name.
    pub(super) fn new(waker: Waker) -> Self {
        Self { waker, answers: None }
    }

    /// Looks that up, in place of what was looked up before.
    pub(super) fn start(&mut self, name: Endpoint) {
        let (tell, answers) = sync_channel(1);
        self.answers = Some(answers);
        let (waker, teller) = (self.waker.clone(), tell.clone());
        let look_up = move || {
            // Who asked may have gone.
            let _ = teller.send(io::look_up(&name));
            waker.wake();
        };
        if let Err(error) = Builder::new().name("svcmap-names".to_owned()).spawn(look_up) {
            let _ = tell.send(Err(format!("no thread: {error}")));
            self.waker.wake();
        }
    }

    /// The answer, once it is there.
    pub(super) fn take(&mut self) -> Option<Answer> {
        let answer = match self.answers.as_ref()?.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return None,
            // It is asked again after a while.
            Err(TryRecvError::Disconnected) => Err("the look-up broke off".to_owned()),
        };
        self.answers = None;
        Some(answer)
    }
}
