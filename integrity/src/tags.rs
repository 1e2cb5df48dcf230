//! Tuples of a batch: written, compared, and their reference tags remapped.
#![forbid(unsafe_code)]

use crate::bulk::{self, Wanted};
use crate::check::{Checked, Escape, Expected, Mismatch, Tag};
use crate::profile::{Guard, PiType, Profile};
use crate::tuple::{ESCAPE_APPLICATION, Tuple};

impl Profile {
    /// Replaces reference tags, as a disk that lies somewhere on another does: in type 1, where interval `i`'s tag
    /// is the low bits of `from + i`, it becomes those of `to + i`; any other tag is left, so that what was wrong
    /// stays wrong. In types 3 and 0 nothing is done. (Linux: `blk_integrity_prepare` and `_complete`.)
    ///
    /// # Panics
    /// If `metadata` is not that of a whole number of intervals.
    pub fn remap(&self, metadata: &mut [u8], from: u64, to: u64) {
        assert_eq!(metadata.len() % self.metadata_size(), 0, "metadata of whole intervals");
        if self.pi_type() != PiType::Type1 {
            return;
        }
        match (self.guard(), self.metadata_size()) {
            (Guard::Crc16T10Dif | Guard::Ip, 8) => return bulk::remap8(self.kernel(), metadata, from, to),
            (Guard::Crc64Nvme, 16) => return bulk::remap16(self.kernel(), metadata, from, to),
            _ => {}
        }
        let mask = self.reference_mask();
        for (i, metadata) in (0..).zip(metadata.chunks_exact_mut(self.metadata_size())) {
            let tuple = self.tuple(metadata);
            if tuple.reference == from.wrapping_add(i) & mask {
                self.set_tuple(metadata, Tuple { reference: to.wrapping_add(i), ..tuple });
            }
        }
    }

    /// The reference tag of interval `index` of a buffer whose first one's is `reference`.
    pub(crate) fn reference_of(&self, reference: u64, index: usize) -> u64 {
        match self.pi_type() {
            PiType::Type1 => reference.wrapping_add(index as u64),
            PiType::Type0 | PiType::Type3 => reference,
        }
    }
}

/// The tags to be made, as words.
pub(crate) fn made(profile: &Profile, reference: u64, application: u16) -> Wanted {
    let tag_bits = profile.reference_mask().count_ones();
    Wanted {
        application: u64::from(application) << tag_bits,
        reference,
        step: if profile.pi_type() == PiType::Type1 { u64::MAX } else { 0 },
        reference_mask: profile.reference_mask(),
        mask: 0,
        escape: u64::from(ESCAPE_APPLICATION) << tag_bits,
    }
}

/// The tags to be found, as words.
pub(crate) fn expected(profile: &Profile, expected: &Expected) -> Wanted {
    let (value, mask) = expected.application.map_or((0, 0), |tag| (tag.value, tag.mask));
    let mut wanted = made(profile, expected.reference, value);
    wanted.mask = u64::from(mask) << profile.reference_mask().count_ones();
    if profile.pi_type() == PiType::Type1 {
        wanted.mask |= profile.reference_mask();
    }
    wanted
}

/// Writes one tuple per register.
pub(crate) fn write(profile: &Profile, registers: &[u64], metadata: &mut [u8], tags: &Wanted) {
    let (kernel, size, offset) = (profile.kernel(), profile.metadata_size(), profile.pi_offset());
    match profile.guard() {
        Guard::None => {}
        guard @ (Guard::Crc16T10Dif | Guard::Ip) => {
            bulk::write8(kernel, guard, metadata, size, offset, registers, tags)
        }
        Guard::Crc64Nvme => bulk::write16(kernel, metadata, size, offset, registers, tags),
    }
}

/// Whether one tuple per register is as expected, and none an escape: what is nearly always so, and quickly seen.
pub(crate) fn agree(profile: &Profile, registers: &[u64], metadata: &[u8], wanted: &Wanted) -> bool {
    let (kernel, size, offset) = (profile.kernel(), profile.metadata_size(), profile.pi_offset());
    if let Some(agree) = kernel.agree(profile.guard(), metadata, size, registers, wanted) {
        return agree;
    }
    match profile.guard() {
        Guard::None => true,
        guard @ (Guard::Crc16T10Dif | Guard::Ip) => {
            bulk::agree8(kernel, guard, metadata, size, offset, registers, wanted)
        }
        Guard::Crc64Nvme => bulk::agree16(kernel, metadata, size, offset, registers, wanted),
    }
}

/// Compares one tuple per register, where they do not [`agree`]; the first mismatch names its interval within the batch.
#[cold]
pub(crate) fn compare(
    profile: &Profile,
    registers: &[u64],
    metadata: &[u8],
    expected: &Expected,
) -> Result<Checked, Mismatch> {
    let mut checked = Checked::default();
    for (interval, (&register, metadata)) in
        registers.iter().zip(metadata.chunks_exact(profile.metadata_size())).enumerate()
    {
        let tuple = profile.tuple(metadata);
        if profile.is_escape(&tuple) {
            if expected.escape == Escape::Refuse {
                return Err(Mismatch {
                    interval,
                    tag: Tag::Application,
                    expected: expected.application.map_or(0, |application| u64::from(application.value)),
                    actual: u64::from(tuple.application),
                });
            }
            checked.escaped += 1;
            continue;
        }
        let mismatch = |tag, expected, actual| Err(Mismatch { interval, tag, expected, actual });
        let guard = bulk::number(profile.guard(), register);
        if tuple.guard != guard {
            return mismatch(Tag::Guard, guard, tuple.guard);
        }
        if let Some(application) = expected.application
            && (tuple.application ^ application.value) & application.mask != 0
        {
            return mismatch(Tag::Application, u64::from(application.value), u64::from(tuple.application));
        }
        let reference = profile.reference_of(expected.reference, interval) & profile.reference_mask();
        if profile.pi_type() == PiType::Type1 && tuple.reference != reference {
            return mismatch(Tag::Reference, reference, tuple.reference);
        }
    }
    Ok(checked)
}
