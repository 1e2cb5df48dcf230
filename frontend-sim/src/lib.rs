//! The paired block frontend: correct by default, hostile on request.
//!
//! It does for a program what Linux's blkfront does for a kernel, and it speaks DIX
//! (`docs/protocol.md`), which no kernel's frontend does yet: protection information is made here, on
//! the caller's own bytes, and checked here again.
//!
//! ```text
//!   toolstack::attach        makes the device's nodes, as libxl does (simulations and tests)
//!   Frontend::connect        the xenbus handshake: offer -> choice -> Connected
//!     Queue, one per ring    submit, kick, complete: requests at depth; read_at, write_at, flush, discard
//!     control thread         follows the backend's state: resize, close, connect again
//!   workload::*              copy in, copy out, verify, bench
//!   Device, Ring, Raw        the single steps, for frontends that misbehave
//! ```
//!
//! It runs on anything `hypervisor` can open.

#![deny(unsafe_code)]

pub mod cli;
mod control;
mod device;
mod disk;
mod error;
mod fault;
mod frontend;
mod options;
pub mod queue;
mod ring;
mod states;
pub mod toolstack;
pub mod workload;

pub use device::Device;
pub use disk::Disk;
pub use error::{Error, Failure};
pub use fault::{Fault, ParseFaultError};
pub use frontend::Frontend;
pub use options::{ConnectOptions, DixMode, Grants, Polling};
pub use queue::{Completion, Counters, Operation, Queue, Source, Submission};
pub use ring::Ring;
