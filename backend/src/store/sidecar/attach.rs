//! What was found amiss when a disk with a sidecar was opened, though it can be served.
#![forbid(unsafe_code)]

use crate::store::medium::{Medium, Stamp};
use crate::store::sidecar::pifile::PiFile;
use crate::store::sidecar::{OwnerRecord, Recovered};
use std::fmt;
use std::path::PathBuf;

/// Why some intervals of a disk may not match their PI. They give read errors until they are written or resealed;
/// the rest of the disk is served as ever. [`Display`](fmt::Display) is for the operator, commands included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachReport {
    /// The disk.
    pub disk: PathBuf,
    /// It was not closed since this owner opened it.
    pub unclean: Option<OwnerRecord>,
    /// The data was modified since the clean close.
    pub modified: bool,
    /// The data's size in bytes, if it is not what it was at the clean close or not what the sidecar covers.
    pub size: Option<u64>,
    /// Bytes of data that the sidecar covers, and that the disk has.
    pub covered: u64,
    /// A copy of the sidecar's header is damaged; the other is used.
    pub damaged: bool,
    /// What was done about a crash, by the log or the bitmap.
    pub recovered: Option<Recovered>,
}

impl AttachReport {
    /// Compares the sidecar with the data. None if nothing is amiss.
    pub(crate) fn of(pi: &PiFile, data: &Medium, stamp: Stamp) -> Option<Self> {
        let (header, closed) = (&pi.header, pi.header.closed);
        let known = closed.modified != (0, 0) && stamp.modified != (0, 0);
        let report = Self {
            disk: data.path.clone(),
            unclean: (!header.clean).then(|| header.owner.clone()),
            modified: header.clean && known && closed.modified != stamp.modified,
            size: (stamp.bytes != header.data_bytes || (header.clean && stamp.bytes != closed.bytes))
                .then_some(stamp.bytes),
            covered: header.data_bytes,
            damaged: pi.damaged,
            recovered: None,
        };
        let amiss = report.unclean.is_some() || report.modified || report.size.is_some() || report.damaged;
        amiss.then_some(report)
    }
}

impl AttachReport {
    /// Whether a crash is all there is to report, and nothing of it is left.
    fn made_good(&self) -> bool {
        let nothing_else = !self.modified && self.size.is_none() && !self.damaged;
        let good = |r: &Recovered| r.lost.count == 0 && r.bad.count == 0 && r.sealed.count == 0;
        nothing_else && self.recovered.as_ref().is_some_and(good)
    }
}

impl fmt::Display for AttachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk.display();
        write!(f, "{disk}: ")?;
        let mut separator = "";
        let mut say = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>| {
            let result = write!(f, "{separator}{what}");
            separator = "; ";
            result
        };
        if let Some(owner) = &self.unclean {
            say(f, format_args!("it was not closed after its last use {owner}"))?;
        }
        if let Some(recovered) = &self.recovered {
            say(f, format_args!("{recovered}"))?;
        }
        if self.modified {
            say(f, format_args!("its data was changed from outside since it was last closed"))?;
        }
        if let Some(size) = self.size {
            let covered = self.covered;
            let advice = if size > covered { super::grow::advice(&self.disk) } else { String::new() };
            let advice = if advice.is_empty() { advice } else { format!(" ({advice})") };
            say(
                f,
                format_args!("its data is now {size} bytes, of which the sidecar covers {covered}{advice}"),
            )?;
        }
        if self.damaged {
            say(f, format_args!("one copy of the sidecar's header is damaged"))?;
        }
        if self.made_good() {
            return f.write_str(". It is served, and all of it is as its last writes left it");
        }
        write!(
            f,
            ". It is served; intervals that do not match their PI give read errors. To list them: dixback image \
             scrub {disk}; to accept the data as it is: dixback image reseal {disk}"
        )
    }
}
