//! What was negotiated: the disk as the frontend may use it.

use std::fmt;

use blkif::{Abi, DiscardNodes, DixNodes, Info, Properties, Transport};
use integrity::{Guard, PiType, Profile, ProfileSpec};

use crate::{ConnectOptions, DixMode, Error};

/// A connected disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its size when it was connected, in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of a logical block: start and length of every request are multiples of it.
    pub sector_size: u32,
    /// Bytes of a physical block.
    pub physical_sector_size: u32,
    /// What kind of disk.
    pub info: Info,
    /// Flush is understood.
    pub flush: bool,
    /// Barriers are understood.
    pub barrier: bool,
    /// Discard, if it is understood.
    pub discard: Option<DiscardNodes>,
    /// The protection information both ends agreed on.
    pub dix: Option<Profile>,
    /// Rings.
    pub queues: u32,
    /// Pages of each ring, as a power of two.
    pub ring_order: u32,
    /// The layout of its entries.
    pub abi: Abi,
    /// Most segments of a request, one page each.
    pub segments: u16,
}

/// Segments of a request, at most: what one indirect page holds.
const SEGMENTS: u16 = 512;

/// What a frontend chooses of a backend's offer.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) dix: Option<Profile>,
    pub(crate) queues: u32,
    pub(crate) ring_order: u32,
    pub(crate) segments: u16,
}

impl Choice {
    /// Chooses.
    pub(crate) fn of(offer: &Transport, options: &ConnectOptions) -> Result<Self, Error> {
        let dix = match (options.dix, &offer.dix) {
            (DixMode::Off, _) | (DixMode::Auto, None) => None,
            (DixMode::Require, None) => return Err(Error::NoDix),
            (_, Some(nodes)) => Some(profile(nodes)?),
        };
        let direct = options.segments.min(blkif::MAX_SEGMENTS as u16);
        Ok(Self {
            dix,
            queues: options.queues.clamp(1, offer.max_queues),
            ring_order: options.ring_order.min(offer.max_ring_page_order),
            segments: options.segments.min(offer.max_indirect).min(SEGMENTS).max(direct).max(1),
        })
    }
}

/// The profile that a backend's nodes describe.
fn profile(nodes: &DixNodes) -> Result<Profile, Error> {
    Ok(Profile::new(ProfileSpec {
        guard: nodes.guard.parse::<Guard>()?,
        interval: nodes.interval,
        metadata_size: nodes.metadata_size,
        pi_offset: nodes.pi_offset,
        tag_size: nodes.tag_size,
        pi_type: PiType::try_from(nodes.pi_type)?,
    })?)
}

impl Disk {
    pub(crate) fn new(properties: &Properties, choice: &Choice, abi: Abi) -> Self {
        Self {
            sectors: properties.sectors.0,
            sector_size: properties.sector_size,
            physical_sector_size: properties.physical_sector_size,
            info: properties.info,
            flush: properties.flush,
            barrier: properties.barrier,
            discard: properties.discard,
            dix: choice.dix,
            queues: choice.queues,
            ring_order: choice.ring_order,
            abi,
            segments: choice.segments,
        }
    }

    /// Bytes of the largest request.
    pub fn max_bytes(&self) -> usize {
        usize::from(self.segments) * blkif::PAGE_SIZE
    }

    /// Bytes of the smallest, and the alignment of all: a logical block, and with DIX an interval.
    pub fn block(&self) -> usize {
        let interval = self.dix.map_or(1, |profile| profile.interval());
        interval.max(self.sector_size as usize)
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors * blkif::SECTOR_SIZE as u64
    }

    /// What makes requests made for this disk unfit for `other`, if anything does.
    pub(crate) fn differs(&self, other: &Disk) -> Option<&'static str> {
        [
            (self.dix != other.dix, "protection information"),
            (self.sector_size != other.sector_size, "sector size"),
            (self.segments > other.segments, "largest request"),
            (self.queues != other.queues, "number of queues"),
            (self.sectors > other.sectors, "size"),
        ]
        .into_iter()
        .find_map(|(different, what)| different.then_some(what))
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "size        {} bytes, blocks of {}", self.bytes(), self.sector_size)?;
        let yes = |set: bool| if set { "yes" } else { "no" };
        writeln!(f, "read-only   {}", yes(self.info.read_only))?;
        writeln!(f, "flush       {}, barrier {}", yes(self.flush), yes(self.barrier))?;
        match self.discard {
            Some(discard) => writeln!(f, "discard     {} bytes", discard.granularity)?,
            None => writeln!(f, "discard     no")?,
        }
        writeln!(f, "rings       {} of {} pages, {}", self.queues, 1 << self.ring_order, self.abi)?;
        writeln!(f, "segments    {}", self.segments)?;
        match &self.dix {
            Some(profile) => write!(f, "dix         {profile}"),
            None => write!(f, "dix         no"),
        }
    }
}
