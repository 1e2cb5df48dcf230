//! What waits to be written to one client, bounded.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::wire::{self, Kind};

#[derive(Debug)]
pub(super) struct Output {
    messages: VecDeque<Arc<[u8]>>,
    /// The events among them: one equal to one still waiting tells its reader nothing.
    events: HashSet<Arc<[u8]>>,
    bytes: usize,
    /// Bytes of the first message that were written already.
    written: usize,
    limit: usize,
}

impl Output {
    pub(super) fn new(limit: usize) -> Output {
        Output { messages: VecDeque::new(), events: HashSet::new(), bytes: 0, written: 0, limit }
    }

    pub(super) fn answer(&mut self, message: Vec<u8>) {
        self.push(message.into());
    }

    /// Queues a watch event, unless it is longer than a message may be. Special events are counted, not
    /// merged: each is another domain's coming or going.
    pub(super) fn event(&mut self, payload: &[u8]) {
        let Ok(message) = wire::encode(Kind::WatchEvent, 0, 0, &[payload]) else {
            return;
        };
        let message: Arc<[u8]> = message.into();
        if !payload.starts_with(b"@") && !self.events.insert(message.clone()) {
            return;
        }
        self.push(message);
    }

    pub(super) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Whether the client has left more unread than it may.
    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.limit
    }

    /// The bytes to write next.
    pub(super) fn next(&self) -> &[u8] {
        self.messages.front().and_then(|message| message.get(self.written..)).unwrap_or_default()
    }

    /// `count` bytes of [`Output::next`] were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        self.bytes -= count;
        if self.messages.front().is_some_and(|message| self.written >= message.len()) {
            self.written = 0;
            if let Some(message) = self.messages.pop_front() {
                self.events.remove(&message);
            }
        }
    }

    fn push(&mut self, message: Arc<[u8]>) {
        self.bytes += message.len();
        self.messages.push_back(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(output: &mut Output) -> usize {
        let mut messages = 0;
        while !output.next().is_empty() {
            let count = output.next().len();
            output.advance(count);
            messages += 1;
        }
        messages
    }

    #[test]
    fn event_when_an_equal_one_waits_then_is_dropped_until_that_is_written() {
        let mut output = Output::new(1000);
        for _ in 0..3 {
            output.event(b"/a\0t\0");
            output.event(b"@releaseDomain\0t\0");
        }
        assert_eq!(drain(&mut output), 4);
        output.event(b"/a\0t\0");
        assert_eq!(drain(&mut output), 1);
        assert_eq!(output.waiting(), 0);
    }

    #[test]
    fn output_when_unread_beyond_the_limit_then_is_over() {
        let mut output = Output::new(100);
        output.answer(vec![0; 100]);
        assert!(!output.is_over());
        output.answer(vec![0; 1]);
        assert!(output.is_over());
        output.advance(60);
        assert!(!output.is_over());
    }
}
