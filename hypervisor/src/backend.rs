//! What a process that serves devices needs: map ring pages, copy batches, bind channels.

use crate::{Counted, DomId, Error, EventChannel, GrantRef, GrantStatus, Mapping, PAGE_SIZE, Port};

/// The serving side.
pub trait Backend: Counted + Send + Sync {
    /// Maps the pages behind `refs` in that order, contiguous and read-write: all of them or none.
    ///
    /// # Errors
    /// [`Error::Grant`] with the first reference that was refused and its status;
    /// [`Error::NoDomain`]; [`Error::Invalid`] for no references or too many.
    fn map(&self, domain: DomId, refs: &[GrantRef]) -> Result<Mapping, Error>;

    /// What copies between this process and pages `domain` granted. One per queue: a copier is used by
    /// one thread at a time, several copiers do not wait for each other.
    ///
    /// # Errors
    /// [`Error::NoDomain`].
    fn copier(&self, domain: DomId) -> Result<Box<dyn Copier>, Error>;

    /// Binds the channel that `domain` allocated for this one. Its first event is already pending: the
    /// peer may have notified before (evtchn_bind_interdomain in Xen's event_channel.c does the same).
    ///
    /// # Errors
    /// [`Error::Port`]; [`Error::NoDomain`].
    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error>;
}

/// Copies to and from pages another domain granted, in batches.
pub trait Copier: Send {
    /// Does the whole batch in order and puts a status into each entry.
    ///
    /// The guest may change its pages meanwhile, so what arrives is some mixture of old and new bytes;
    /// it is private, and stable, once this returns. A length of 0 is okay and looks at nothing.
    ///
    /// # Safety
    /// Each [`local`](Copy::local) is valid for `len` bytes, to be read (`ToGuest`) or written
    /// (`FromGuest`), belongs to this process alone, and nobody else uses those bytes during the call.
    ///
    /// # Errors
    /// [`Error::InvalidCopy`] before anything was copied, when an entry leaves its page ([`validate`]);
    /// [`Error::System`] when the call as a whole failed. What one entry suffered is in its
    /// [`status`](Copy::status).
    unsafe fn copy(&mut self, batch: &mut [Copy]) -> Result<(), Error>;
}

/// One copy of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// The guest's page.
    pub gref: GrantRef,
    /// Where in that page, in bytes. `offset + len` is at most [`PAGE_SIZE`].
    pub offset: u16,
    /// Bytes to copy.
    pub len: u16,
    /// The private memory. It must not cross a page either.
    pub local: *mut u8,
    /// Which way.
    pub direction: Direction,
    /// What came of it; written by [`Copier::copy`].
    pub status: GrantStatus,
}

// SAFETY: an address and numbers; what may be done with the address, and by whom, is the promise the
// caller of `Copier::copy` makes at the call.
unsafe impl Send for Copy {}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the granted page to private memory.
    FromGuest,
    /// From private memory to the granted page.
    ToGuest,
}

/// Checks a batch as gntdev does before it starts: one entry that crosses a page, on either side, fails
/// the call as a whole.
///
/// # Errors
/// [`Error::InvalidCopy`] with the first such entry.
pub fn validate(batch: &[Copy]) -> Result<(), Error> {
    match batch.iter().position(crosses_a_page) {
        Some(index) => Err(Error::InvalidCopy { index }),
        None => Ok(()),
    }
}

/// Whether an entry leaves its page on either side.
fn crosses_a_page(copy: &Copy) -> bool {
    let len = usize::from(copy.len);
    let beyond = |start: usize| start + len > PAGE_SIZE;
    beyond(usize::from(copy.offset)) || beyond(copy.local.addr() % PAGE_SIZE)
}
