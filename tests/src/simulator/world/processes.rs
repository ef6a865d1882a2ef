//! Processes: how they start, how they get to the mapper, and when they are woken.

use std::collections::VecDeque;

use svcmap_proto::names::Epoch;
use svcmap_proto::time::Timestamp;

use super::World;
use crate::simulator::nodes::{MapperNode, Node, SenderNode, WorkerNode, welcome};
use crate::simulator::scenario::Feed;

/// When each node is woken next.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    pub(super) mapper: Option<Timestamp>,
    pub(super) workers: Vec<Option<Timestamp>>,
    pub(super) senders: Vec<Option<Timestamp>>,
}

impl Wakes {
    /// Of that process.
    pub(super) fn of(&mut self, node: Node) -> &mut Option<Timestamp> {
        match node {
            Node::Mapper => &mut self.mapper,
            Node::Worker(number) => &mut self.workers[number],
            Node::Sender(number) => &mut self.senders[number],
        }
    }
}

impl World {
    /// A sender's process starts. Returns its number.
    pub(super) fn start_sender(&mut self) -> usize {
        let number = self.senders.len();
        let choice = self.scenario.rule.choice(&self.scenario, &self.truth);
        self.senders.push(SenderNode::new(&self.scenario, number, choice));
        self.wake_at.senders.push(None);
        self.asking.push(VecDeque::new());
        number
    }

    /// Another life of a worker starts, and gets to the mapper.
    pub(super) fn start_worker(&mut self, number: usize) {
        let process = self.workers.len();
        self.workers.push(WorkerNode::new(&self.scenario, process, number));
        self.wake_at.workers.push(None);
        self.workers[process].handle_connection(self.now, self.mapper.is_some());
        self.act(Node::Worker(process));
    }

    /// A sender's process gets to what it learns of load from, or loses it.
    pub(super) fn connect_sender(&mut self, number: usize) {
        let sender = &mut self.senders[number];
        sender.handle_connection(self.now, self.mapper.is_some());
        if self.scenario.feed == Feed::Board {
            sender.handle_welcome(self.now, &welcome(&self.scenario, Epoch(1)));
        }
        self.act(Node::Sender(number));
    }

    /// The mapper gets to all others, or is lost to them.
    pub(super) fn connect_mapper(&mut self, are_there: bool) {
        let now = self.now;
        self.mapper = are_there.then(|| {
            self.lives_of_mapper += 1;
            MapperNode::new(&self.scenario, now, Epoch(self.lives_of_mapper))
        });
        self.wake_at.mapper = None;
        for worker in 0..self.workers.len() {
            self.workers[worker].handle_connection(now, are_there);
            self.act(Node::Worker(worker));
        }
        (0..self.senders.len()).for_each(|sender| self.connect_sender(sender));
        if are_there {
            self.act(Node::Mapper);
        }
    }
}
