//! What every block of the disk may contain.
//!
//! A block's content follows from the seed, its number and a stamp, the number of the write that wrote it.
//! While requests overlap, several stamps are possible at once:
//!
//! ```text
//!   write submitted   its stamp becomes possible
//!   write completed   stamps whose writes had completed before it was submitted are no longer possible
//!   read              may find what was possible when it was submitted, or became so since
//! ```

use crate::Error;

/// Stamps grow with every event, so they also say what came before what.
pub(super) type Stamp = u64;

/// Written at a block's start.
const MAGIC: u64 = 0x6469_7862_6163_6b21;

#[derive(Clone, Copy)]
struct Possible {
    stamp: Stamp,
    completed: Option<Stamp>,
    discard: bool,
}

/// The region of the disk that is written.
pub(super) struct Model {
    seed: u64,
    block: usize,
    now: Stamp,
    blocks: Vec<Vec<Possible>>,
    /// The newest discard of each block: one that came and went during a read is on no list any more, and
    /// leaves no stamp.
    discarded: Vec<Stamp>,
    /// Requests in flight on each block, in order to keep clear of them if asked to.
    busy: Vec<u16>,
}

/// What a read may find, taken when it is submitted.
pub(super) struct View {
    since: Stamp,
    possible: Vec<Vec<Possible>>,
}

impl Model {
    /// So many blocks of so many bytes, of which nothing is known.
    pub(super) fn new(seed: u64, blocks: usize, block: usize) -> Self {
        Self {
            seed,
            block,
            now: 0,
            blocks: vec![Vec::new(); blocks],
            discarded: vec![0; blocks],
            busy: vec![0; blocks],
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn tick(&mut self) -> Stamp {
        self.now += 1;
        self.now
    }

    /// Whether anything is in flight there.
    pub(super) fn is_busy(&self, first: usize, count: usize) -> bool {
        self.busy[first..first + count].iter().any(|requests| *requests > 0)
    }

    fn occupy(&mut self, first: usize, count: usize) {
        self.busy[first..first + count].iter_mut().for_each(|requests| *requests += 1);
    }

    fn vacate(&mut self, first: usize, count: usize) {
        self.busy[first..first + count].iter_mut().for_each(|requests| *requests -= 1);
    }

    /// A write, or a discard, is about to be submitted; gives its stamp.
    pub(super) fn write_submitted(&mut self, first: usize, count: usize, discard: bool) -> Stamp {
        let stamp = self.tick();
        self.occupy(first, count);
        for possible in &mut self.blocks[first..first + count] {
            possible.push(Possible { stamp, completed: None, discard });
        }
        if discard {
            self.discarded[first..first + count].fill(stamp);
        }
        stamp
    }

    /// It was acknowledged.
    pub(super) fn write_completed(&mut self, first: usize, count: usize, stamp: Stamp) {
        let now = self.tick();
        self.vacate(first, count);
        for possible in &mut self.blocks[first..first + count] {
            possible.retain_mut(|one| {
                if one.stamp == stamp {
                    one.completed = Some(now);
                }
                one.completed.is_none_or(|completed| completed >= stamp)
            });
        }
    }

    /// A read is about to be submitted.
    pub(super) fn read_submitted(&mut self, first: usize, count: usize) -> View {
        self.occupy(first, count);
        View { since: self.tick(), possible: self.blocks[first..first + count].to_vec() }
    }

    /// It came back; the answer is whether every block contains what it may.
    pub(super) fn read_completed(&mut self, first: usize, view: &View, data: &[u8]) -> Result<(), Error> {
        self.vacate(first, view.possible.len());
        let mut expected = vec![0; self.block];
        for (index, content) in data.chunks_exact(self.block).enumerate() {
            let block = first + index;
            let later = self.blocks[block].iter().filter(|one| one.stamp > view.since);
            let all = view.possible[index].iter().chain(later);
            let discarded = all.clone().any(|one| one.discard) || self.discarded[block] > view.since;
            let newest = self.now;
            if discarded && content.iter().all(|byte| *byte == 0) {
                continue;
            }
            let stamp = stamp_of(content);
            fill(self.seed, block, stamp, &mut expected);
            if let Some(at) = content.iter().zip(&expected).position(|(one, two)| one != two) {
                return Err(Error::Data(format!(
                    "block {block} is not as any write left it: byte {at} is {:#04x}, of write {stamp} it is \
                     {:#04x}; possible are {:?}",
                    content[at],
                    expected[at],
                    all.map(|one| one.stamp).collect::<Vec<_>>(),
                )));
            }
            // A write that came and went since is on no list any more; that it was this block's is known
            // from the content.
            let possible = all.clone().any(|one| one.stamp == stamp)
                || (view.since < stamp && stamp <= newest)
                || (discarded && stamp <= newest);
            if !possible {
                return Err(Error::Data(format!(
                    "block {block} has what write {stamp} left; possible are {:?}: {}",
                    all.map(|one| one.stamp).collect::<Vec<_>>(),
                    "a write was lost, or old data came back",
                )));
            }
        }
        Ok(())
    }

    /// The bytes that a write of these blocks with this stamp writes.
    pub(super) fn content(&self, first: usize, stamp: Stamp, into: &mut [u8]) {
        for (index, content) in into.chunks_exact_mut(self.block).enumerate() {
            fill(self.seed, first + index, stamp, content);
        }
    }
}

fn stamp_of(content: &[u8]) -> Stamp {
    u64::from_le_bytes(*content[16..].first_chunk().expect("a block of at least 512 bytes"))
}

/// Magic, block, stamp, then words that follow from seed, block and stamp and differ at every place.
fn fill(seed: u64, block: usize, stamp: Stamp, into: &mut [u8]) {
    let mut state = (seed ^ (block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(stamp.wrapping_mul(0xd134_2543_de82_ef95))
        | 1;
    for (index, word) in into.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let value = match index {
            0 => MAGIC ^ seed,
            1 => block as u64,
            2 => stamp,
            _ => {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            }
        };
        *word = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::new(7, 4, 512)
    }

    fn content(block: usize, stamp: Stamp) -> Vec<u8> {
        let mut content = vec![0; 512];
        model().content(block, stamp, &mut content);
        content
    }

    fn read(model: &mut Model, data: &[u8]) -> Result<(), Error> {
        let view = model.read_submitted(0, 1);
        model.read_completed(0, &view, data)
    }

    #[test]
    fn read_when_after_a_write_then_only_that_is_possible() {
        let mut model = model();
        let old = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, old);
        let new = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, new);
        assert!(read(&mut model, &content(0, new)).is_ok());
        assert!(read(&mut model, &content(0, old)).is_err(), "old data");
        assert!(read(&mut model, &content(1, new)).is_err(), "another block's");
        let mut torn = content(0, new);
        torn[256..].copy_from_slice(&content(0, old)[256..]);
        assert!(read(&mut model, &torn).is_err(), "half of each");
        assert!(read(&mut model, &[0; 512]).is_err());
    }

    #[test]
    fn read_when_writes_overlap_it_then_any_of_them_is_possible() {
        let mut model = model();
        let old = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, old);
        for stamp_choice in 0..3 {
            let before = model.write_submitted(0, 1, false);
            let view = model.read_submitted(0, 1);
            let during = model.write_submitted(0, 1, false);
            model.write_completed(0, 1, before);
            model.write_completed(0, 1, during);
            let after = model.write_submitted(0, 1, false);
            model.write_completed(0, 1, after);
            let stamp = [before, during, after][stamp_choice];
            let data = content(0, stamp);
            assert!(model.read_completed(0, &view, &data).is_ok(), "{stamp_choice}");
        }
    }

