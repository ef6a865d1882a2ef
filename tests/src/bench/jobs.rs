//! Jobs of a client, submitted and waited for as any program does it.

use std::collections::VecDeque;

use svcmap_worker::{Client, Outcome, Ticket};

use super::Pair;

/// A client, and the tickets that are open.
#[derive(Debug)]
pub struct Jobs {
    client: Client,
    service: &'static str,
    payload: Vec<u8>,
    tickets: VecDeque<Ticket>,
}

impl Jobs {
    /// Jobs of that client for a service that sends the payload back.
    pub fn new(client: Client, service: &'static str, payload: Vec<u8>) -> Self {
        Self { client, service, payload, tickets: VecDeque::new() }
    }
}

impl Pair for Jobs {
    fn send(&mut self) {
        let ticket = self.client.submit(self.service, self.payload.clone());
        self.tickets.push_back(ticket.expect("the outbox is large enough"));
    }

    fn receive(&mut self) {
        match self.tickets.pop_front().expect("one is open").wait() {
            Outcome::Done(reply) => assert_eq!(reply.len(), self.payload.len()),
            other => panic!("{other}"),
        }
    }
}
