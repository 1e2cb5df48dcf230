//! The event channels of all domains, as the broker knows them.
//!
//! ```text
//!   allocate      end 0 open for its domain, end 1 free and reserved for the remote   (unbound)
//!   bind          end 1 open for the remote                                           (interdomain)
//!   close either  the other stays open and can be bound again, by the same domain     (unbound)
//!   close both    the channel is free
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::channel::{self, CHANNELS};
use super::table::memory_file;
use crate::memory::Region;
use crate::{DomId, PortFault};

/// All channels.
pub(super) struct Channels {
    /// The words of the ends; every process has it.
    pub(super) file: OwnedFd,
    region: Region,
    channels: Vec<Option<Ends>>,
}

struct Ends {
    events: [OwnedFd; 2],
    ends: [Option<End>; 2],
}

/// An open end.
#[derive(Clone, Copy)]
struct End {
    /// Whose it is.
    domain: DomId,
    /// Who may have the other.
    remote: DomId,
}

impl Channels {
    /// No channels.
    pub(super) fn new() -> io::Result<Self> {
        let file = memory_file("dixback-sim-channels", channel::REGION)?;
        let region = Region::new(file.as_fd(), channel::REGION)?;
        Ok(Self { file, region, channels: Vec::new() })
    }

    /// A new channel whose end 0 is open for `domain`, for `remote` to bind; none if there are too many.
    pub(super) fn allocate(&mut self, domain: DomId, remote: DomId) -> io::Result<Option<usize>> {
        let index = match self.channels.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.channels.len() < CHANNELS => {
                self.channels.push(None);
                self.channels.len() - 1
            }
            None => return Ok(None),
        };
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let ends = Ends { events: [event()?, event()?], ends: [Some(End { domain, remote }), None] };
        channel::open(channel::word(&self.region, index, 0), &ends.events[0], false);
        channel::close(channel::word(&self.region, index, 1));
        self.channels[index] = Some(ends);
        Ok(Some(index))
    }

    /// Opens the end opposite to `end` for `domain`.
    pub(super) fn bind(&mut self, index: usize, end: usize, domain: DomId) -> Result<usize, PortFault> {
        let ends = self.channels[index].as_mut().ok_or(PortFault::Closed)?;
        let theirs = ends.ends[end].ok_or(PortFault::Closed)?;
        if theirs.remote != domain {
            return Err(PortFault::NotYours);
        }
        let mine = 1 - end;
        if ends.ends[mine].is_some() {
            return Err(PortFault::Bound);
        }
        ends.ends[mine] = Some(End { domain, remote: theirs.domain });
        channel::open(channel::word(&self.region, index, mine), &ends.events[mine], true);
        Ok(mine)
    }

    /// Closes an end.
    pub(super) fn close(&mut self, index: usize, end: usize) {
        channel::close(channel::word(&self.region, index, end));
        if let Some(ends) = &mut self.channels[index] {
            ends.ends[end] = None;
            if ends.ends.iter().all(Option::is_none) {
                self.channels[index] = None;
            }
        }
    }

    /// Whether both ends are open.
    pub(super) fn is_bound(&self, index: usize) -> bool {
        self.channels[index].as_ref().is_some_and(|ends| ends.ends.iter().all(Option::is_some))
    }

    /// The event of an end and that of the other. Panics if there is no such channel.
    pub(super) fn events(&self, index: usize, end: usize) -> (&OwnedFd, &OwnedFd) {
        let ends = self.channels[index].as_ref().expect("a channel with an open end");
        (&ends.events[end], &ends.events[1 - end])
    }
}
