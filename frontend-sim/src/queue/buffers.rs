//! The pages of one request: data, metadata, and the segment list of an indirect request.

use blkif::{GrantRef, MAX_SEGMENTS, PAGE_SIZE, SECTOR_SIZE, Segment};
use hypervisor::{Access, DomId, Frontend, Shared};

use crate::{Disk, Error};

/// How many pages of each kind a request may need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    data: usize,
    metadata: usize,
    indirect: bool,
}

impl Shape {
    /// For the largest request of a disk.
    pub(super) fn of(disk: &Disk) -> Self {
        let metadata = disk.dix.map_or(0, |profile| profile.metadata_len(disk.max_bytes()));
        Self {
            data: usize::from(disk.segments),
            metadata: metadata.div_ceil(PAGE_SIZE),
            indirect: usize::from(disk.segments) > MAX_SEGMENTS,
        }
    }
}

/// Shared pages for one request.
pub(super) struct Buffers {
    pub(super) data: Shared,
    pub(super) metadata: Option<Shared>,
    indirect: Option<Shared>,
}

impl Buffers {
    /// Shares them with `backend`.
    pub(super) fn new(hypervisor: &dyn Frontend, backend: DomId, shape: Shape) -> Result<Self, Error> {
        let share = |pages, access| hypervisor.share(backend, pages, access);
        Ok(Self {
            data: share(shape.data, Access::ReadWrite)?,
            metadata: if shape.metadata > 0 { Some(share(shape.metadata, Access::ReadWrite)?) } else { None },
            // The backend only ever reads these.
            indirect: if shape.indirect { Some(share(1, Access::ReadOnly)?) } else { None },
        })
    }

    /// The segments of `bytes` of data from sector `first` of the first page on, into `out`.
    pub(super) fn data_segments(&self, first: u8, bytes: usize, out: &mut Vec<Segment>) {
        segments(self.data.refs(), first, bytes, out);
    }

    /// The segments of `bytes` of metadata, into `out`.
    pub(super) fn metadata_segments(&self, bytes: usize, out: &mut Vec<Segment>) {
        let refs = self.metadata.as_ref().map_or(&[][..], Shared::refs);
        segments(refs, 0, bytes, out);
    }

    /// Puts a segment list into the indirect page, and gives that page. One page holds 512 of them, more
    /// than any backend takes.
    pub(super) fn put_indirect(&self, segments: &[Segment]) -> GrantRef {
        let page = self.indirect.as_ref().expect("the disk takes indirect requests");
        page.write(0, &blkif::encode_indirect(segments));
        GrantRef(page.refs()[0].0)
    }

    /// Takes all grants back.
    pub(super) fn revoke(self) -> Result<(), Error> {
        for shared in [Some(&self.data), self.metadata.as_ref(), self.indirect.as_ref()].into_iter().flatten()
        {
            for index in 0..shared.refs().len() {
                shared.revoke(index).map_err(|error| match error {
                    hypervisor::Error::Busy { gref } => Error::GrantHeld { gref },
                    other => other.into(),
                })?;
            }
        }
        Ok(())
    }
}

/// Segments of pages in a row, the last as long as it must be, in whole sectors.
fn segments(refs: &[hypervisor::GrantRef], first: u8, bytes: usize, out: &mut Vec<Segment>) {
    let per_page = PAGE_SIZE / SECTOR_SIZE;
    let start = usize::from(first);
    let end = start + bytes.div_ceil(SECTOR_SIZE);
    out.clear();
    out.extend(refs[..end.div_ceil(per_page)].iter().enumerate().map(|(page, gref)| {
        let page = page * per_page;
        let from = start.max(page) - page;
        let to = end.min(page + per_page) - page;
        Segment { gref: GrantRef(gref.0), first_sector: from as u8, last_sector: (to - 1) as u8 }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(first: u8, bytes: usize) -> Vec<(u32, u8, u8)> {
        let refs = [10, 11, 12].map(hypervisor::GrantRef);
        let mut out = Vec::new();
        segments(&refs, first, bytes, &mut out);
        out.iter().map(|s| (s.gref.0, s.first_sector, s.last_sector)).collect()
    }

    #[test]
    fn segments_when_data_starts_inside_a_page_then_cover_just_the_data() {
        assert_eq!(spans(0, 4096), [(10, 0, 7)]);
        assert_eq!(spans(3, 512), [(10, 3, 3)]);
        assert_eq!(spans(7, 4096), [(10, 7, 7), (11, 0, 6)]);
        assert_eq!(spans(1, 8192), [(10, 1, 7), (11, 0, 7), (12, 0, 0)]);
        assert_eq!(spans(0, 520), [(10, 0, 1)], "slack of metadata");
        assert_eq!(spans(0, 0), []);
    }
}
