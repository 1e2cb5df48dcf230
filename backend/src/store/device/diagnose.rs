//! A device says that PI does not match, and little more. What it is, and where:
//!
//! ```text
//! write   the copy that was sent is checked once more   wrong: memory went bad here     right: sent again, once
//! read    read again, unchecked (NVMe can)              checked here: tag, interval     right: good, or asked once more
//!           refused again (SCSI checks always)    ->    halves, read checked, down to one block; what the tuple says
//! ```
//!
//! What is read unchecked is checked here in the device's own numbers: a tuple that is not the place's own is not mapped,
//! and below a partition its number, as the device counts, may be just what the guest counts there. Below dm and md these
//! numbers are not known, an escape says nothing of its data, and neither does a format without a guard: there it is only
//! looked at, and what seems right is read once more, checked.
//!
//! Everything here happens after a fault, so it may take its time.
#![forbid(unsafe_code)]

use crate::store::PiFault;
use integrity::{Checked, Expected, Guard, Mismatch, PiType, Profile, Tag, Tuple};
use std::ops::Range;

/// What a request's present operations are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To do what was asked.
    Only,
    /// To read what the device refused to vouch for.
    Unchecked,
    /// To find the block that is wrong, among these bytes of the request.
    Search(Range<usize>),
}

/// What comes next of a search in which `found` says whether the part that was just read has a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This is still to be searched: its first half is to be read ([`first_half`]).
    Search(Range<usize>),
    /// This one block has it.
    Here(Range<usize>),
    /// It did not show itself again.
    Nowhere,
}

/// The bytes to read next when `range` is searched in blocks of `block` bytes.
pub(super) fn first_half(range: &Range<usize>, block: usize) -> Range<usize> {
    let blocks = range.len() / block;
    range.start..range.start + blocks.div_ceil(2) * block
}

/// What the reading of a `range`'s first half says.
pub(super) fn narrow(range: &Range<usize>, block: usize, found: bool) -> Next {
    let half = first_half(range, block);
    match (found, half.len() == block) {
        (true, true) => Next::Here(half),
        (true, false) => Next::Search(half),
        (false, _) if half.end < range.end => Next::Search(half.end..range.end),
        (false, _) => Next::Nowhere,
    }
}

/// Where and what a mismatch is that our own check of the data at `offset` found.
pub(super) fn located(profile: &Profile, mismatch: Mismatch, offset: u64) -> PiFault {
    PiFault {
        tag: Some(mismatch.tag),
        offset: Some(offset + (mismatch.interval * profile.interval()) as u64),
        values: Some((mismatch.expected, mismatch.actual)),
    }
}

/// Checks the data at `offset` here, whose first interval has the number `first`.
pub(super) fn examine(
    profile: &Profile,
    data: &[u8],
    metadata: &[u8],
    first: u64,
    offset: u64,
) -> Result<Checked, PiFault> {
    let checked = profile.verify(data, metadata, &Expected::new(first));
    checked.map_err(|mismatch| located(profile, mismatch, offset))
}

/// What a look at data that was read unchecked tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// This does not match.
    Wrong(PiFault),
    /// It is as good as checked by the device.
    Right,
    /// Nothing is wrong with it that could be seen here.
    Unsure,
}

/// Looks at data that was read unchecked at `offset`: the first interval is `number` on the disk, and on the device, where
/// that is known, `on_device`.
pub(super) fn look(
    profile: &Profile,
    data: &[u8],
    metadata: &[u8],
    number: u64,
    on_device: Option<u64>,
    offset: u64,
) -> Look {
    match examine(profile, data, metadata, on_device.unwrap_or(number), offset) {
        Err(fault) => Look::Wrong(fault),
        // On its way a tuple may have become an escape, and nothing else is left then that would show it.
        Ok(Checked { escaped: 0 }) if profile.guard() != Guard::None && on_device.is_some() => Look::Right,
        Ok(_) => Look::Unsure,
    }
}

