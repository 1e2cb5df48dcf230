//! Grants and event channels: one small seam, Xen or a simulation behind it.
//!
//! A block backend needs three things of a hypervisor, and its frontend the counterparts of two:
//!
//! ```text
//!   backend                                   frontend
//!   Backend::map      ring pages         <--  Frontend::share     pages, one reference each
//!   Backend::copier   batches of copies  <--  (the same references)
//!   Backend::bind     an event channel   <--  Frontend::allocate  an unbound port
//! ```
//!
//! The traits ask for nothing that Linux on Xen cannot do: `map` and `copy` are gntdev's
//! MAP_GRANT_REF and GRANT_COPY, `bind`, `allocate`, `acknowledge` and `unmask` are evtchn's
//! BIND_INTERDOMAIN, BIND_UNBOUND_PORT, `read()` and `write()` on one descriptor per channel, and
//! `share` is gntalloc's ALLOC_GREF followed by `mmap`.
//!
//! [`xen`] implements them, and so does [`sim`] between ordinary processes. [`open`] picks by a string.

mod backend;
mod counters;
mod error;
mod event;
mod frontend;
mod memory;
pub mod sim;
mod statistics;
mod status;
mod types;
pub mod xen;

use std::path::Path;
use std::sync::Arc;

pub use backend::{Backend, Copier, Copy, Direction, validate};
pub use error::{Error, PortFault};
pub use event::EventChannel;
pub use frontend::{Access, Frontend, Revoke, Shared};
pub use memory::Mapping;
pub use statistics::{Counted, Statistics};
pub use status::GrantStatus;
pub use types::{DomId, GrantRef, PAGE_SIZE, Port};

/// Both sides in one handle, as [`open`] gives it.
pub trait Hypervisor: Backend + Frontend {}

impl<T: Backend + Frontend> Hypervisor for T {}

/// Opens the hypervisor that `spec` names, as the domain `domain`.
///
/// `xen` is [`xen`]; `sim:DIR` is the simulation whose [`sim::Broker`] runs on directory `DIR`.
///
/// # Errors
/// [`Error::Spec`] when nothing of that name exists, else what opening it gave.
pub fn open(spec: &str, domain: DomId) -> Result<Arc<dyn Hypervisor>, Error> {
    if spec == "xen" {
        return Ok(Arc::new(xen::open(domain)?));
    }
    match spec.split_once(':') {
        Some(("sim", dir)) if !dir.is_empty() => Ok(Arc::new(sim::connect(Path::new(dir), domain)?)),
        _ => Err(Error::Spec { spec: spec.to_owned() }),
    }
}
