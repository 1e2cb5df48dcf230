//! Where a request is cut so that each part goes straight through: the kernel neither splits it nor puts it off.
//!
//! ```text
//!    boundary                boundary                boundary
//! ------|-----------------------|-----------------------|------
//!             [ part  |  part   |   part   | part |  part  |]      a part has `most` bytes, or ends at a boundary
//! ```
//!
//! A request that the kernel has to split it does not take without waiting: io_uring hands it to a worker thread.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Where requests to a device are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Bytes of one part, at most; whole units.
    most: usize,
    /// Bytes from one boundary to the next, whole units; 0: there are none.
    every: u64,
    /// The first boundary, in bytes of the disk; less than `every`.
    first: u64,
}

impl Cut {
    /// Parts of up to `most` bytes, wherever they are.
    pub fn after(most: usize) -> Self {
        Self { most, every: 0, first: 0 }
    }

    /// The same, and cut at each multiple of `every` bytes of a device on which the disk starts at byte `start`.
    pub fn at_boundaries(self, every: u64, start: u64) -> Self {
        match start.checked_rem(every) {
            Some(into) => Self { every, first: (every - into) % every, ..self },
            None => self,
        }
    }

    /// The same in whole `unit`s. Boundaries inside units are left to the kernel: nothing can be cut there.
    pub fn whole_units(self, unit: usize) -> Self {
        let most = (self.most / unit).max(1) * unit;
        let aligned = (self.every | self.first).is_multiple_of(unit as u64);
        if aligned { Self { most, ..self } } else { Self::after(most) }
    }

    /// How many parts a `window` of the data of a request at `offset` has. A window inside it never has more.
    pub fn parts(&self, offset: u64, window: &Range<usize>) -> usize {
        let head = self.head(offset, window);
        let rest = window.len() - head;
        let (whole, tail) = match self.every as usize {
            0 => (0, 0),
            every => (rest / every * every.div_ceil(self.most), rest % every),
        };
        head.div_ceil(self.most) + whole + tail.div_ceil(self.most)
    }

    /// The data of part `index` of a window; empty beyond the last.
    pub fn part(&self, offset: u64, window: &Range<usize>, index: usize) -> Range<usize> {
        let head = self.head(offset, window);
        let in_head = head.div_ceil(self.most);
        // From the last boundary, and how far the next is.
        let (from, index, room) = if index < in_head || self.every == 0 {
            (window.start, index, head)
        } else {
            let every = self.every as usize;
            let in_each = every.div_ceil(self.most);
            let index = index - in_head;
            (window.start + head + index / in_each * every, index % in_each, every)
        };
        let start = from + index * self.most;
        let end = (start + self.most).min(from + room);
        start.min(window.end)..end.min(window.end)
    }

    /// Bytes of a window before the first boundary in it.
    fn head(&self, offset: u64, window: &Range<usize>) -> usize {
        if self.every == 0 {
            return window.len();
        }
        let into = (offset + window.start as u64 + self.every - self.first) % self.every;
        let left = if into == 0 { 0 } else { self.every - into };
        usize::try_from(left).map_or(window.len(), |left| left.min(window.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(cut: &Cut, offset: u64, window: &Range<usize>) -> Vec<Range<usize>> {
        (0..cut.parts(offset, window)).map(|index| cut.part(offset, window, index)).collect()
    }

    #[test]
    fn request_when_cut_crosses_no_boundary_and_all_of_it_is_there_once() {
        for (most, every, start) in
            [(8, 0, 0), (8, 24, 0), (8, 20, 12), (8, 8, 4), (32, 12, 8), (4, 4, 0), (12, 20, 1000)]
        {
            let cut = Cut::after(most).at_boundaries(every, start).whole_units(4);
            for offset in (0..64).step_by(4) {
                for (from, to) in
                    (0..80).step_by(4).flat_map(|to| (0..to).step_by(4).map(move |from| (from, to)))
                {
                    let found = parts(&cut, offset, &(from..to));
                    let mut next = from;
                    for part in &found {
                        assert_eq!(part.start, next, "{cut:?} {offset} {from}..{to}: {found:?}");
                        assert!(
                            !part.is_empty() && part.len() <= most,
                            "{cut:?} {offset} {from}..{to}: {found:?}"
                        );
                        if every != 0 {
                            let (first, last) = (part.start as u64, part.end as u64 - 1);
                            let chunk = |at: u64| (start + offset + at) / every;
                            assert_eq!(chunk(first), chunk(last), "{cut:?} {offset}: {part:?}");
                        }
                        next = part.end;
                    }
                    assert_eq!(next, to);
                    assert!(cut.part(offset, &(from..to), found.len()).is_empty());
                    // What is searched later has room in what the whole was given.
                    assert!(found.len() <= cut.parts(offset, &(0..to)), "{cut:?} {offset} {from}..{to}");
                }
            }
        }
    }

    #[test]
    fn cut_when_boundaries_are_inside_units_leaves_them_to_the_kernel() {
        assert_eq!(Cut::after(10).at_boundaries(64, 2).whole_units(4), Cut::after(8));
        assert_eq!(Cut::after(2).at_boundaries(6, 0).whole_units(4), Cut::after(4));
        assert_eq!(Cut::after(8).at_boundaries(0, 12), Cut::after(8));
        assert_ne!(Cut::after(8).at_boundaries(64, 0), Cut::after(8));
    }
}