/// Gives tuples that are right in other numbers those that begin with `first`.
pub(super) fn renumber(profile: &Profile, metadata: &mut [u8], first: u64) {
    if profile.pi_type() != PiType::Type1 {
        return;
    }
    for (reference, metadata) in (first..).zip(metadata.chunks_exact_mut(profile.metadata_size())) {
        // An escape's reference tag is nobody's.
        if !profile.is_escaped(metadata) {
            let tuple = profile.tuple(metadata);
            profile.set_tuple(metadata, Tuple { reference, ..tuple });
        }
    }
}

/// What the refused read of one block at `offset` left of its tuples tells. `untouched` is what was there before;
/// `device_interval` the first interval's number on the device, where it is known. Tags are not mapped after a failure.
pub(super) fn from_tuples(
    profile: &Profile,
    metadata: &[u8],
    untouched: u8,
    device_interval: Option<u64>,
    offset: u64,
) -> PiFault {
    let at = |index: usize| Some(offset + (index * profile.interval()) as u64);
    if profile.pi_type() == PiType::Type3 {
        // There is nothing else that the device looks at.
        return PiFault { tag: Some(Tag::Guard), offset: at(0), values: None };
    }
    let came = metadata.iter().any(|byte| *byte != untouched);
    let Some(first) = device_interval.filter(|_| came) else {
        return PiFault { tag: None, offset: at(0), values: None };
    };
    for (index, tuple) in metadata.chunks_exact(profile.metadata_size()).enumerate() {
        let (expected, actual) =
            ((first + index as u64) & profile.reference_mask(), profile.tuple(tuple).reference);
        if !profile.is_escaped(tuple) && expected != actual {
            return PiFault {
                tag: Some(Tag::Reference),
                offset: at(index),
                values: Some((expected, actual)),
            };
        }
    }
    // The place is right, and of the two tags that are checked the other is the guard.
    PiFault { tag: Some(Tag::Guard), offset: at(0), values: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use integrity::ProfileSpec;

    /// Nothing is wrong, and nothing was left out.
    const WHOLE: Result<Checked, PiFault> = Ok(Checked { escaped: 0 });

    fn profile(pi_type: PiType) -> Profile {
        let spec = ProfileSpec {
            guard: Guard::Crc16T10Dif,
            interval: 512,
            metadata_size: 8,
            pi_offset: 0,
            tag_size: 2,
            pi_type,
        };
        Profile::new(spec).unwrap()
    }

    /// Searches `blocks` blocks of which `bad` fail, and says which was found and in how many reads.
    fn search(blocks: usize, bad: &[usize]) -> (Option<usize>, usize) {
        let (mut range, mut reads) = (0..blocks * 512, 0);
        loop {
            reads += 1;
            let half = first_half(&range, 512);
            assert!(!half.is_empty() && half.end <= range.end);
            let found = bad.iter().any(|block| half.contains(&(block * 512)));
            range = match narrow(&range, 512, found) {
                Next::Search(range) => range,
                Next::Here(range) => return (Some(range.start / 512), reads),
                Next::Nowhere => return (None, reads),
            };
        }
    }

    #[test]
    fn search_when_blocks_are_bad_finds_the_first_and_when_none_is_ends() {
        for blocks in 1..40 {
            for bad in 0..blocks {
                let (found, reads) = search(blocks, &[bad, blocks - 1]);
                assert_eq!(found, Some(bad), "{blocks}");
                assert!(reads <= 8, "{reads} reads for {blocks} blocks");
            }
            assert_eq!(search(blocks, &[]).0, None);
        }
        assert_eq!(search(2048, &[1500]).0, Some(1500));
    }

    #[test]
    fn block_of_another_place_when_the_guest_counts_that_one_here_is_found_by_the_devices_numbers() {
        let profile = profile(PiType::Type1);
        let (data, mut metadata) = ([1; 1024], [0; 16]);
        // On a partition that starts at interval 257: the guest's 261 is the device's 518.
        profile.generate(&data, &mut metadata, 261, 0);
        assert_eq!(examine(&profile, &data, &metadata, 261, 0), WHOLE);
        let fault = PiFault { tag: Some(Tag::Reference), offset: Some(133_632), values: Some((518, 261)) };
        assert_eq!(examine(&profile, &data, &metadata, 518, 133_632), Err(fault));
        profile.generate(&data, &mut metadata, 518, 0);
        assert_eq!(examine(&profile, &data, &metadata, 518, 133_632), WHOLE);
        metadata[8] ^= 1;
        let found = examine(&profile, &data, &metadata, 518, 133_632).unwrap_err();
        assert_eq!((found.tag, found.offset), (Some(Tag::Guard), Some(134_144)));
    }

    #[test]
    fn data_read_unchecked_when_an_escape_or_no_guard_hides_it_is_not_taken_for_right() {
        for pi_type in [PiType::Type1, PiType::Type3] {
            let profile = profile(pi_type);
            let (mut data, mut metadata) = ([1; 1024], [0; 16]);
            profile.generate(&data, &mut metadata, 518, 0);
            let look = |data: &[u8], metadata: &[u8], on_device| {
                super::look(&profile, data, metadata, 518, on_device, 0)
            };
            assert_eq!(look(&data, &metadata, Some(518)), Look::Right);
            // As the guest counts it is right, but the device may count otherwise.
            assert_eq!(look(&data, &metadata, None), Look::Unsure);
            data[600] ^= 1;
            assert!(matches!(look(&data, &metadata, Some(518)), Look::Wrong(_)));
            profile.escape(&mut metadata[8..]);
            assert_eq!(look(&data, &metadata, Some(518)), Look::Unsure);
        }
        let spec = ProfileSpec {
            guard: Guard::None,
            tag_size: 0,
            pi_type: PiType::Type0,
            ..profile(PiType::Type1).spec()
        };
        let none = Profile::new(spec).unwrap();
        assert_eq!(look(&none, &[1; 1024], &[7; 16], 518, Some(518), 0), Look::Unsure);
    }

    #[test]
    fn tuples_when_renumbered_are_right_in_the_new_numbers_and_escapes_stay() {
        let (data, mut metadata) = ([1; 1536], [0; 24]);
        // The new numbers go beyond 32 bits, of which a tag has the lower.
        let new = u64::from(u32::MAX);
        let type1 = profile(PiType::Type1);
        type1.generate(&data, &mut metadata, 518, 0x1234);
        type1.escape(&mut metadata[8..16]);
        renumber(&type1, &mut metadata, new);
        assert_eq!(examine(&type1, &data, &metadata, new, 0), Ok(Checked { escaped: 1 }));
        assert_eq!((type1.tuple(&metadata[16..]).reference, metadata[8..16].to_vec()), (1, vec![0xFF; 8]));
        assert_eq!(type1.tuple(&metadata[..8]).application, 0x1234);
        let type3 = profile(PiType::Type3);
        type3.generate(&data, &mut metadata, 9, 0);
        renumber(&type3, &mut metadata, new);
        assert_eq!(type3.tuple(&metadata[16..]).reference, 9);
    }

    #[test]
    fn tuples_when_they_came_tell_the_tag_and_when_not_nothing() {
        let profile = profile(PiType::Type1);
        let mut metadata = [0; 32];
        profile.generate(&[1; 2048], &mut metadata, 1000, 0);
        let tell = |metadata: &[u8], base| from_tuples(&profile, metadata, 0xA5, base, 8192);
        let guard = PiFault { tag: Some(Tag::Guard), offset: Some(8192), values: None };
        assert_eq!(tell(&metadata, Some(1000)), guard);
        metadata[16 + 7] ^= 1;
        let reference = PiFault { tag: Some(Tag::Reference), offset: Some(9216), values: Some((1002, 1003)) };
        assert_eq!(tell(&metadata, Some(1000)), reference);
        let unknown = PiFault { tag: None, offset: Some(8192), values: None };
        assert_eq!((tell(&metadata, None), tell(&[0xA5; 32], Some(1000))), (unknown, unknown));
        assert_eq!(tell(&[0xFF; 32], Some(1000)).tag, Some(Tag::Guard));
        let type3 = super::tests::profile(PiType::Type3);
        assert_eq!(from_tuples(&type3, &[0xA5; 8], 0xA5, None, 0).tag, Some(Tag::Guard));
    }
}