    #[test]
    fn read_when_two_writes_overlapped_then_either_is_possible_until_a_third() {
        let mut model = model();
        let one = model.write_submitted(0, 1, false);
        let two = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, two);
        model.write_completed(0, 1, one);
        for stamp in [one, two] {
            assert!(read(&mut model, &content(0, stamp)).is_ok());
        }
        let three = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, three);
        for stamp in [one, two] {
            assert!(read(&mut model, &content(0, stamp)).is_err());
        }
    }

    #[test]
    fn read_when_discarded_then_zeros_or_anything_written_before() {
        let mut model = model();
        let old = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, old);
        let discard = model.write_submitted(0, 1, true);
        model.write_completed(0, 1, discard);
        assert!(read(&mut model, &[0; 512]).is_ok());
        assert!(read(&mut model, &content(0, old)).is_ok());
        assert!(read(&mut model, &[1; 512]).is_err());
        let new = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, new);
        assert!(read(&mut model, &[0; 512]).is_err());
    }

    #[test]
    fn read_when_a_discard_came_and_went_during_it_then_zeros_are_possible() {
        let mut model = model();
        let old = model.write_submitted(0, 1, false);
        model.write_completed(0, 1, old);
        let view = model.read_submitted(0, 1);
        for discard in [true, false] {
            let stamp = model.write_submitted(0, 1, discard);
            model.write_completed(0, 1, stamp);
        }
        assert!(model.read_completed(0, &view, &[0; 512]).is_ok());
        assert!(read(&mut model, &[0; 512]).is_err());
    }
}
