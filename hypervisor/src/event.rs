//! One event channel: a notification without a payload, in both directions.

use std::os::fd::BorrowedFd;

use crate::{Error, Port};

/// One end of an event channel. Dropping it closes the end.
///
/// Several notifications before the other end looks are one event. An event is delivered once and
/// the channel is then masked until [`unmask`](Self::unmask), so that a peer who notifies without end
/// costs one wake-up per round of work (lateeoi; XSA-332). What is notified meanwhile is remembered
/// and delivered by `unmask`.
///
/// ```text
///   poll(as_fd) -> acknowledge -> do the work, look at the ring -> unmask -> look once more -> poll
/// ```
///
/// A channel of its own per descriptor: evtchn's `read()` and `write()` on a descriptor with one port.
pub trait EventChannel: Send + Sync {
    /// This end's port in this domain. For an allocated channel it is what xenstore's
    /// `event-channel` carries.
    fn port(&self) -> Port;

    /// Becomes readable when an event can be acknowledged. For polling only; never read from it.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Tells the other end. No error, and no effect, if that end is closed, dead or not bound yet.
    ///
    /// # Errors
    /// [`Error::System`] if the descriptor no longer works.
    fn notify(&self) -> Result<(), Error>;

    /// Takes a delivered event, if there is one, and never waits. `true` leaves the channel masked.
    ///
    /// # Errors
    /// [`Error::System`] if the descriptor no longer works.
    fn acknowledge(&self) -> Result<bool, Error>;

    /// Lets the next event be delivered. Without an acknowledged event before it, it does nothing.
    ///
    /// # Errors
    /// [`Error::System`] if the descriptor no longer works.
    fn unmask(&self) -> Result<(), Error>;
}
