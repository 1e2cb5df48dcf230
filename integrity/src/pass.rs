//! The one pass over the data that all operations share, and the operations.
//!
//! ```text
//!   segments -> whole intervals in one piece ------> kernel (and copy) ---+
//!            -> an interval cut by a border -> gathered, then as above ---+-> a batch of registers
//!                                                                                |
//!               metadata before the tuple -----------------------------------> extend
//!                                                                                |
//!               tuples <------------------------------- write or compare <---- guards
//! ```
#![forbid(unsafe_code)]

use std::convert::Infallible;

use crate::check::{Checked, Expected, Mismatch};
use crate::guard::Stream;
use crate::profile::{Guard, Profile};
use crate::segments::Segments;
use crate::tags;

/// How many intervals are between two steps: so many that starting and ending a kernel, some 30 ns, is little beside
/// them, few enough that what comes after finds their tuples and registers, and a copy, in the first-level cache.
const BATCH: usize = 64;

/// How many intervals a small request has, 4 KiB of the shortest ones: making room for the registers of a whole batch
/// takes a tenth of the time of such a request.
const FEW: usize = 8;

/// The longest interval that is gathered on the stack when a border cuts it. Longer ones are summed piece by piece.
const GATHERED: usize = 4096;

impl Profile {
    /// Makes the tuples of all intervals of `data`: guard, `application`, and the reference tag, which in type 1
    /// is `reference` for the first interval and one more for each further one, and in type 3 is `reference` for
    /// all. Bits beyond the reference tag's 32 or 48 are dropped. Metadata around the tuples is left as it is;
    /// the guard covers that before the tuple. In type 0 nothing is done.
    ///
    /// # Panics
    /// If `data` is not a whole number of intervals or `metadata` not exactly
    /// [`metadata_len`](Profile::metadata_len) of it; so do all operations below.
    pub fn generate(&self, data: &[u8], metadata: &mut [u8], reference: u64, application: u16) {
        self.generate_segments(&[data], metadata, reference, application);
    }

    /// [`generate`](Profile::generate) for data that lies in segments, whose borders may cut intervals anywhere.
    pub fn generate_segments(&self, data: &[&[u8]], metadata: &mut [u8], reference: u64, application: u16) {
        self.make(data, None, metadata, reference, application);
    }

    /// Copies `source` to `copy` and makes the tuples of what it copied, loading each byte of the source once.
    pub fn copy_generate(
        &self,
        source: &[&[u8]],
        copy: &mut [u8],
        metadata: &mut [u8],
        reference: u64,
        application: u16,
    ) {
        self.make(source, Some(copy), metadata, reference, application);
    }

    /// Checks the tuples of all intervals of `data`. In type 0 nothing is checked.
    ///
    /// # Errors
    /// The first [`Mismatch`]: the first interval that has one, and in it guard before application tag before
    /// reference tag.
    pub fn verify(&self, data: &[u8], metadata: &[u8], expected: &Expected) -> Result<Checked, Mismatch> {
        self.verify_segments(&[data], metadata, expected)
    }

    /// [`verify`](Profile::verify) for data that lies in segments, whose borders may cut intervals anywhere.
    ///
    /// # Errors
    /// As [`verify`](Profile::verify).
    pub fn verify_segments(
        &self,
        data: &[&[u8]],
        metadata: &[u8],
        expected: &Expected,
    ) -> Result<Checked, Mismatch> {
        self.check(data, None, metadata, expected)
    }

    /// Copies `source` to `copy` and checks what it copied, loading each byte of the source once, so that what was
    /// checked is what was stored.
    ///
    /// # Errors
    /// As [`verify`](Profile::verify); then `copy` holds part of the source, and possibly all of it.
    pub fn copy_verify(
        &self,
        source: &[&[u8]],
        copy: &mut [u8],
        metadata: &[u8],
        expected: &Expected,
    ) -> Result<Checked, Mismatch> {
        self.check(source, Some(copy), metadata, expected)
    }

