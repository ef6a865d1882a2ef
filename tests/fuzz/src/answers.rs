//! What one worker of the JSON dialect replies to one job, whatever that is: the job ends once.

use crate::memory::bounded;
use crate::node::Node;

/// A result, or an error that quotes what came, on its way into an outcome.
const TIMES: usize = 16;

/// And whatever it is: queues that grow.
const ALWAYS_BYTES: usize = 2048;

/// A byte that says which of the two kinds of such workers it is, and the reply.
pub(crate) fn read(bytes: &[u8]) {
    let [kind, body @ ..] = bytes else { return };
    let mut node = Node::new(false);
    node.hear_of_workers();
    // Those that give results, and those that take jobs.
    node.submit_to("t", ["j", "k"][usize::from(kind % 2)], b"[1]");
    node.handle_link(0, true);
    assert!(node.has_asked(), "no request was sent");
    bounded(ALWAYS_BYTES + body.len(), TIMES, || node.hear_answer(0, body));
    node.stop();
}
