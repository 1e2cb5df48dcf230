//! What a guest needs: pages to share and ports to be bound.

use std::ptr::NonNull;

use crate::memory;
use crate::{Counted, DomId, Error, EventChannel, GrantRef, PAGE_SIZE};

/// The guest's side.
pub trait Frontend: Counted + Send + Sync {
    /// This domain.
    fn domain(&self) -> DomId;

    /// New zeroed pages, contiguous here, each granted to `with` under a reference of its own. Allocating
    /// and granting are one step, as in gntalloc: memory that exists already cannot be granted.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when the domain's memory or its grant table is full (gntalloc: its `limit`);
    /// [`Error::Invalid`] for no pages, or more than one call can give.
    fn share(&self, with: DomId, pages: usize, access: Access) -> Result<Shared, Error>;

    /// A port that `remote`, and nobody else, can bind.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when there are no more ports.
    fn allocate(&self, remote: DomId) -> Result<Box<dyn EventChannel>, Error>;
}

/// What the other domain may do with a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it (GTF_readonly).
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// How an implementation takes grants back. Dropping it takes back all that are left.
pub trait Revoke: Send + Sync {
    /// Takes back the grant of page `index`, which is in range. Once more does nothing.
    ///
    /// # Errors
    /// [`Error::Busy`] while the other domain uses it.
    fn revoke(&self, index: usize) -> Result<(), Error>;
}

/// Pages shared with another domain. Dropping it takes the grants back; a page the other domain still
/// has mapped is taken back, and reused, only when that mapping ends.
///
/// The other domain reads and writes these bytes at any time, so no Rust reference to them is ever made:
/// use [`read`](Self::read) and [`write`](Self::write), or the pointer with atomic accesses.
pub struct Shared {
    base: NonNull<u8>,
    refs: Box<[GrantRef]>,
    owner: Box<dyn Revoke>,
}

// SAFETY: the pages are shared memory by nature and reached through raw pointers only; `owner` is
// Send + Sync by its bound.
unsafe impl Send for Shared {}
// SAFETY: as for Send; `read` and `write` from several threads race as the other domain does, on raw
// memory whose content carries no invariant.
unsafe impl Sync for Shared {}

impl Shared {
    /// Pages that an implementation has granted.
    ///
    /// # Safety
    /// `refs.len()` pages at `base`, page-aligned, are mapped read-write for as long as `owner` exists,
    /// even after their grants are revoked, and no Rust reference to them exists.
    pub unsafe fn new(base: NonNull<u8>, refs: Box<[GrantRef]>, owner: Box<dyn Revoke>) -> Self {
        Self { base, refs, owner }
    }

    /// Where the pages start, page-aligned.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes shared.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.refs.len() * PAGE_SIZE
    }

    /// One reference per page.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }

    /// Takes back the grant of one page. The memory stays usable here; what it contains afterwards is
    /// unspecified (on Xen the page must be given back to make gntalloc drop the grant).
    ///
    /// Where the hypervisor can tell, a page in use stays granted and the answer is `Busy`; gntalloc
    /// cannot tell, and drops the grant when the use ends. Revoking a page once more does nothing.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Invalid`] for an index out of range.
    pub fn revoke(&self, index: usize) -> Result<(), Error> {
        if index >= self.refs.len() {
            return Err(Error::Invalid { what: "no such page to revoke" });
        }
        self.owner.revoke(index)
    }

    /// Copies from the pages at byte `offset`.
    ///
    /// # Panics
    /// If the range is not inside [`len`](Self::len).
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.range(offset, into.len());
        // SAFETY: `range` checked that the bytes are inside the mapping, which `owner` keeps.
        unsafe { memory::copy(from.cast_const(), into.as_mut_ptr(), into.len()) }
    }

    /// Copies to the pages at byte `offset`.
    ///
    /// # Panics
    /// If the range is not inside [`len`](Self::len).
    pub fn write(&self, offset: usize, from: &[u8]) {
        let into = self.range(offset, from.len());
        // SAFETY: `range` checked that the bytes are inside the mapping, which `owner` keeps.
        unsafe { memory::copy(from.as_ptr(), into, from.len()) }
    }

    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).expect("an offset and a length of memory");
        assert!(end <= self.len(), "{offset}+{len} is beyond {} shared bytes", self.len());
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("base", &self.base).field("refs", &self.refs.len()).finish()
    }
}
