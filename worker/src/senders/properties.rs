//! Whatever happens in whatever order: what a worker says of attempts that it never saw is true, even if
//! it has forgotten their sender meanwhile.

use proptest::prelude::*;

use super::*;
use crate::testing::{at, attempt, job, ms};

const SENDERS: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A new connection, or the one that another sender had.
    Hello {
        sender: usize,
        own: bool,
    },
    /// A job, which arrives or not.
    Job {
        sender: usize,
        arrives: bool,
    },
    /// The oldest job that is here ends, with a result of that size.
    End {
        sender: usize,
        bytes: usize,
    },
    /// The sender gets what is under way to it, and says so or not.
    Deliver {
        says: bool,
    },
    Gone {
        sender: usize,
    },
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let sender = 0..SENDERS;
    prop_oneof![
        4 => (sender.clone(), any::<bool>()).prop_map(|(sender, own)| Step::Hello { sender, own }),
        6 => (sender.clone(), any::<bool>())
            .prop_map(|(sender, arrives)| Step::Job { sender, arrives }),
        5 => (sender.clone(), 0usize..80).prop_map(|(sender, bytes)| Step::End { sender, bytes }),
        5 => any::<bool>().prop_map(|says| Step::Deliver { says }),
        3 => sender.prop_map(|sender| Step::Gone { sender }),
        2 => (0u64..4000).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// The other end, as a link keeps it.
#[derive(Clone, Debug, Default)]
struct Peer {
    connections: u32,
    /// The connection on which it was welcomed.
    connection: Option<Connection>,
    last_number: u64,
    received_outcomes: u64,
    /// Number, attempt and deadline of what has no outcome.
    open: BTreeMap<u64, (AttemptId, Timestamp)>,
    /// What the worker has of it.
    here: VecDeque<(AttemptId, Timestamp)>,
}

struct Model {
    now: Timestamp,
    senders: Senders,
    peers: Vec<Peer>,
    next_connection: u16,
    next_job: u64,
    /// All that ever came to the worker.
    came: BTreeSet<(usize, AttemptId)>,
}

fn id(sender: usize) -> SenderId {
    SenderId(sender as u128)
}

impl Model {
    fn hello(&mut self, whose: usize, own: bool) -> Result<(), TestCaseError> {
        let foreign = self.peers[(whose + 1) % SENDERS].connection.clone().filter(|_| !own);
        self.next_connection += 1;
        let on = foreign.unwrap_or(Connection::from(self.next_connection.to_be_bytes().to_vec()));
        let peer = &mut self.peers[whose];
        peer.connections += 1;
        let now = self.now;
        // What is past its deadline is settled, whatever the worker says.
        peer.open.retain(|_, (_, deadline)| *deadline + RETAIN_SLACK > now);
        let open = peer.open.iter();
        let hello = SenderHello {
            sender: id(whose),
            connection: peer.connections,
            received_outcomes: peer.received_outcomes,
            open: open
                .map(|(&number, &(attempt, _))| svcmap_proto::jobs::OpenAttempt {
                    number,
                    attempt,
                    cancelled: false,
                })
                .collect(),
            ..crate::testing::hello()
        };
        let here = peer.here.iter().map(|(attempt, _)| *attempt).collect();
        let answer = self.senders.handle_hello(now, on.clone(), &hello, &here);
        let received_jobs = match answer {
            Ok(HelloAnswer { received_jobs, forgotten }) => {
                peer.open.retain(|_, (attempt, _)| !forgotten.contains(attempt));
                peer.connection = Some(on);
                received_jobs
            }
            // Whoever is turned away is not known, so nothing of it came.
            Err(Unwelcome::TurnedAway) if own => {
                peer.connection = None;
                0
            }
            Err(_) => return Ok(()),
        };
        for (attempt, _) in peer.open.split_off(&(received_jobs + 1)).into_values() {
            prop_assert!(!self.came.contains(&(whose, attempt)), "{attempt} would run twice");
        }
        peer.last_number = peer.last_number.max(received_jobs);
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Hello { sender, own } => self.hello(sender, own)?,
            Step::Job { sender: whose, arrives } => {
                let peer = &mut self.peers[whose];
                let Some(on) = peer.connection.clone() else { return Ok(()) };
                self.next_job += 1;
                peer.last_number += 1;
                let (attempt, deadline) = (attempt(self.next_job), now + ms(5000));
                peer.open.insert(peer.last_number, (attempt, deadline));
                if !arrives {
                    // Nothing else does on that connection.
                    peer.connection = None;
                    return Ok(());
                }
                // Who was forgotten or replaced is to say HELLO, and the job was not seen.
                if self.senders.sender(now, &on) == Some(id(whose)) {
                    let mut job = job(peer.last_number, attempt, 5000);
                    job.received_outcomes = peer.received_outcomes;
                    prop_assert_eq!(self.senders.handle_jobs(id(whose), &job.batch()), 0);
                    self.came.insert((whose, attempt));
                    peer.here.push_back((attempt, deadline));
                }
            }
            Step::End { sender: whose, bytes } => {
                let Some((attempt, deadline)) = self.peers[whose].here.pop_front() else {
                    return Ok(());
                };
                let (verdict, here, payload) =
                    (Verdict::Done, Duration::ZERO, vec![0; bytes].into());
                let ended =
                    Ended { verdict, here, ran: here, payload, wanted_until: deadline.max(now) };
                prop_assert!(self.senders.senders.contains_key(&id(whose)), "it has a job here");
                self.senders.push(id(whose), attempt, ended);
            }
            Step::Deliver { says } => {
                while let Some(delivery) = self.senders.poll_delivery() {
                    let whose = delivery.sender.0 as usize;
                    let peer = &mut self.peers[whose];
                    if peer.connection.as_ref() != Some(&delivery.to) {
                        self.senders.handle_unreachable(delivery.sender, delivery.first_number);
                        continue;
                    }
                    prop_assert!(delivery.first_number > peer.received_outcomes, "{delivery:?}");
                    let last = delivery.first_number + delivery.outcomes.len() as u64 - 1;
                    peer.received_outcomes = last;
                    for outcome in delivery.outcomes {
                        peer.open.retain(|_, (attempt, _)| *attempt != outcome.attempt);
                    }
                    if says {
                        self.senders.acknowledge(delivery.sender, last);
                    }
                }
            }
            Step::Gone { sender } => {
                if let Some(gone) = self.peers[sender].connection.take() {
                    self.senders.handle_gone(&gone);
                }
            }
            Step::Pass { ms: passed } => {
                self.now = now + ms(passed);
                self.senders.handle_timeout(self.now);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_a_worker_never_saw_it_never_saw(
        senders_max in 1usize..SENDERS,
        bytes_max in 50usize..300,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model {
            now: at(0),
            senders: Senders { senders_max, ..Senders::new(&super::tests::config(bytes_max)) },
            peers: vec![Peer::default(); SENDERS],
            next_connection: 0,
            next_job: 0,
            came: BTreeSet::new(),
        };
        for step in steps {
            model.apply(step)?;
            prop_assert!(model.senders.senders.len() <= senders_max);
        }
    }
}