    fn make(
        &self,
        data: &[&[u8]],
        copy: Option<&mut [u8]>,
        metadata: &mut [u8],
        reference: u64,
        application: u16,
    ) {
        let size = self.metadata_size();
        let wanted = tags::made(self, reference, application);
        let done = self.pass(data, copy, metadata.len(), |first, registers| {
            let metadata = &mut metadata[first * size..][..registers.len() * size];
            self.extend(registers, metadata);
            tags::write(self, registers, metadata, &wanted.from(first));
            Ok::<(), Infallible>(())
        });
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    fn check(
        &self,
        data: &[&[u8]],
        copy: Option<&mut [u8]>,
        metadata: &[u8],
        expected: &Expected,
    ) -> Result<Checked, Mismatch> {
        let size = self.metadata_size();
        let mut checked = Checked::default();
        let wanted = tags::expected(self, expected);
        self.pass(data, copy, metadata.len(), |first, registers| {
            let metadata = &metadata[first * size..][..registers.len() * size];
            self.extend(registers, metadata);
            if tags::agree(self, registers, metadata, &wanted.from(first)) {
                return Ok(());
            }
            let expected = Expected { reference: self.reference_of(expected.reference, first), ..*expected };
            match tags::compare(self, registers, metadata, &expected) {
                Ok(batch) => checked.escaped += batch.escaped,
                Err(mismatch) => return Err(Mismatch { interval: first + mismatch.interval, ..mismatch }),
            }
            Ok(())
        })?;
        Ok(checked)
    }

    /// Adds the metadata before the tuple to the registers.
    fn extend(&self, registers: &mut [u64], metadata: &[u8]) {
        if self.pi_offset() > 0 {
            let (size, length) = (self.metadata_size(), self.pi_offset());
            self.kernel().extend(self.guard(), registers, metadata, size, length);
        }
    }

    /// Goes over the data batch by batch, and hands each batch's registers to `each`, with the index of its first
    /// interval.
    fn pass<E>(
        &self,
        data: &[&[u8]],
        mut copy: Option<&mut [u8]>,
        metadata_len: usize,
        each: impl FnMut(usize, &mut [u64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = Segments::total(data);
        let intervals = self.intervals(length);
        assert_eq!(intervals * self.interval(), length, "data must be whole intervals");
        assert_eq!(intervals * self.metadata_size(), metadata_len, "metadata must be that of the data");
        if let Some(copy) = &copy {
            assert_eq!(copy.len(), length, "a copy is as long as its source");
        }
        let mut data = Segments::new(data);
        if self.guard() == Guard::None {
            while let (Some(to), piece @ [_, ..]) = (copy.take(), data.take(usize::MAX)) {
                let (here, rest) = to.split_at_mut(piece.len());
                here.copy_from_slice(piece);
                copy = Some(rest);
            }
            return Ok(());
        }
        if intervals <= FEW {
            self.batches::<FEW, E>(intervals, data, copy, each)
        } else {
            self.batches::<BATCH, E>(intervals, data, copy, each)
        }
    }

    /// [`pass`](Profile::pass) in batches of `N` intervals.
    fn batches<const N: usize, E>(
        &self,
        intervals: usize,
        mut data: Segments<'_>,
        mut copy: Option<&mut [u8]>,
        mut each: impl FnMut(usize, &mut [u64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut registers = [0; N];
        for first in (0..intervals).step_by(N) {
            let registers = &mut registers[..N.min(intervals - first)];
            let copy = copy.as_deref_mut().map(|copy| &mut copy[first * self.interval()..]);
            self.fill(&mut data, copy, registers);
            each(first, registers)?;
        }
        Ok(())
    }

    /// Takes one interval per register from `data` and computes it; the copy goes to the start of `copy`.
    fn fill(&self, data: &mut Segments<'_>, mut copy: Option<&mut [u8]>, registers: &mut [u64]) {
        let interval = self.interval();
        let mut filled = 0;
        while filled < registers.len() {
            let copy = copy.as_deref_mut().map(|copy| &mut copy[filled * interval..]);
            let whole = data.take_whole(interval, registers.len() - filled);
            if whole.is_empty() {
                registers[filled] = self.gather(data, copy);
                filled += 1;
                continue;
            }
            let count = self.intervals(whole.len());
            let registers = &mut registers[filled..filled + count];
            match copy {
                Some(copy) => {
                    self.kernel().copy(self.guard(), interval, whole, &mut copy[..whole.len()], registers);
                }
                None => self.kernel().scan(self.guard(), interval, whole, registers),
            }
            filled += count;
        }
    }

    /// The register of one interval that a border cuts. Its copy, if one is wanted, is what is computed, so that
    /// here too the source is loaded once.
    fn gather(&self, data: &mut Segments<'_>, copy: Option<&mut [u8]>) -> u64 {
        let interval = self.interval();
        let mut gathered = [0; GATHERED];
        let whole = match copy {
            Some(copy) => &mut copy[..interval],
            None if interval <= GATHERED => &mut gathered[..interval],
            None => {
                let mut stream = Stream::new(self.guard());
                let mut left = interval;
                while left > 0 {
                    let piece = data.take(left);
                    stream.update(piece);
                    left -= piece.len();
                }
                return stream.register();
            }
        };
        let mut filled = 0;
        while filled < interval {
            let piece = data.take(interval - filled);
            whole[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        let mut register = [0];
        self.kernel().scan(self.guard(), interval, whole, &mut register);
        register[0]
    }
}
