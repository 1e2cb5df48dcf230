//! Growth: the data has become longer, and the sidecar is to cover it.
//!
//! ```text
//! data's length synced -> sidecar lengthened, its new part zeroes (escapes: nothing is protected yet) -> synced
//!   -> header with the new size, synced -> the disk has the new size
//! ```
//!
//! After a crash at any point the header names a part of the data and of the sidecar that is there. The metadata area is
//! the last one, and what its last block holds behind the last entry is a hole's, so nothing that is there moves or
//! changes.

use crate::store::medium::Medium;
use crate::store::sidecar::{BLOCK, Header, Layout, Pair};
use crate::store::{Errno, StoreError};
use rustix::fs::{FallocateFlags, fallocate};
use std::path::Path;

/// The size that a disk has by its data, in whole sectors of `unit` bytes. `served` is its size so far.
///
/// # Errors
/// [`StoreError::Shrunk`]; the kernel's.
pub(crate) fn grown_size(data: &Medium, served: u64, unit: u32) -> Result<u64, StoreError> {
    let found = data.size_now()?;
    if found < served {
        return Err(StoreError::Shrunk { path: data.path.clone(), found, served });
    }
    Ok(found / u64::from(unit) * u64::from(unit))
}

/// Makes the sidecar long enough for `data_bytes` of data, durably, and gives the header that says so, to be written.
///
/// # Errors
/// [`StoreError`]; what the present header says holds as before.
pub(crate) fn lengthen(
    data: &Medium,
    sidecar: &Medium,
    header: &Header,
    data_bytes: u64,
) -> Result<Header, StoreError> {
    let sync = |medium: &Medium| {
        medium.sync().map_err(|Errno(errno)| {
            let error = std::io::Error::from_raw_os_error(errno);
            StoreError::io(&medium.path, "cannot make its new length durable")(error)
        })
    };
    // Or a header could speak of more than there is, and such a disk is not opened.
    sync(data)?;
    let io = |doing| StoreError::io::<rustix::io::Errno>(&sidecar.path, doing);
    let layout = Layout::new(&header.profile, data_bytes, header.metadata.0);
    let metadata_bytes = (layout.blocks() * BLOCK as u64).max(header.metadata.1);
    let new = Header { data_bytes, metadata: (header.metadata.0, metadata_bytes), ..header.clone() };
    let (from, to) = (header.sidecar_bytes(), new.sidecar_bytes());
    let present = sidecar.size_now()?;
    if sidecar.device && present < to {
        return Err(StoreError::SidecarFull { path: sidecar.path.clone(), found: present, needed: to });
    }
    let stale = from..present.min(to);
    if !stale.is_empty() {
        // Whatever lay there, zeroes are what it has to be.
        let how = if sidecar.device { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        fallocate(&sidecar.file, how | FallocateFlags::KEEP_SIZE, stale.start, stale.end - stale.start)
            .map_err(io("cannot zero what it grows into"))?;
    }
    if present < to {
        rustix::fs::ftruncate(&sidecar.file, to).map_err(io("cannot grow"))?;
    }
    // Not past the medium: the kernel tells of a lost page once, and it may be the log's.
    sync(sidecar)?;
    Ok(new)
}

impl Pair {
    /// Makes the sidecar of a disk that nobody serves cover all of the data: gives the size in bytes before and after.
    ///
    /// # Errors
    /// [`StoreError`]; the sidecar then covers what it covered.
    pub(crate) fn grow(&self) -> Result<(u64, u64), StoreError> {
        let before = self.pi.header.data_bytes;
        let after = grown_size(&self.data, before, self.geometry().logical_block)?;
        if after > before {
            let mut header = lengthen(&self.data, &self.pi.medium, &self.pi.header, after)?;
            if header.clean {
                // Making it longer changed the data's time; what it was changed to is what is accepted.
                header.closed = super::Closed::of(self.data.stamp()?);
            }
            self.pi.write_header(header)?;
        }
        Ok((before, after))
    }
}

/// How to go on after a disk was found longer than its sidecar covers; for messages.
pub(super) fn advice(disk: &Path) -> String {
    format!(
        "to use all of it: dixback resize, while a guest has it; else dixback image resize {}",
        disk.display()
    )
}
