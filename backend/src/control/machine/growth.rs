//! A disk that grows while it is served, and what to call a disk's state.

use super::{Machine, Phase};
use blkif::XenbusState::{Closing, Connected};

impl Machine {
    /// Where the disk is in its life, in a word.
    pub fn word(&self) -> &'static str {
        match self.phase {
            Phase::Found => "found",
            Phase::Held => "held",
            Phase::Probing | Phase::Probed { .. } => "probing",
            Phase::Waiting { usable: true } => "waiting",
            Phase::Waiting { usable: false } => "unusable",
            Phase::Opening { .. } | Phase::Open => "opening",
            Phase::Connected if self.said == Closing => "leaving",
            Phase::Connected => "connected",
            Phase::Growing => "growing",
            Phase::Draining { .. } => "draining",
            Phase::Drained => "closing",
            Phase::Closed | Phase::Retired => "closed",
            Phase::Suspending => "stopping",
            Phase::Suspended => "stopped",
        }
    }

    /// Whether the frontend can be told of growth.
    pub fn serves(&self) -> bool {
        matches!(self.phase, Phase::Connected | Phase::Growing) && self.said == Connected && !self.stopping
    }

    /// The disk may have grown: look, if it is served.
    pub fn grow(&mut self) {
        self.grow |= self.serves();
    }

    /// The helper has looked for growth. Told or not, the disk serves on; `outgrown` if it is larger than the frontend
    /// knows.
    pub fn grown(&mut self, outgrown: bool) {
        debug_assert_eq!(self.phase, Phase::Growing);
        self.phase = Phase::Connected;
        self.tell = outgrown;
    }

    /// The disk that was opened is larger than the frontend knows.
    pub fn outgrown(&mut self) {
        self.tell = self.holds();
    }

    /// The frontend is told of the new size, or somebody changed the state meanwhile, which the next look sees.
    pub fn told(&mut self) {
        self.tell = false;
    }
}
