//! Reads inputs ahead of the jobs, on a thread of its own: a pipe may be slow, and signals and
//! outcomes do not wait for it. What need not be sent is found here, before it is read.

use bytes::Bytes;
use crossbeam_channel::{Receiver, SendError, Sender, bounded};

use super::input::{Input, InputError, Inputs, Name};
use super::joblog::{Past, Verdict};
use super::output::{Output, Outputs};
use super::record::{Trouble, Word};
use crate::errors::Failure;

/// Payloads that are read ahead, in bytes: some jobs of the largest size that is allowed by default.
const AHEAD_BYTES: usize = 32 * 1024 * 1024;

/// Most inputs that are read ahead.
const AHEAD_MAX: usize = 256;

/// A job that is to be sent.
#[derive(Debug)]
pub struct Job {
    /// Its number, from 1.
    pub number: u64,
    /// What its input is called.
    pub name: Name,
    /// What its handler gets.
    pub payload: Bytes,
    /// The file that its result goes to.
    pub output: Option<Output>,
}

/// What comes of an input.
#[derive(Debug)]
pub enum Item {
    /// A job.
    Job(Job),
    /// A job that cannot be sent, and why.
    NotSent(u64, Name, Trouble),
    /// A job that has ended so, as the joblog says.
    Ended(Word),
    /// Nothing more.
    Failed(Failure),
}

/// What there is to read.
pub struct Reader {
    /// From where.
    pub inputs: Inputs,
    /// How often each is sent.
    pub count: u32,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// What the joblog says.
    pub past: Past,
    /// Where results go.
    pub outputs: Option<Outputs>,
}

impl Reader {
    /// Begins to read. The channel ends with the inputs; who drops it ends the reading.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self) -> std::io::Result<Receiver<Item>> {
        let (items, receiver) = bounded((AHEAD_BYTES / self.payload_bytes_max).clamp(1, AHEAD_MAX));
        let thread = std::thread::Builder::new().name("inputs".to_owned());
        thread.spawn(move || {
            // Nobody may want more.
            let _ = self.run(&items);
        })?;
        Ok(receiver)
    }

    fn run(mut self, items: &Sender<Item>) -> Result<(), SendError<Item>> {
        let mut number = 0;
        while let Some(input) = self.inputs.next() {
            let mut input = match input {
                Ok(input) => Unread::new(input, self.payload_bytes_max),
                Err(error) => {
                    let failure = Failure::failed(format!("the list cannot be read: {error}"));
                    return items.send(Item::Failed(failure));
                }
            };
            for _ in 0..self.count {
                number += 1;
                let item = self.item(number, &mut input);
                let is_last = matches!(item, Item::Failed(_));
                items.send(item)?;
                if is_last {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn item(&mut self, number: u64, input: &mut Unread) -> Item {
        let name = input.name.clone();
        // An earlier run claimed it as well.
        let output = self.outputs.as_mut().map(|outputs| outputs.claim(number, &name)).transpose();
        match self.past.verdict(number, &name) {
            Verdict::Run => {}
            Verdict::Ended(word) => return Item::Ended(word),
            Verdict::Another => {
                let label = name.label(number);
                let message = format!("job {number} of the joblog is another one than {label}");
                return Item::Failed(
                    Failure::usage(message)
                        .fix("give the same inputs in the same order, or another --joblog"),
                );
            }
        }
        let output = output.and_then(|path| {
            let claimed = self.outputs.as_ref().zip(path);
            claimed.map(|(outputs, path)| outputs.check(path)).transpose()
        });
        let output = match output {
            Ok(output) => output,
            Err(trouble) => return Item::NotSent(number, name, trouble),
        };
        match input.read() {
            Ok(payload) => Item::Job(Job { number, name, payload, output }),
            Err(error) => Item::NotSent(number, name, Trouble::new(error)),
        }
    }
}

/// An input that is read once, if it is of use.
struct Unread {
    name: Name,
    input: Option<Input>,
    payload: Result<Bytes, String>,
    limit: usize,
}

impl Unread {
    fn new(input: Input, limit: usize) -> Self {
        Self { name: input.name.clone(), input: Some(input), payload: Ok(Bytes::new()), limit }
    }

    fn read(&mut self) -> Result<Bytes, String> {
        if let Some(input) = self.input.take() {
            self.payload = input.read(self.limit).map_err(|error: InputError| error.to_string());
        }
        self.payload.clone()
    }
}
