//! Messages out of a byte stream, and into one.

use super::{Kind, PAYLOAD_MAX};

/// The header of a message (struct xsd_sockmsg). The type is kept as a number: an unknown one is answered,
/// not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is; see [`Kind`].
    pub kind: u32,
    /// Chosen by who asks, echoed in the answer.
    pub request: u32,
    /// The transaction the request belongs to, 0 for none.
    pub transaction: u32,
    /// Bytes of payload that follow.
    pub length: u32,
}

impl Header {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; Header::SIZE] {
        let mut bytes = [0; Header::SIZE];
        let words = [self.kind, self.request, self.transaction, self.length];
        for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The header in these bytes.
    pub fn from_bytes(bytes: &[u8; Header::SIZE]) -> Header {
        let mut words = bytes.chunks_exact(4).map(|field| {
            let mut word = [0; 4];
            word.copy_from_slice(field);
            u32::from_ne_bytes(word)
        });
        let mut next = || words.next().unwrap_or(0);
        Header { kind: next(), request: next(), transaction: next(), length: next() }
    }
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header; `length` is the payload's length.
    pub header: Header,
    /// Its payload, at most [`PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// What the message is, if this protocol knows it.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.header.kind)
    }
}

/// The bytes of one message, or [`Oversized`] if the payload is longer than [`PAYLOAD_MAX`].
pub fn encode(kind: Kind, request: u32, transaction: u32, payload: &[&[u8]]) -> Result<Vec<u8>, Oversized> {
    let total: usize = payload.iter().map(|part| part.len()).sum();
    if total > PAYLOAD_MAX {
        return Err(Oversized);
    }
    let length = u32::try_from(total).map_err(|_| Oversized)?;
    let mut bytes = Vec::with_capacity(Header::SIZE.saturating_add(total));
    bytes.extend_from_slice(&Header { kind: kind.number(), request, transaction, length }.to_bytes());
    for part in payload {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// A message longer than the protocol allows. Nothing after it can be trusted: the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a xenstore message is longer than {PAYLOAD_MAX} bytes")]
pub struct Oversized;

/// Cuts a byte stream into messages. Holds what was pushed and not yet taken, never more than is pushed;
/// a length beyond [`PAYLOAD_MAX`] is refused before anything is allocated for it.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes at the buffer's front that were handed out already.
    taken: usize,
}

impl Frames {
    /// An empty stream.
    pub fn new() -> Frames {
        Frames::default()
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken.min(self.buffer.len()));
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or none yet. After [`Oversized`] every further call says the same.
    pub fn next_message(&mut self) -> Result<Option<Message>, Oversized> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = waiting.split_first_chunk::<{ Header::SIZE }>() else {
            return Ok(None);
        };
        let header = Header::from_bytes(header);
        let length = usize::try_from(header.length).map_err(|_| Oversized)?;
        if length > PAYLOAD_MAX {
            return Err(Oversized);
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let message = Message { header, payload: payload.to_vec() };
        self.taken = self.taken.saturating_add(Header::SIZE).saturating_add(length);
        Ok(Some(message))
    }
}
