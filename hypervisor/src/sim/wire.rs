//! What a domain's process and the broker say to each other: one packet each way per call, words and
//! descriptors. A control path; no data and no notification goes this way.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::{DomId, Error, GrantRef, GrantStatus, Port, PortFault};

/// Most pages of one `share` or `map`: their numbers fit one packet.
pub(super) const MAX_PAGES: usize = 8192;

const MAX_WORDS: usize = MAX_PAGES + 8;
const MAX_DESCRIPTORS: usize = 3;

/// The calls. Arguments and answers are listed as words; descriptors in brackets.
pub(super) mod call {
    /// domain, memory pages, table entries -> incarnation, memory pages \[memory, channels\]
    pub(crate) const HELLO: u64 = 1;
    /// with, pages, readonly -> share, first frame, references...
    pub(crate) const SHARE: u64 = 2;
    /// share, index ->
    pub(crate) const REVOKE: u64 = 3;
    /// share ->
    pub(crate) const RELEASE: u64 = 4;
    /// domain, incarnation, references... -> mapping, frames...
    pub(crate) const MAP: u64 = 5;
    /// mapping ->
    pub(crate) const UNMAP: u64 = 6;
    /// domain -> incarnation, memory pages, table entries \[memory, table\]
    pub(crate) const PEER: u64 = 7;
    /// domain, incarnation -> slot
    pub(crate) const COPIER: u64 = 8;
    /// incarnation, slot ->
    pub(crate) const COPIER_END: u64 = 9;
    /// remote -> port, channel, end \[own event, the other's event\]
    pub(crate) const ALLOCATE: u64 = 10;
    /// domain, port -> port, channel, end \[own event, the other's event\]
    pub(crate) const BIND: u64 = 11;
    /// port ->
    pub(crate) const CLOSE: u64 = 12;
    /// domain -> granted, mapped, ports, bound, copiers: see [`Usage`](super::super::Usage)
    pub(crate) const USAGE: u64 = 13;
}

/// Words and descriptors of one packet.
#[derive(Default)]
pub(super) struct Packet {
    pub(super) words: Vec<u64>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Sends one packet. Never waits for a peer that does not read.
pub(super) fn send(socket: BorrowedFd<'_>, words: &[u64], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
    Ok(())
}

/// Receives one packet, or none when the other end has gone.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; MAX_WORDS * 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut packet = Packet::default();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            packet.descriptors.extend(rights);
        }
    }
    let words = bytes[..received.bytes].as_chunks::<8>().0;
    packet.words.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
    Ok(Some(packet))
}

/// What the broker answers: words and descriptors, or a refusal.
pub(super) struct Answer<'a> {
    pub(super) words: Vec<u64>,
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Answer<'a> {
    /// Words alone.
    pub(super) fn words(words: Vec<u64>) -> Self {
        Self { words, descriptors: Vec::new() }
    }

    /// Words and two descriptors.
    pub(super) fn with(words: Vec<u64>, first: &'a OwnedFd, second: &'a OwnedFd) -> Self {
        Self { words, descriptors: vec![first.as_fd(), second.as_fd()] }
    }
}

/// Sends an answer: a word that is 0, or says which error this is, then the rest.
pub(super) fn send_answer(socket: BorrowedFd<'_>, answer: Result<Answer<'_>, Error>) -> io::Result<()> {
    match answer {
        Ok(Answer { mut words, descriptors }) => {
            words.insert(0, 0);
            send(socket, &words, &descriptors)
        }
        Err(error) => send(socket, &encode_error(&error), &[]),
    }
}

/// Takes an answer apart.
pub(super) fn open_answer(mut packet: Packet) -> Result<Packet, Error> {
    match packet.words.first() {
        Some(0) => {
            packet.words.remove(0);
            Ok(packet)
        }
        Some(_) => Err(decode_error(&packet.words)),
        None => Err(Error::Disconnected),
    }
}

/// The texts errors carry, so that a number can stand for one on the wire.
pub(super) const TEXTS: [&str; 9] = [
    "memory of the domain",
    "grant references",
    "event channels",
    "copiers of the domain",
    "the broker's memory",
    "no pages, or more than one call can take",
    "no such page to revoke",
    "the broker does not know this call",
    "the size of a domain's memory or grant table is out of range",
];

fn encode_error(error: &Error) -> [u64; 4] {
    let text = |what: &str| TEXTS.iter().position(|text| *text == what).unwrap_or(7) as u64;
    match error {
        Error::Grant { domain, gref, status } => [1, u64::from(domain.0), u64::from(gref.0), status.0 as u64],
        Error::NoDomain { domain } => [2, u64::from(domain.0), 0, 0],
        Error::Port { domain, port, fault } => [3, u64::from(domain.0), u64::from(port.0), *fault as u64],
        Error::Busy { gref } => [4, u64::from(gref.0), 0, 0],
        Error::NoSpace { what } => [5, text(what), 0, 0],
        Error::Invalid { what } => [6, text(what), 0, 0],
        _ => [5, text("the broker's memory"), 0, 0],
    }
}

fn decode_error(words: &[u64]) -> Error {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    let domain = DomId(word(1) as u16);
    let text = TEXTS.get(word(1) as usize).copied().unwrap_or("the broker does not know this call");
    match word(0) {
        1 => Error::Grant { domain, gref: GrantRef(word(2) as u32), status: GrantStatus(word(3) as i16) },
        2 => Error::NoDomain { domain },
        3 => {
            let faults = [PortFault::Closed, PortFault::NotYours, PortFault::Bound, PortFault::Refused];
            let fault = faults.into_iter().find(|fault| *fault as u64 == word(3));
            Error::Port { domain, port: Port(word(2) as u32), fault: fault.unwrap_or(PortFault::Refused) }
        }
        4 => Error::Busy { gref: GrantRef(word(1) as u32) },
        5 => Error::NoSpace { what: text },
        _ => Error::Invalid { what: text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_when_sent_over_the_wire_then_comes_back_the_same() {
        let domain = DomId(7);
        for error in [
            Error::Grant { domain, gref: GrantRef(9), status: GrantStatus::BAD_REFERENCE },
            Error::NoDomain { domain },
            Error::Port { domain, port: Port(3), fault: PortFault::Bound },
            Error::Busy { gref: GrantRef(12) },
            Error::NoSpace { what: TEXTS[1] },
            Error::Invalid { what: TEXTS[6] },
        ] {
            assert_eq!(decode_error(&encode_error(&error)).to_string(), error.to_string());
        }
    }
}
