//! After a crash of a disk that kept a bitmap: whatever does not match in a dirty region is sealed anew, and named.

use crate::store::StoreError;
use crate::store::sidecar::pifile::invert;
use crate::store::sidecar::replay::{Progress, Recovered};
use crate::store::sidecar::{BLOCK, Pair};
use integrity::{Expected, PiType};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Most data read at once.
const PART: u64 = 1 << 20;

/// Goes through every dirty region.
pub(in crate::store::sidecar) fn recover(
    pair: &Pair,
    progress: Progress<'_>,
) -> Result<Recovered, StoreError> {
    let medium = &pair.pi.medium;
    let bits = read_bits(pair).map_err(StoreError::io(&medium.path, "cannot read the bitmap"))?;
    let no_memory = StoreError::io(&medium.path, "no memory for a recovery");
    let map = |bytes| MmapOptions::new().len(bytes).map_anon();
    let buffers = map(BLOCK).and_then(|block| Ok((block, map(PART as usize)?)));
    let (block, data) = buffers.map_err(no_memory)?;
    let mut sealer = Sealer { pair, block, data, done: Recovered::default() };
    let header = &pair.pi.header;
    let [region, length, _] = header.log_state;
    // A damaged number must not stop the rest: everything is dirty then.
    let sound = region >= PART && region.is_power_of_two() && length > 0 && length <= bits.len() as u64 * 8;
    let region = if sound { region } else { PART };
    let total = header.data_bytes.div_ceil(region);
    for number in 0..total {
        let bit = if sound { (number % length) as usize } else { 0 };
        if !sound || bits[bit / 8] >> (bit % 8) & 1 == 1 {
            let end = ((number + 1) * region).min(header.data_bytes);
            sealer.range(number * region..end)?;
        }
        progress(number + 1, total);
    }
    Ok(sealer.done)
}

fn read_bits(pair: &Pair) -> io::Result<Vec<u8>> {
    let [_, length, _] = pair.pi.header.log_state;
    let (start, area) = pair.pi.header.log;
    let bytes = length.min(area * 8).div_ceil(8).next_multiple_of(BLOCK as u64).min(area);
    let mut bits =
        MmapOptions::new().len(usize::try_from(bytes).map_err(io::Error::other)?.max(1)).map_anon()?;
    pair.pi.medium.file.read_exact_at(&mut bits[..bytes as usize], start)?;
    Ok(bits[..bytes as usize].to_vec())
}

struct Sealer<'a> {
    pair: &'a Pair,
    block: MmapMut,
    data: MmapMut,
    done: Recovered,
}

impl Sealer<'_> {
    /// A range of bytes of data, whole intervals.
    fn range(&mut self, bytes: Range<u64>) -> Result<(), StoreError> {
        let layout = self.pair.pi.layout;
        let interval = layout.interval();
        let (mut first, end) = (bytes.start / interval, bytes.end / interval);
        while first < end {
            // Up to a block's end, and no more than fits.
            let per_block = layout.data_per_block() / interval;
            let next = ((first / per_block + 1) * per_block).min(end).min(first + (PART / interval).max(1));
            self.part(first, next - first)?;
            first = next;
        }
        Ok(())
    }

    fn part(&mut self, first: u64, count: u64) -> Result<(), StoreError> {
        let Pair { data: medium, pi } = self.pair;
        let (layout, profile) = (pi.layout, pi.header.profile);
        let (interval, entry) = (profile.interval(), layout.entry());
        let block = layout.blocks_of(first, count).start;
        let piece = layout.piece(first, count, block);
        let at = layout.position(block);
        pi.medium
            .file
            .read_exact_at(&mut self.block, at)
            .map_err(StoreError::io(&pi.medium.path, "cannot read the metadata"))?;
        invert(&mut self.block);
        let bytes = &mut self.data[..count as usize * interval];
        let whole = medium.read_exact_at(bytes, first * layout.interval()).is_ok();
        let mut changed = false;
        for (index, entry) in self.block[piece.in_block].chunks_exact_mut(entry).enumerate() {
            let number = first + index as u64;
            let data = &mut bytes[index * interval..][..interval];
            self.done.intervals += 1;
            if !whole && medium.read_exact_at(data, number * layout.interval()).is_err() {
                self.done.bad.add(number);
                continue;
            }
            let reference = if profile.pi_type() == PiType::Type1 { number } else { 0 };
            if profile.verify(data, entry, &Expected::new(reference)).is_err() {
                let old = profile.tuple(entry);
                let reference = if profile.pi_type() == PiType::Type1 { number } else { old.reference };
                profile.generate(data, entry, reference, old.application);
                self.done.sealed.add(number);
                changed = true;
            }
        }
        if changed {
            invert(&mut self.block);
            let written = pi.medium.write_all_at(&self.block, at);
            written.map_err(StoreError::io(&pi.medium.path, "cannot write the metadata"))?;
        }
        self.done.updated = self.done.sealed.count;
        Ok(())
    }
}
