//! What queues and stores share: a ring to the kernel, a pool of private buffers, a doorbell between threads.

mod attr;
mod doorbell;
mod pool;
mod ring;
#[cfg(test)]
pub(crate) mod tap;

pub use attr::PiAttr;
pub(crate) use attr::attach_unknown;
pub use doorbell::Doorbell;
pub use pool::{Lease, PAGE, Pool};
pub use ring::{Owner, Ring, RingError, Transfer};
