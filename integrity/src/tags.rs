//! Tuples of a batch: written, compared, and their reference tags remapped.
#![forbid(unsafe_code)]

use crate::check::{Checked, Escape, Expected, Mismatch, Tag};
use crate::profile::{PiType, Profile};
use crate::tuple::Tuple;

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

/// Writes one tuple per guard.
pub(crate) fn write(
    profile: &Profile,
    guards: &[u64],
    metadata: &mut [u8],
    reference: u64,
    application: u16,
) {
    for (i, (&guard, metadata)) in
        guards.iter().zip(metadata.chunks_exact_mut(profile.metadata_size())).enumerate()
    {
        profile
            .set_tuple(metadata, Tuple { guard, application, reference: profile.reference_of(reference, i) });
    }
}

/// Compares one tuple per guard; the first mismatch names its interval within the batch.
pub(crate) fn compare(
    profile: &Profile,
    guards: &[u64],
    metadata: &[u8],
    expected: &Expected,
) -> Result<Checked, Mismatch> {
    let mut checked = Checked::default();
    for (interval, (&guard, metadata)) in
        guards.iter().zip(metadata.chunks_exact(profile.metadata_size())).enumerate()
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
