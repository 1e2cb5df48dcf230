//! Whether a disk's data carries the application tag that its operator demands of it.

use crate::store::StoreError;
use crate::store::lock::Access;
use crate::store::medium::Direct;
use crate::store::sidecar::{BLOCK, PiFile};
use integrity::AppTag;
use rustix::fs::{SeekFrom, seek};
use std::path::Path;

/// Blocks of metadata that are looked at: what `image protect` made, or another owner left, shows in the first.
const LOOK: usize = 256;

/// The first interval found whose tag is another, and that tag. Only the start of what the sidecar holds is looked at, so
/// nothing found says little; each read is checked anyway.
///
/// # Errors
/// [`StoreError`]: the sidecar cannot be read.
pub(crate) fn foreign_tag(
    data: &Path,
    sidecar: &Path,
    wanted: AppTag,
) -> Result<Option<(u64, u16)>, StoreError> {
    let pi = PiFile::open(sidecar, data, Access::Shared, Direct::Off, false)?;
    let (profile, layout) = (pi.header.profile, pi.layout);
    let per_block = (BLOCK / layout.entry()) as u64;
    let mut metadata = vec![0; BLOCK / layout.entry() * layout.entry()];
    let (mut block, mut looked) = (0, 0);
    while block < layout.blocks() && looked < LOOK {
        // Holes are escapes; where a file system cannot tell, there are none.
        match seek(&pi.medium.file, SeekFrom::Data(layout.position(block))) {
            Ok(at) => block = block.max((at - layout.position(0)) / BLOCK as u64),
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            Err(_) => {}
        }
        if block >= layout.blocks() {
            return Ok(None);
        }
        let first = block * per_block;
        let count = per_block.min(layout.intervals() - first) as usize;
        let metadata = &mut metadata[..count * layout.entry()];
        pi.read_metadata(first, metadata).map_err(StoreError::io(sidecar, "cannot read the metadata"))?;
        for (interval, entry) in (first..).zip(metadata.chunks_exact(layout.entry())) {
            let tag = profile.tuple(entry).application;
            if tag & wanted.mask != wanted.value & wanted.mask && !profile.is_escaped(entry) {
                return Ok(Some((interval, tag)));
            }
        }
        (block, looked) = (block + 1, looked + 1);
    }
    Ok(None)
}
