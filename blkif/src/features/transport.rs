//! What a backend offers before InitWait: rings, queues, indirect requests, DIX.

use super::NegotiationError;
use super::value::{Read, boolean, decimal, u32_or};
use crate::limits::{DixLimits, Limits, MAX_INDIRECT_SEGMENTS};
use crate::names;

/// The largest ring this crate offers or accepts: 2^4 pages, as Linux's backend does.
const MAX_ORDER: u32 = 4;
/// The most queues a frontend reads from an offer; Linux's asks for no more than its CPUs.
const MAX_QUEUES: u32 = 4096;
/// The longest name of a guard.
const GUARD_LEN: usize = 32;

/// The nodes a backend writes before its state becomes InitWait; they bound what a frontend chooses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transport {
    /// `max-ring-page-order`: rings have up to 2^this pages; more than 4 counts as 4.
    pub max_ring_page_order: u32,
    /// `multi-queue-max-queues`; at least 1.
    pub max_queues: u32,
    /// `feature-max-indirect-segments`; 0: not offered, and no node.
    pub max_indirect: u16,
    /// DIX, where the disk carries PI.
    pub dix: Option<DixNodes>,
}

impl Default for Transport {
    /// What a backend that publishes nothing offers.
    fn default() -> Self {
        Self { max_ring_page_order: 0, max_queues: 1, max_indirect: 0, dix: None }
    }
}

/// The disk's PI, as plain values: what the `data-integrity-*` nodes say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DixNodes {
    /// `data-integrity-guard`: crc16-t10dif, ip, crc64-nvme or none.
    pub guard: String,
    /// `data-integrity-interval`: 512, 1024, 2048 or 4096.
    pub interval: u32,
    /// `data-integrity-metadata-size`: 1 to 255.
    pub metadata_size: u16,
    /// `data-integrity-pi-offset`.
    pub pi_offset: u8,
    /// `data-integrity-tag-size`.
    pub tag_size: u8,
    /// `data-integrity-type`: 0, 1 or 3.
    pub pi_type: u8,
}

impl DixNodes {
    /// The version of the extension in `data-integrity-version`.
    pub const VERSION: u32 = 1;

    /// What pairing needs of it.
    pub fn limits(&self) -> DixLimits {
        DixLimits { interval: self.interval, metadata_size: self.metadata_size }
    }

    /// Reads the offer; none where the backend offers no DIX, or another version of it.
    fn parse(read: Read<'_>) -> Result<Option<DixNodes>, NegotiationError> {
        if !boolean(read, names::FEATURE_DATA_INTEGRITY)? {
            return Ok(None);
        }
        let version = number(read, names::DATA_INTEGRITY_VERSION, 0, u32::MAX)?;
        if version != Self::VERSION {
            return Ok(None);
        }
        let node = names::DATA_INTEGRITY_GUARD;
        let guard = read(node).ok_or_else(|| NegotiationError::Missing { node: node.to_owned() })?;
        let guard = match String::from_utf8(guard) {
            Ok(guard) if guard.len() <= GUARD_LEN => guard,
            _ => return Err(NegotiationError::Malformed { node: node.to_owned() }),
        };
        let interval = number(read, names::DATA_INTEGRITY_INTERVAL, 512, 4096)?;
        if !interval.is_power_of_two() {
            return Err(NegotiationError::Malformed { node: names::DATA_INTEGRITY_INTERVAL.to_owned() });
        }
        Ok(Some(DixNodes {
            guard,
            interval,
            metadata_size: u16::from(byte(read, names::DATA_INTEGRITY_METADATA_SIZE, 1)?),
            pi_offset: byte(read, names::DATA_INTEGRITY_PI_OFFSET, 0)?,
            tag_size: byte(read, names::DATA_INTEGRITY_TAG_SIZE, 0)?,
            pi_type: byte(read, names::DATA_INTEGRITY_TYPE, 0)?,
        }))
    }
}

