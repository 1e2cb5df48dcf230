//! PI on a request's way: checked where the guest sent it, made where it did not, checked again on what comes back.

use crate::io::Lease;
use crate::queue::stats::Counter;
use crate::queue::{AppTagRule, Disk, Integrity};
use blkif::Status;
use integrity::{AppTag, Escape, Expected, Mismatch, Profile, Tag};

/// A mismatch, placed on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The first tag that did not match; its interval counts from the disk's start here.
    pub mismatch: Mismatch,
    /// Number of the interval on the disk.
    pub interval: u64,
    /// Where that interval starts, in bytes.
    pub offset: u64,
}

impl Fault {
    /// What a DIX guest is told in its payload slot.
    pub fn status(&self) -> Status {
        status_of(self.mismatch.tag)
    }
}

/// What a DIX guest is told of a tag that does not match.
pub(crate) fn status_of(tag: Tag) -> Status {
    match tag {
        Tag::Guard => Status::Guard,
        Tag::Application => Status::Application,
        Tag::Reference => Status::Reference,
    }
}

impl Fault {
    /// Counts it where its tag is counted.
    pub fn count(&self, guard: &Counter, application: &Counter, reference: &Counter) {
        match self.mismatch.tag {
            Tag::Guard => guard,
            Tag::Application => application,
            Tag::Reference => reference,
        }
        .add(1);
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mismatch { tag, expected, actual, .. } = self.mismatch;
        let (interval, offset) = (self.interval, self.offset);
        write!(f, "interval {interval} (byte {offset}): {tag} tag is {actual:#x}, expected {expected:#x}")
    }
}

/// The rules of one disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    profile: Profile,
    /// What a guest's own tags must be.
    guest_tag: Option<AppTag>,
    guest_escape: Escape,
    /// What every tag on the medium must be.
    medium_tag: Option<AppTag>,
    /// What the daemon writes for a guest that sends none.
    made_tag: u16,
}

impl Rules {
    /// The rules of `disk`, if it carries PI.
    pub fn of(disk: &Disk) -> Option<Rules> {
        let profile = disk.profile?;
        let operator = match disk.app_tag {
            AppTagRule::Guest => None,
            AppTagRule::Operator(tag) => Some(tag),
        };
        // A profile without room for a tag: the guest writes zero (docs/protocol.md).
        let no_tag = (profile.tag_size() == 0).then_some(AppTag { value: 0, mask: u16::MAX });
        let refuse = disk.integrity == Integrity::Require && !disk.allow_escape;
        Some(Rules {
            profile,
            guest_tag: no_tag.or(operator),
            guest_escape: if refuse { Escape::Refuse } else { Escape::Accept },
            medium_tag: operator,
            made_tag: operator.map_or(0, |tag| tag.value),
        })
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Checks what a guest sent for `offset`; gives the number of escaped intervals.
    pub fn check_guest(&self, lease: &Lease, offset: u64) -> Result<usize, Fault> {
        self.check(lease, offset, self.guest_tag, self.guest_escape)
    }

    /// Checks what the medium gave for `offset`; gives the number of escaped intervals.
    pub fn check_medium(&self, lease: &Lease, offset: u64) -> Result<usize, Fault> {
        self.check(lease, offset, self.medium_tag, Escape::Accept)
    }

    /// Makes the PI of data that came without.
    pub fn make(&self, lease: &mut Lease, offset: u64) {
        let first = self.first(offset);
        let (data, metadata) = lease.parts_mut();
        if self.profile.metadata_size() != self.profile.tuple_size() {
            // Bytes beside the tuple would be whatever the buffer held before: another request's.
            metadata.fill(0);
        }
        self.profile.generate(data, metadata, first, self.made_tag);
    }

    fn check(
        &self,
        lease: &Lease,
        offset: u64,
        application: Option<AppTag>,
        escape: Escape,
    ) -> Result<usize, Fault> {
        let first = self.first(offset);
        let (data, metadata) = lease.parts();
        let expected = Expected { reference: first, application, escape };
        match self.profile.verify(data, metadata, &expected) {
            Ok(checked) => Ok(checked.escaped),
            Err(mismatch) => {
                let interval = first + mismatch.interval as u64;
                let offset = interval * self.profile.interval() as u64;
                Err(Fault { mismatch, interval, offset })
            }
        }
    }

    fn first(&self, offset: u64) -> u64 {
        offset / self.profile.interval() as u64
    }
}
