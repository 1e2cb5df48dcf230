//! What goes into the machine and comes out of it.

use blkif::XenbusState;
use blkif::XenbusState::{Closing, Connected, Initialised, Reconfigured, Reconfiguring};

/// What the tree says of a disk at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The backend's `state`; none once the directory is gone.
    pub own: Option<XenbusState>,
    /// `online`: the toolstack wants the disk to stay.
    pub online: bool,
    /// The frontend's `state`; Unknown where it is gone or no state.
    pub frontend: XenbusState,
    /// The toolstack has asked for the disk long ago and the frontend has not moved since.
    pub overdue: bool,
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.own {
            Some(own) => write!(f, "backend {own}")?,
            None => write!(f, "backend gone")?,
        }
        write!(f, ", frontend {}", self.frontend)?;
        f.write_str(if self.online { "" } else { ", offline" })
    }
}

impl View {
    /// Whether the frontend may be using a connection.
    pub(super) fn frontend_uses(self) -> bool {
        matches!(self.frontend, Initialised | Connected | Closing | Reconfiguring | Reconfigured)
    }

    /// Whether the frontend asks for a connection. Some skip Initialised.
    pub(super) fn frontend_asks(self) -> bool {
        matches!(self.frontend, Initialised | Connected)
    }
}

/// What to do next. All but the last three are answered by a call of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nothing until something changes.
    Rest,
    /// Look at the disk, on a helper thread; answered by [`Machine::probed`](super::Machine::probed).
    Probe,
    /// Write the features, or why the disk cannot be served, and InitWait; answered by [`Machine::announced`](super::Machine::announced).
    Announce,
    /// Read the frontend's nodes, open the store and start the queues, on a helper thread; answered by
    /// [`Machine::opened`](super::Machine::opened).
    Open,
    /// The same on the rings another run left; answered by [`Machine::opened`](super::Machine::opened).
    Resume,
    /// Write the disk's properties and Connected; answered by [`Machine::published`](super::Machine::published).
    Publish,
    /// Take in what the disk has grown by, on a helper thread; answered by [`Machine::grown`](super::Machine::grown).
    Grow,
    /// Write the disk's new size, and Connected once more; answered by [`Machine::told`](super::Machine::told).
    Tell,
    /// Stop the queues and close the store, on a helper thread; before it, if `say`, write Closing. Answered by
    /// [`Machine::drained`](super::Machine::drained).
    Drain {
        /// Whether the state in the tree is still ours to change.
        say: bool,
    },
    /// Stop the queues, close the store and record the rings for the next run, on a helper thread; answered by
    /// [`Machine::suspended`](super::Machine::suspended).
    Suspend,
    /// Write the state, unless somebody else changed it; answered by [`Machine::wrote`](super::Machine::wrote).
    Say(XenbusState),
    /// The toolstack is done with the disk: delete the directory where that is the backend's to do.
    Retire,
    /// Nothing is left: forget the disk.
    Release,
}

/// How an attempt to announce ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Announced {
    /// It is in the tree.
    Done,
    /// The disk cannot be served, and the state is left as it was, for the toolstack to give up.
    Withheld,
    /// The frontend has chosen from another run's features, and they differ.
    TooLate,
    /// The directory is not the one that was probed: the toolstack made it anew.
    Renewed,
    /// Somebody changed the state meanwhile.
    Overtaken,
}

/// How an attempt to open ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// Queues run.
    Running,
    /// Refused; nothing is open.
    Refused,
    /// Nothing is open, and nothing was touched: the same may work later.
    NotNow,
}
