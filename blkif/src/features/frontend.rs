//! What a frontend chose: its nodes, published before Initialised.

use std::collections::HashSet;

use super::transport::is_our_version;
use super::value::{Read, boolean, required_u32, u32_or};
use super::{DixNodes, NegotiationError, Transport};
use crate::abi::Abi;
use crate::names;
use crate::units::GrantRef;

/// One ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingNodes {
    /// The ring's pages, in order; a power of two of them, at most 16.
    pub refs: Vec<GrantRef>,
    /// The event channel, in the frontend's domain; not 0.
    pub port: u32,
}

/// A frontend's choice: of a backend's offer, and of what it can do itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrontendNodes {
    /// `protocol`.
    pub abi: Abi,
    /// The rings, at least one, all with as many pages.
    pub rings: Vec<RingNodes>,
    /// `feature-persistent`: the same grants are used again.
    pub persistent: bool,
    /// DIX is accepted.
    pub dix: bool,
    /// `feature-large-sector-size`: see [`Self::check_sector_size`].
    pub large_sector: bool,
}

impl FrontendNodes {
    /// Reads a frontend's nodes, none of them trusted, against what the backend offered. `read` gives
    /// the value of a node under the frontend's directory, by a relative name such as
    /// `queue-1/ring-ref0`; it is asked for no more nodes than the offer allows, each at most once or
    /// twice.
    ///
    /// # Errors
    /// The first node that is missing, malformed, beyond the offer, or that repeats another's ring
    /// page or event channel.
    pub fn parse(
        read: &dyn Fn(&str) -> Option<Vec<u8>>,
        offered: &Transport,
    ) -> Result<FrontendNodes, NegotiationError> {
        let queues = u32_or(read, names::MULTI_QUEUE_NUM_QUEUES, 1, 1, offered.max_queues.max(1))?;
        let multi_page = read(names::RING_PAGE_ORDER).is_some();
        let order = u32_or(read, names::RING_PAGE_ORDER, 0, 0, offered.ring_page_order())?;
        let pages = multi_page.then(|| 1 << order);
        let mut seen = Seen::default();
        let rings = (0..queues)
            .map(|queue| {
                let prefix = if queues == 1 { String::new() } else { format!("{}{queue}/", names::QUEUE) };
                ring(read, &prefix, pages, &mut seen)
            })
            .collect::<Result<_, _>>()?;
        Ok(FrontendNodes {
            abi: protocol(read)?,
            rings,
            persistent: boolean(read, names::FEATURE_PERSISTENT)?,
            dix: offered.dix.is_some() && dix(read)?,
            large_sector: boolean(read, names::FEATURE_LARGE_SECTOR_SIZE)?,
        })
    }

    /// The nodes for the frontend's directory, before Initialised, by relative name.
    pub fn nodes(&self) -> Vec<(String, String)> {
        let mut nodes = vec![(names::PROTOCOL.to_owned(), self.abi.name().to_owned())];
        let pages = self.rings.first().map_or(1, |ring| ring.refs.len());
        if self.rings.len() > 1 {
            nodes.push((names::MULTI_QUEUE_NUM_QUEUES.to_owned(), self.rings.len().to_string()));
        }
        if let Some(order @ 1..) = pages.checked_ilog2() {
            nodes.push((names::RING_PAGE_ORDER.to_owned(), order.to_string()));
        }
        for (queue, ring) in self.rings.iter().enumerate() {
            let one = self.rings.len() == 1;
            let prefix = if one { String::new() } else { format!("{}{queue}/", names::QUEUE) };
            for (page, gref) in ring.refs.iter().enumerate() {
                let number = if pages == 1 { String::new() } else { page.to_string() };
                nodes.push((format!("{prefix}{}{number}", names::RING_REF), gref.to_string()));
            }
            nodes.push((format!("{prefix}{}", names::EVENT_CHANNEL), ring.port.to_string()));
        }
        if self.persistent {
            nodes.push((names::FEATURE_PERSISTENT.to_owned(), "1".to_owned()));
        }
        if self.dix {
            nodes.push((names::FEATURE_DATA_INTEGRITY.to_owned(), "1".to_owned()));
            nodes.push((names::DATA_INTEGRITY_VERSION.to_owned(), DixNodes::VERSION.to_string()));
        }
        if self.large_sector {
            nodes.push((names::FEATURE_LARGE_SECTOR_SIZE.to_owned(), "1".to_owned()));
        }
        nodes
    }

    /// Whether a disk of this sector size can be served: a frontend that wrote
    /// `feature-large-sector-size` may count in sectors of that size or of 512 bytes, so only 512
    /// means the same to both ends.
    ///
    /// # Errors
    /// [`NegotiationError::LargeSectorSize`].
    pub fn check_sector_size(&self, sector_size: u32) -> Result<(), NegotiationError> {
        if self.large_sector && sector_size > 512 {
            return Err(NegotiationError::LargeSectorSize(sector_size));
        }
        Ok(())
    }
}

/// What other nodes named already, over all rings.
#[derive(Default)]
struct Seen {
    refs: HashSet<u32>,
    ports: HashSet<u32>,
}

/// One ring's nodes. `pages` is none where no ring-page-order was written.
fn ring(
    read: Read<'_>,
    prefix: &str,
    pages: Option<u32>,
    seen: &mut Seen,
) -> Result<RingNodes, NegotiationError> {
    let single = format!("{prefix}{}", names::RING_REF);
    let numbered = |page: u32| format!("{single}{page}");
    // blkif.h has one page's node without a number; some frontends that wrote an order of 0 number it
    // all the same.
    let names = match pages {
        None => vec![single],
        Some(1) if read(&numbered(0)).is_none() => vec![single],
        Some(pages) => (0..pages).map(numbered).collect(),
    };
    let mut refs = Vec::with_capacity(names.len());
    for node in names {
        let value = required_u32(read, &node, 0)?;
        if !seen.refs.insert(value) {
            return Err(NegotiationError::Repeated { node, value });
        }
        refs.push(GrantRef(value));
    }
    let node = format!("{prefix}{}", names::EVENT_CHANNEL);
    // Port 0 is never a channel.
    let port = required_u32(read, &node, 1)?;
    if !seen.ports.insert(port) {
        return Err(NegotiationError::Repeated { node, value: port });
    }
    Ok(RingNodes { refs, port })
}

fn protocol(read: Read<'_>) -> Result<Abi, NegotiationError> {
    match read(names::PROTOCOL) {
        None => Ok(Abi::when_absent()),
        Some(name) => Abi::from_name(&name)
            .ok_or_else(|| NegotiationError::Malformed { node: names::PROTOCOL.to_owned() }),
    }
}

/// Whether the frontend accepts DIX. One that speaks another version is refused: it would send what
/// this end misunderstands.
fn dix(read: Read<'_>) -> Result<bool, NegotiationError> {
    if !boolean(read, names::FEATURE_DATA_INTEGRITY)? {
        return Ok(false);
    }
    let node = names::DATA_INTEGRITY_VERSION;
    match read(node) {
        None => Err(NegotiationError::Missing { node: node.to_owned() }),
        Some(version) if is_our_version(&version) => Ok(true),
        Some(_) => Err(NegotiationError::Malformed { node: node.to_owned() }),
    }
}
