//! Which messages are waiting, sent and settled: the part of the source that is in flight.

use std::collections::{HashMap, VecDeque};

use crate::Message;

/// A stretch of the source from its first unsettled message to the newest that was taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// Number of the first slot's message within the source; all before are settled.
    first: u64,
    /// No slot before this one is waiting.
    scan: u64,
    /// Packet id → number of the message.
    sent: HashMap<u16, u64>,
}

#[derive(Debug)]
struct Slot {
    message: Message,
    state: State,
    sends: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    Settled,
}

impl Window {
    /// A window whose first message is number `first` of the source.
    pub(super) fn starting_at(first: u64) -> Self {
        Self { first, scan: first, ..Self::default() }
    }

    /// How many leading messages of the source are settled.
    pub(super) fn n_settled_leading(&self) -> u64 {
        self.first
    }

    /// Messages from the first unsettled one to the newest.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Messages sent and not yet settled.
    pub(super) fn n_in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Messages not yet settled.
    pub(super) fn n_unsettled(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.state != State::Settled).count() as u64
    }

    /// Takes a message to be sent.
    pub(super) fn push(&mut self, message: Message) {
        self.slots.push_back(Slot { message, state: State::Waiting, sends: 0 });
    }

    /// The oldest message that waits to be sent, and its number.
    pub(super) fn next_waiting(&mut self) -> Option<(u64, &Message)> {
        while self.slot(self.scan).is_some_and(|slot| slot.state != State::Waiting) {
            self.scan += 1;
        }
        let number = self.scan;
        self.slot(number).map(|slot| (number, &slot.message))
    }

    /// Notes that a waiting message was sent under a packet id; returns whether it was sent before.
    pub(super) fn mark_sent(&mut self, number: u64, packet_id: u16) -> bool {
        let slot = self.slot_mut(number);
        assert_eq!(slot.state, State::Waiting, "only a waiting message is sent");
        slot.state = State::Sent;
        slot.sends += 1;
        let again = slot.sends > 1;
        let before = self.sent.insert(packet_id, number);
        assert_eq!(before, None, "a packet id names one message in flight");
        again
    }

    /// Settles the message sent under a packet id and returns it; `None` if no message has that id.
    pub(super) fn settle_packet(&mut self, packet_id: u16) -> Option<Message> {
        let number = self.sent.remove(&packet_id)?;
        Some(self.settle(number))
    }

    /// Settles a message by its number and returns it.
    pub(super) fn settle(&mut self, number: u64) -> Message {
        let slot = self.slot_mut(number);
        assert_ne!(slot.state, State::Settled, "a message is settled once");
        slot.state = State::Settled;
        let empty = Message { topic: String::new(), payload: Vec::new(), at: 0, key: 0 };
        let message = std::mem::replace(&mut slot.message, empty);
        while self.slots.front().is_some_and(|slot| slot.state == State::Settled) {
            self.slots.pop_front();
            self.first += 1;
        }
        self.scan = self.scan.max(self.first);
        message
    }

    /// After a cut, what was sent and not settled waits again, in its old order.
    pub(super) fn connection_lost(&mut self) {
        for slot in &mut self.slots {
            if slot.state == State::Sent {
                slot.state = State::Waiting;
            }
        }
        self.sent.clear();
        self.scan = self.first;
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, number: u64) -> &mut Slot {
        let idx = number.checked_sub(self.first).and_then(|idx| usize::try_from(idx).ok());
        idx.and_then(|idx| self.slots.get_mut(idx)).expect("the number is of a message in the window")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(key: u64) -> Message {
        Message { topic: "t".to_owned(), payload: Vec::new(), at: 0, key }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Send,
        /// Acknowledge one of those in flight.
        Settle(prop::sample::Index),
        Lose,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            6 => Just(Step::Send),
            4 => any::<prop::sample::Index>().prop_map(Step::Settle),
            1 => Just(Step::Lose),
        ]
    }

    proptest! {
        /// Against a model that keeps every message of the source by itself.
        #[test]
        fn nothing_is_lost_or_settled_twice(steps in prop::collection::vec(step(), 0..200)) {
            let mut window = Window::starting_at(0);
            let mut settled: Vec<bool> = Vec::new();
            let mut in_flight: Vec<(u16, u64)> = Vec::new();
            let mut next_id = 1u16;
            for step in steps {
                match step {
                    Step::Push => {
                        window.push(message(settled.len() as u64));
                        settled.push(false);
                    }
                    Step::Send => {
                        let flying = |n: u64| in_flight.iter().any(|(_, m)| *m == n);
                        let want = (0..settled.len() as u64).find(|n| !settled[*n as usize] && !flying(*n));
                        let got = window.next_waiting().map(|(n, m)| { assert_eq!(n, m.key); n });
                        prop_assert_eq!(got, want);
                        if let Some(n) = got {
                            window.mark_sent(n, next_id);
                            in_flight.push((next_id, n));
                            next_id += 1;
                        }
                    }
                    Step::Settle(index) if !in_flight.is_empty() => {
                        let (id, n) = in_flight.swap_remove(index.index(in_flight.len()));
                        prop_assert_eq!(window.settle_packet(id), Some(message(n)));
                        settled[n as usize] = true;
                        prop_assert_eq!(window.settle_packet(id), None);
                    }
                    Step::Settle(_) => {}
                    Step::Lose => {
                        window.connection_lost();
                        in_flight.clear();
                    }
                }
                let leading = settled.iter().take_while(|settled| **settled).count() as u64;
                prop_assert_eq!(window.n_settled_leading(), leading);
                prop_assert_eq!(window.n_in_flight(), in_flight.len());
                prop_assert_eq!(window.n_unsettled(), settled.iter().filter(|settled| !**settled).count() as u64);
            }
        }
    }
}