/// A number in a node that must be there.
fn number(read: Read<'_>, node: &str, min: u32, max: u32) -> Result<u32, NegotiationError> {
    if read(node).is_none() {
        return Err(NegotiationError::Missing { node: node.to_owned() });
    }
    u32_or(read, node, min, min, max)
}

fn byte(read: Read<'_>, node: &str, min: u32) -> Result<u8, NegotiationError> {
    let value = number(read, node, min, u32::from(u8::MAX))?;
    u8::try_from(value).map_err(|_| NegotiationError::Malformed { node: node.to_owned() })
}

impl Transport {
    /// The nodes for the backend's directory, before InitWait.
    pub fn nodes(&self) -> Vec<(&'static str, String)> {
        let mut nodes = vec![
            (names::MAX_RING_PAGE_ORDER, self.ring_page_order().to_string()),
            (names::MULTI_QUEUE_MAX_QUEUES, self.max_queues.max(1).to_string()),
        ];
        if self.max_indirect != 0 {
            nodes.push((names::FEATURE_MAX_INDIRECT_SEGMENTS, self.indirect().to_string()));
        }
        if let Some(dix) = &self.dix {
            nodes.extend([
                (names::FEATURE_DATA_INTEGRITY, "1".to_owned()),
                (names::DATA_INTEGRITY_VERSION, DixNodes::VERSION.to_string()),
                (names::DATA_INTEGRITY_GUARD, dix.guard.clone()),
                (names::DATA_INTEGRITY_INTERVAL, dix.interval.to_string()),
                (names::DATA_INTEGRITY_METADATA_SIZE, dix.metadata_size.to_string()),
                (names::DATA_INTEGRITY_PI_OFFSET, dix.pi_offset.to_string()),
                (names::DATA_INTEGRITY_TAG_SIZE, dix.tag_size.to_string()),
                (names::DATA_INTEGRITY_TYPE, dix.pi_type.to_string()),
            ]);
        }
        nodes
    }

    /// Reads a backend's offer, for a frontend. What a newer backend offers beyond what this crate
    /// can use is lowered to that.
    ///
    /// # Errors
    /// A node that is no number of its range.
    pub fn parse(read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Transport, NegotiationError> {
        let most = u32::MAX;
        let order = u32_or(read, names::MAX_RING_PAGE_ORDER, 0, 0, most)?.min(MAX_ORDER);
        let queues = u32_or(read, names::MULTI_QUEUE_MAX_QUEUES, 1, 1, most)?.min(MAX_QUEUES);
        let indirect = u32_or(read, names::FEATURE_MAX_INDIRECT_SEGMENTS, 0, 0, most)?;
        Ok(Transport {
            max_ring_page_order: order,
            max_queues: queues,
            max_indirect: u16::try_from(indirect).unwrap_or(u16::MAX).min(MAX_INDIRECT_SEGMENTS),
            dix: DixNodes::parse(read)?,
        })
    }

    /// The limits of a ring whose frontend accepted (`dix`), or did not accept, DIX.
    pub fn limits(&self, dix: bool) -> Limits {
        let dix = if dix { self.dix.as_ref().map(DixNodes::limits) } else { None };
        Limits { max_indirect: self.indirect(), dix }
    }

    /// `feature-max-indirect-segments` as published: lowered, where DIX is offered, to what the
    /// payload of the largest request allows.
    fn indirect(&self) -> u16 {
        let most = self.max_indirect.min(MAX_INDIRECT_SEGMENTS);
        self.dix.as_ref().map_or(most, |dix| dix.limits().max_indirect(most))
    }

    /// `max-ring-page-order` as published.
    pub(super) fn ring_page_order(&self) -> u32 {
        self.max_ring_page_order.min(MAX_ORDER)
    }
}

/// Whether a frontend's or backend's version node says the version of this crate.
pub(super) fn is_our_version(value: &[u8]) -> bool {
    decimal(value) == Some(u64::from(DixNodes::VERSION))
}
