//! Negotiation: what either end publishes in XenStore, as typed values, with a bound on each.
//!
//! ```text
//! backend    Transport::nodes    -> InitWait     what a frontend may choose from
//! frontend   FrontendNodes::nodes -> Initialised  what it chose; FrontendNodes::parse bounds it
//! backend    Properties::nodes   -> Connected    what the disk is
//! ```
//!
//! Nothing here reads or writes XenStore: callers bring a function that reads one node.

mod error;
mod frontend;
mod properties;
mod transport;
mod value;

pub use error::NegotiationError;
pub use frontend::{FrontendNodes, RingNodes};
pub use properties::{DiscardNodes, Info, Properties};
pub use transport::{DixNodes, Transport};
