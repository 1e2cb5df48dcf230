//! One thread per ring: the way of a request.
//!
//! The control thread starts a queue with everything it needs ([`Setup`]) and stops it; between the two nobody else
//! touches the ring, its event channel, its io_uring or its pool. Statistics are counters the queue alone writes.

mod active;
mod admit;
mod copies;
mod disk;
mod engine;
mod handle;
mod indirect;
mod lost;
mod protect;
mod spin;
mod stats;

pub use disk::{AppTagRule, Disk, Integrity};
pub use handle::{QueueError, QueueHandle, Settings, Setup, Stopped, buffer_bytes};
pub use lost::Lost;
pub use stats::{Counters, Stats};

pub(crate) use protect::Rules;
pub(crate) use spin::{Look, Spin};
