//! Processes: how they start, how they get to the mapper, and when they are woken.

use std::collections::VecDeque;

use svcmap_proto::names::Epoch;
use svcmap_proto::time::Timestamp;

use super::World;
use crate::nodes::{MapperNode, Node, SenderNode, WorkerNode, welcome};
use crate::scenario::Feed;

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
        self.senders.push(SenderNode::new(self.now, &self.scenario, number, choice));
        self.wake_at.senders.push(None);
        self.asking.push(VecDeque::new());
        number
    }

    /// Another life of a worker starts, and gets to the mapper.
    pub(super) fn start_worker(&mut self, number: usize) {
        let process = self.workers.len();
        self.workers.push(WorkerNode::new(self.now, &self.scenario, process, number));
        self.wake_at.workers.push(None);
        self.connect(Node::Worker(process));
    }

    /// A process gets to what it learns of the others from, or loses it.
    pub(super) fn connect(&mut self, node: Node) {
        let (now, is_there) = (self.now, self.mapper.is_some());
        let board = (self.scenario.feed == Feed::Board).then(|| welcome(&self.scenario, Epoch(1)));
        let Some(carrier) = self.carrier_mut(node) else { return };
        carrier.handle_connection(now, is_there);
        if let Some(welcome) = board {
            carrier.handle_welcome(now, &welcome);
        }
        self.act(node);
    }

    /// All processes do.
    pub(super) fn connect_all(&mut self) {
        (0..self.workers.len()).for_each(|number| self.connect(Node::Worker(number)));
        (0..self.senders.len()).for_each(|number| self.connect(Node::Sender(number)));
    }

    /// The mapper gets to all others, or is lost to them.
    pub(super) fn connect_mapper(&mut self, are_there: bool) {
        let now = self.now;
        self.mapper = are_there.then(|| {
            self.lives_of_mapper += 1;
            MapperNode::new(&self.scenario, now, Epoch(self.lives_of_mapper))
        });
        self.wake_at.mapper = None;
        self.connect_all();
        if are_there {
            self.act(Node::Mapper);
        }
    }
}
