//! The Xen block protocol, blkif, as a backend and a frontend need it: three ABIs, the shared ring,
//! requests, responses, the data integrity extension (DIX) and negotiation. No I/O and no threads.
//!
//! The way of a request through this crate, in the backend:
//!
//! ```text
//! shared ring --BackRing copies a slot once--> RawSlot --Pairing--> Request (and Payload)
//!                                                               \-> Refused (responses, reason)
//! indirect pages (the caller's private copy) --parse_indirect--> Segment list
//! Response --BackRing::respond, publish--> shared ring --> notify or not
//! ```
//!
//! Shared bytes are reached through [`RingMemory`] only; its implementation over real memory,
//! [`SharedMemory`], holds all the unsafe code of the crate. Sources: `xen/include/public/io/blkif.h`
//! and `ring.h`; `docs/protocol.md` for DIX.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

mod abi;
mod encode;
mod features;
mod indirect;
mod limits;
mod memory;
pub mod names;
mod pairing;
mod payload;
mod refusal;
mod request;
mod response;
mod ring;
mod segment;
mod shared;
mod slot;
mod state;
mod units;
pub mod wire;

pub use abi::Abi;
pub use encode::Encode;
pub use features::{
    DiscardNodes, DixNodes, FrontendNodes, Info, NegotiationError, Properties, RingNodes, Transport,
};
pub use indirect::{encode_indirect, parse_indirect};
pub use limits::{DixLimits, Limits, MAX_INDIRECT_PAGES, MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS};
pub use memory::{Index, RingMemory};
pub use pairing::{Paired, Pairing};
pub use payload::Payload;
pub use refusal::{Refusal, Refused};
pub use request::{Operation, Request, Segments, extent};
pub use response::{RawResponse, Response, ResponseError, Status};
pub use ring::{BackRing, FrontRing, Indexes, RingError, Start};
pub use segment::{Segment, total_len};
pub use shared::SharedMemory;
pub use slot::RawSlot;
pub use state::XenbusState;
pub use units::{GrantRef, PAGE_SIZE, SECTOR_SIZE, Sectors};
