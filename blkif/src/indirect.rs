//! The segments of an indirect request, from the caller's private copy of the pages that hold them.

use crate::limits::{Limits, MAX_INDIRECT_SEGMENTS};
use crate::refusal::Refusal;
use crate::segment::Segment;

/// Parses `count` segments from the bytes of an indirect request's pages, in order and without gaps
/// (512 segments to the page), into `out`, which is emptied first. A caller that keeps `out` with
/// room for `limits.max_indirect` segments allocates nothing here.
///
/// `page_bytes` must be a private copy: what the guest changes while it is parsed must not count.
///
/// # Errors
/// A count outside the limits, too few bytes, or a segment out of its page; `out` is empty then.
pub fn parse_indirect(
    page_bytes: &[u8],
    count: u16,
    limits: &Limits,
    out: &mut Vec<Segment>,
) -> Result<(), Refusal> {
    out.clear();
    let max = limits.max_indirect.min(MAX_INDIRECT_SEGMENTS);
    if count == 0 {
        return Err(Refusal::NoSegments);
    }
    if count > max {
        return Err(Refusal::TooManySegments { count, max });
    }
    let (segments, _) = page_bytes.as_chunks::<8>();
    let Some(segments) = segments.get(..usize::from(count)) else {
        return Err(Refusal::IndirectPages { bytes: page_bytes.len(), count });
    };
    out.reserve(segments.len());
    for (index, [g0, g1, g2, g3, first, last, ..]) in segments.iter().enumerate() {
        let gref = u32::from_le_bytes([*g0, *g1, *g2, *g3]);
        let bounds = u32::from_le_bytes([*first, *last, 0, 0]);
        match Segment::parse(index, gref, bounds) {
            Ok(segment) => out.push(segment),
            Err(refusal) => {
                out.clear();
                return Err(refusal);
            }
        }
    }
    Ok(())
}

/// The bytes of indirect pages that hold `segments`, for a frontend to put there.
pub fn encode_indirect(segments: &[Segment]) -> Vec<u8> {
    segments.iter().flat_map(Segment::words).flat_map(u32::to_le_bytes).collect()
}
