//! What is asked of a disk: block size, direction, order, depth.

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// Its name, which the frontend knows too.
    pub name: &'static str,
    /// Bytes of a request.
    pub block: usize,
    /// Whether it writes.
    pub write: bool,
    /// Whether each request goes somewhere else.
    pub random: bool,
    /// Requests in flight.
    pub depth: usize,
}

/// The rows of the bench.
pub(super) const ALL: [Workload; 4] = [
    Workload { name: "random-read", block: 4 << 10, write: false, random: true, depth: 32 },
    Workload { name: "random-write", block: 4 << 10, write: true, random: true, depth: 32 },
    Workload { name: "sequential-read", block: 128 << 10, write: false, random: false, depth: 8 },
    Workload { name: "sequential-write", block: 128 << 10, write: true, random: false, depth: 8 },
];

/// The offsets of a workload, for ever.
#[derive(Debug)]
pub(super) struct Places {
    blocks: u64,
    block: u64,
    random: bool,
    state: u64,
}

impl Workload {
    /// Offsets within the first `bytes` bytes.
    pub fn places(&self, bytes: u64) -> Places {
        let block = self.block as u64;
        Places { blocks: (bytes / block).max(1), block, random: self.random, state: 0 }
    }
}

impl Places {
    /// The next offset, in bytes.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        let at = if self.random { mix(self.state) } else { self.state };
        at % self.blocks * self.block
    }
}

/// SplitMix64's output function (Steele, Lea, Flood 2014): a counter becomes an even spread.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
