//! The life of one disk as a pure state machine: what the tree says comes in, what to do next comes out.
//!
//! ```text
//!            probe          frontend 3, 4          queues run           frontend 6, gone
//!   Found ---------> Waiting -----------> Opening -----------> Connected -----------> Draining
//!     | own 4, a record matches              ^  |               (own 4; 5 once either    |
//!     +-------------- Resume ----------------+  | refused        end wants to leave)     v
//!     | own 4, 5, 6 of another run              v                                     Drained (own 5)
//!     +-------------------------------------> Drained --- frontend 5 and then 6 ------> Closed (own 6)
//!                                                         frontend 1 and online: probe, Waiting again
//! ```
//!
//! It is driven by level, not by edge: each call of [`Machine::next`] looks at the tree as it is, so states that
//! toggle, jump or were missed need no case of their own. Ownership is in the phase: resources exist in `Open` and
//! `Connected` and belong to the helper thread in `Opening`, `Draining` and `Suspending`, in which nothing else is
//! started. What the toolstack wrote is told from what we wrote by [`Machine::said`].
//!
//! Sources: blkif.h, "STATE DIAGRAMS"; what Linux's and QEMU's backends do in addition. Both go on serving while the
//! frontend says Closing, and so does this: a frontend whose disk is in use says Closing and still writes.

use blkif::XenbusState;
use blkif::XenbusState::{
    Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured, Reconfiguring, Unknown,
};

mod growth;
#[cfg(test)]
mod tests;
mod types;

pub use types::{Announced, Opened, Step, View};

/// Where a disk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing done in this incarnation of the directory.
    Found,
    /// Found connected by another run whose record is good, but the store cannot be opened now.
    Held,
    /// A helper looks at the disk.
    Probing,
    /// It did.
    Probed { usable: bool },
    /// Announced; waits for the frontend, in vain if not usable.
    Waiting { usable: bool },
    /// A helper opens the store and starts the queues.
    Opening { resuming: bool },
    /// They run; nobody was told yet.
    Open,
    /// Serving.
    Connected,
    /// Serving, while a helper takes in what the disk has grown by.
    Growing,
    /// A helper stops the queues and closes the store.
    Draining { back: bool },
    /// Nothing is open, and the frontend is to leave.
    Drained,
    /// Both ends are closed.
    Closed,
    /// As Closed, and the toolstack was told.
    Retired,
    /// A helper leaves the rings to the next run.
    Suspending,
    /// It did.
    Suspended,
}

/// The life of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    phase: Phase,
    /// The state in the tree as far as this end knows: what it wrote last, or accepted.
    said: XenbusState,
    /// The connection must end whatever the frontend says.
    condemned: bool,
    /// The daemon is about to end.
    stopping: bool,
    /// The disk is to be looked at for growth.
    grow: bool,
    /// The frontend is to be told of it.
    tell: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            phase: Phase::Found,
            said: Unknown,
            condemned: false,
            stopping: false,
            grow: false,
            tell: false,
        }
    }
}

impl Machine {
    /// The state in the tree as far as this end knows.
    pub fn said(&self) -> XenbusState {
        self.said
    }

    /// Whether a helper thread is at work.
    pub fn busy(&self) -> bool {
        use Phase::*;
        matches!(self.phase, Probing | Opening { .. } | Growing | Draining { .. } | Suspending)
    }

    /// Whether the disk holds nothing open and nothing that would be is under way: the daemon may end.
    pub fn settled(&self) -> bool {
        !self.holds() && (!self.busy() || self.phase == Phase::Probing)
    }

