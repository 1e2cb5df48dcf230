//! Responses: what a backend says and a frontend checks.

use crate::wire;

/// The outcome of a request, or of a payload slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Done.
    Okay,
    /// Failed.
    Error,
    /// The operation is not supported, or was not negotiated.
    Unsupported,
    /// DIX, payload slots only: a guard tag does not match.
    Guard,
    /// DIX, payload slots only: an application tag does not match.
    Application,
    /// DIX, payload slots only: a reference tag does not match.
    Reference,
}

impl Status {
    const ALL: [Status; 6] = [
        Status::Okay,
        Status::Error,
        Status::Unsupported,
        Status::Guard,
        Status::Application,
        Status::Reference,
    ];

    /// The number on the wire (BLKIF_RSP_*; -3 to -5 are DIX's).
    pub const fn wire(self) -> i16 {
        match self {
            Status::Okay => wire::RSP_OKAY,
            Status::Error => wire::RSP_ERROR,
            Status::Unsupported => wire::RSP_EOPNOTSUPP,
            Status::Guard => wire::RSP_DIX_GUARD,
            Status::Application => wire::RSP_DIX_APPLICATION,
            Status::Reference => wire::RSP_DIX_REFERENCE,
        }
    }

    /// The status of a number on the wire.
    pub fn from_wire(status: i16) -> Option<Status> {
        Self::ALL.into_iter().find(|s| s.wire() == status)
    }

    /// Whether this names a tag that did not match: what only a payload slot's response may carry.
    pub const fn is_mismatch(self) -> bool {
        matches!(self, Status::Guard | Status::Application | Status::Reference)
    }

    /// The same as a data slot's response says it: a mismatch is ERROR there.
    pub const fn for_data(self) -> Status {
        if self.is_mismatch() { Status::Error } else { self }
    }
}

/// A response, one for each slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Response {
    /// The slot's `id`.
    pub id: u64,
    /// The operation byte the frontend compares with what it sent: `Request::echo`, or 7.
    pub operation: u8,
    /// The outcome.
    pub status: Status,
}

impl Response {
    /// As it goes to the ring.
    pub const fn raw(&self) -> RawResponse {
        RawResponse { id: self.id, operation: self.operation, status: self.status.wire() }
    }
}

/// A response as the ring has it (struct blkif_response), nothing checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawResponse {
    /// Copied from the request, if the backend is honest.
    pub id: u64,
    /// Likewise.
    pub operation: u8,
    /// BLKIF_RSP_*.
    pub status: i16,
}

/// Why a frontend should distrust a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResponseError {
    /// The operation is not the one that was sent.
    #[error("the response to {id:#x} names operation {actual:#04x}, sent was {expected:#04x}")]
    Operation {
        /// The request.
        id: u64,
        /// What was sent ([`crate::Request::echo`]).
        expected: u8,
        /// What came.
        actual: u8,
    },
    /// A number that is no status, or none for this slot.
    #[error("the response to {id:#x} has status {status}")]
    Status {
        /// The request.
        id: u64,
        /// What came.
        status: i16,
    },
}

impl RawResponse {
    /// The status, if the operation is `expected` and the status is one that operation can have:
    /// tag mismatches come for payload slots only.
    ///
    /// # Errors
    /// [`ResponseError`]; a careful frontend stops using the disk then, as Linux's does.
    pub fn check(&self, expected: u8) -> Result<Status, ResponseError> {
        if self.operation != expected {
            return Err(ResponseError::Operation { id: self.id, expected, actual: self.operation });
        }
        match Status::from_wire(self.status) {
            Some(status) if !status.is_mismatch() || expected == wire::OP_INTEGRITY => Ok(status),
            _ => Err(ResponseError::Status { id: self.id, status: self.status }),
        }
    }

    /// The words of the wire: id, then operation and status; the last is x86_64's and arm's padding.
    /// All padding is zero (XSA-216).
    pub(crate) fn words(&self) -> [u32; 4] {
        let [i0, i1, i2, i3, i4, i5, i6, i7] = self.id.to_le_bytes();
        let [s0, s1] = self.status.to_le_bytes();
        [
            u32::from_le_bytes([i0, i1, i2, i3]),
            u32::from_le_bytes([i4, i5, i6, i7]),
            u32::from_le_bytes([self.operation, 0, s0, s1]),
            0,
        ]
    }

    /// From the first three words of an entry.
    pub(crate) fn from_words([low, high, rest]: [u32; 3]) -> RawResponse {
        let [operation, _, s0, s1] = rest.to_le_bytes();
        RawResponse {
            id: u64::from(high) << 32 | u64::from(low),
            operation,
            status: i16::from_le_bytes([s0, s1]),
        }
    }
}
