//! Everything that reads what strangers wrote, as functions of bytes that panic if anything is wrong.
//!
//! | module | holds |
//! | --- | --- |
//! | [`targets`] | all of them, by name |
//! | `input` | frames, steps and times in the bytes of an input |
//! | `memory` | what reading allocates |
//! | `messages` | native messages of both planes |
//! | `words` | names, endpoints, metadata, and the JSON dialect as text |
//! | `mapper` | a registry that is told things |
//! | `process` | a worker that sends and serves, and is told things |
//! | `answers` | what one worker of the JSON dialect replies to one job |
//! | `node` | a process of the library, and what lies outside it |
//! | `program` | what a program says that stays between jobs |
//!
//! `tests/corpora.rs` gives each what lies in `corpora`, with every `cargo test`; `main.rs` makes up
//! more.

mod answers;
mod input;
mod mapper;
mod memory;
mod messages;
mod node;
mod process;
mod program;
pub mod targets;
mod words;
