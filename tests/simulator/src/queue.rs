//! What happens next: events in the order of time, and at one time in the order in which they were
//! planned. So the same scenario always takes the same course.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use svcmap_proto::time::Timestamp;

/// See the module.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(Timestamp, u64, u32)>>,
    /// The events themselves stay in place: what the heap moves about is small.
    events: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), planned: 0 }
    }
}

impl<E> Queue<E> {
    /// Plans an event.
    pub fn push(&mut self, at: Timestamp, event: E) {
        let index = match self.free.pop() {
            Some(index) => {
                self.events[index as usize] = Some(event);
                index
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.heap.push(Reverse((at, self.planned, index)));
        self.planned += 1;
    }

    /// The next event.
    pub fn pop(&mut self) -> Option<(Timestamp, E)> {
        let Reverse((at, _, index)) = self.heap.pop()?;
        self.free.push(index);
        Some((at, self.events[index as usize].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_first_and_then_the_order_of_planning() {
        let mut queue = Queue::default();
        for (at, event) in [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b')] {
            queue.push(Timestamp::from_micros(at), event);
        }
        let mut order = String::new();
        while let Some((_, event)) = queue.pop() {
            order.push(event);
            if event == 'a' {
                queue.push(Timestamp::from_micros(3), 'e');
            }
        }
        assert_eq!(order, "abcde");
    }
}