    /// Whether queues and a store belong to the disk now.
    pub fn holds(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Connected | Phase::Growing)
    }

    /// Whether the rings are left to the next run.
    #[cfg(test)]
    fn is_suspended(&self) -> bool {
        self.phase == Phase::Suspended
    }

    /// What to do next. Called again after each step but Rest, Release and those a helper thread answers.
    pub fn next(&mut self, view: View) -> Step {
        // Each phase that is left without a step moves towards Closed or to Found at most once.
        for _ in 0..4 {
            if let Some(step) = self.look(view) {
                return step;
            }
        }
        Step::Rest
    }

    /// One look; none if only the phase changed.
    fn look(&mut self, view: View) -> Option<Step> {
        let Some(own) = view.own else { return Some(self.without_directory()) };
        match self.phase {
            Phase::Probing
            | Phase::Opening { .. }
            | Phase::Growing
            | Phase::Draining { .. }
            | Phase::Suspending => Some(Step::Rest),
            Phase::Suspended => Some(Step::Rest),
            Phase::Found => self.found(own, view),
            Phase::Held if own == Connected && view.frontend_uses() => Some(Step::Rest),
            Phase::Held => self.enter(Phase::Found),
            Phase::Probed { .. } if own == self.said && (view.online || own != Closed) => {
                Some(Step::Announce)
            }
            Phase::Waiting { usable } if own == self.said => self.waiting(usable, view),
            Phase::Probed { .. } | Phase::Waiting { .. } => self.overtaken(own),
            Phase::Open => self.open(own, view),
            Phase::Connected => Some(self.connected(own, view)),
            Phase::Drained => self.leaving(own, view),
            Phase::Closed | Phase::Retired => self.closed(own, view),
        }
    }

    /// The directory is gone: let go of everything.
    fn without_directory(&mut self) -> Step {
        match self.phase {
            Phase::Open | Phase::Connected => self.drain(false),
            _ if self.busy() || self.phase == Phase::Suspended => Step::Rest,
            _ => Step::Release,
        }
    }

    fn found(&mut self, own: XenbusState, view: View) -> Option<Step> {
        self.said = own;
        match own {
            // InitWait without a connection: another run announced, and announcing again changes nothing unless
            // the frontend has chosen already, which the one who announces sees.
            Unknown | Initialising | InitWait if self.stopping => Some(Step::Rest),
            Unknown | Initialising | InitWait if view.online => self.start(Phase::Probing, Step::Probe),
            Unknown | Initialising | InitWait => self.enter(Phase::Drained),
            Connected if self.stopping => Some(Step::Rest),
            Connected => self.start(Phase::Opening { resuming: true }, Step::Resume),
            Closed => self.enter(Phase::Closed),
            Initialised | Reconfiguring | Reconfigured | Closing => self.enter(Phase::Drained),
        }
    }

    fn waiting(&mut self, usable: bool, view: View) -> Option<Step> {
        if !view.online || matches!(view.frontend, Closing | Closed) {
            return self.enter(Phase::Drained);
        }
        if usable && view.frontend_asks() && !self.stopping {
            return self.start(Phase::Opening { resuming: false }, Step::Open);
        }
        Some(Step::Rest)
    }

    fn open(&mut self, own: XenbusState, view: View) -> Option<Step> {
        if own != self.said || self.condemned || !view.frontend_uses() {
            return Some(self.drain(own == self.said));
        }
        if self.said == Connected {
            return self.enter(Phase::Connected);
        }
        if self.stopping {
            // Nobody was told: the next run announces and opens again.
            self.phase = Phase::Draining { back: true };
            return Some(Step::Drain { say: false });
        }
        if view.frontend == Closing { Some(self.drain(true)) } else { Some(Step::Publish) }
    }

    fn connected(&mut self, own: XenbusState, view: View) -> Step {
        // The toolstack's Closing is a wish first: the frontend has its chance to flush. One that does not even say
        // Closing for long is dead; one that says so and stays has its disk in use, and the toolstack may insist by
        // removing the frontend's directory.
        let ours = own == Connected || own == Closing;
        let dead = view.overdue && own == Closing && view.frontend != Closing;
        if !ours || dead || self.condemned || !view.frontend_uses() {
            return self.drain(own == Connected);
        }
        if self.stopping {
            let sound = own == Connected && view.frontend_asks();
            if !sound {
                return self.drain(own == Connected);
            }
            self.phase = Phase::Suspending;
            return Step::Suspend;
        }
        if view.frontend == Closing && own == Connected {
            return Step::Say(Closing);
        }
        if own == Connected && view.frontend_asks() {
            if self.tell {
                return Step::Tell;
            }
            if std::mem::take(&mut self.grow) {
                self.phase = Phase::Growing;
                return Step::Grow;
            }
        }
        Step::Rest
    }

    fn leaving(&mut self, own: XenbusState, view: View) -> Option<Step> {
        match own {
            Closed => self.enter(Phase::Closed),
            Closing => {
                self.said = Closing;
                // A frontend that starts anew without having closed needs to see Closed, too.
                let left = matches!(view.frontend, Unknown | Closed | Initialising);
                if left || !view.online { Some(Step::Say(Closed)) } else { Some(Step::Rest) }
            }
            own if own == self.said => Some(Step::Say(Closing)),
            _ => self.enter(Phase::Found),
        }
    }

    fn closed(&mut self, own: XenbusState, view: View) -> Option<Step> {
        match own {
            Closed => {
                self.said = Closed;
                let again = view.online && view.frontend == Initialising && !self.stopping;
                if again {
                    return self.start(Phase::Probing, Step::Probe);
                }
                if !view.online && self.phase == Phase::Closed {
                    return self.start(Phase::Retired, Step::Retire);
                }
                Some(Step::Rest)
            }
            Closing => {
                self.said = Closing;
                Some(Step::Say(Closed))
            }
            _ => self.enter(Phase::Found),
        }
    }

    /// Somebody else changed the state of a disk that holds nothing open.
    fn overtaken(&mut self, own: XenbusState) -> Option<Step> {
        self.enter(if matches!(own, Closing | Closed) { Phase::Drained } else { Phase::Found })
    }

    fn enter(&mut self, phase: Phase) -> Option<Step> {
        self.phase = phase;
        None
    }

    fn start(&mut self, phase: Phase, step: Step) -> Option<Step> {
        self.phase = phase;
        Some(step)
    }

    fn drain(&mut self, say: bool) -> Step {
        self.phase = Phase::Draining { back: false };
        (self.condemned, self.grow, self.tell) = (false, false, false);
        Step::Drain { say }
    }

    /// The helper looked at the disk, and could say whether it is usable, or not say.
    pub fn probed(&mut self, usable: Option<bool>) {
        debug_assert_eq!(self.phase, Phase::Probing);
        self.phase = usable.map_or(Phase::Found, |usable| Phase::Probed { usable });
    }

    /// The attempt to announce ended.
    pub fn announced(&mut self, outcome: Announced) {
        let Phase::Probed { usable } = self.phase else {
            debug_assert!(false, "announced in {:?}", self.phase);
            return;
        };
        match outcome {
            Announced::Done => {
                self.said = InitWait;
                self.phase = Phase::Waiting { usable };
            }
            Announced::Withheld => self.phase = Phase::Waiting { usable: false },
            Announced::TooLate => self.phase = Phase::Drained,
            Announced::Renewed => self.phase = Phase::Found,
            Announced::Overtaken => {}
        }
    }

    /// The attempt to open ended.
    pub fn opened(&mut self, outcome: Opened) {
        let Phase::Opening { resuming } = self.phase else {
            debug_assert!(false, "opened in {:?}", self.phase);
            return;
        };
        self.phase = match outcome {
            Opened::Running => Phase::Open,
            Opened::NotNow if resuming => Phase::Held,
            Opened::NotNow => Phase::Waiting { usable: true },
            Opened::Refused => Phase::Drained,
        };
    }

    /// The properties are in the tree, or somebody changed the state meanwhile.
    pub fn published(&mut self, done: bool) {
        if done && self.phase == Phase::Open {
            self.said = Connected;
            self.phase = Phase::Connected;
        }
    }

    /// The state is in the tree, or somebody changed it meanwhile.
    pub fn wrote(&mut self, state: XenbusState, done: bool) {
        if done {
            self.said = state;
        }
    }

    /// The connection must end: a queue failed.
    pub fn condemn(&mut self) {
        self.condemned = self.holds();
    }

    /// Nothing is open any more.
    pub fn drained(&mut self) {
        match self.phase {
            Phase::Draining { back: true } => self.phase = Phase::Waiting { usable: true },
            _ => self.phase = Phase::Drained,
        }
    }

    /// Nothing is open any more, and the rings are recorded for the next run, or cannot be.
    pub fn suspended(&mut self, recorded: bool) {
        self.phase = if recorded { Phase::Suspended } else { Phase::Drained };
    }

    /// The helper panicked; what it had is gone with it.
    pub fn crashed(&mut self) {
        self.phase = match self.phase {
            Phase::Probing => Phase::Found,
            Phase::Draining { back: true } => Phase::Waiting { usable: true },
            Phase::Growing => Phase::Connected,
            _ => Phase::Drained,
        };
    }

    /// The daemon is about to end: start nothing more, leave the rings to the next run.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Time to try again what was not possible ([`Opened::NotNow`] of another run's connection).
    pub fn retry(&mut self) {
        if self.phase == Phase::Held {
            self.phase = Phase::Found;
        }
    }
}
