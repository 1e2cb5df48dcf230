//! A cursor over data that lies in segments, whose borders may cut intervals anywhere.
#![forbid(unsafe_code)]

/// The bytes not yet taken.
pub(crate) struct Segments<'a> {
    /// What is left of the first segment; empty only if nothing is left at all.
    first: &'a [u8],
    rest: &'a [&'a [u8]],
}

impl<'a> Segments<'a> {
    pub(crate) fn new(segments: &'a [&'a [u8]]) -> Segments<'a> {
        let mut cursor = Segments { first: &[], rest: segments };
        cursor.refill();
        cursor
    }

    /// How many bytes all segments hold.
    pub(crate) fn total(segments: &[&[u8]]) -> usize {
        segments.iter().map(|segment| segment.len()).sum()
    }

    /// Takes as many whole intervals as lie in one piece here, at most `most`; empty if the next one is cut.
    pub(crate) fn take_whole(&mut self, interval: usize, most: usize) -> &'a [u8] {
        // An interval is a power of two.
        self.take((self.first.len() & !(interval - 1)).min(most * interval))
    }

    /// Takes what lies in one piece here, at most `most` bytes; empty only if nothing is left or wanted.
    pub(crate) fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, left) = self.first.split_at(most.min(self.first.len()));
        self.first = left;
        self.refill();
        taken
    }

    fn refill(&mut self) {
        while let ([], [next, rest @ ..]) = (self.first, self.rest) {
            (self.first, self.rest) = (next, rest);
        }
    }
}
