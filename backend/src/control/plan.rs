//! What is offered of a disk, decided once, when it is announced: from what the toolstack and the operator want and
//! what the store is.

use crate::config::{DaemonConfig, DiskNodes, Target};
use crate::queue::{AppTagRule, Disk, Integrity, Lost};
use crate::store::{Capabilities, Geometry, Keeper, PiSource, Probe, Store, StoreSpec, Wish};
use blkif::{DiscardNodes, DixNodes, Info, Properties, Sectors, Transport};
use integrity::Profile;
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Largest sector size offered: a page, beyond which Linux's blkfront does not go.
const SECTOR_MAX: u32 = 4096;

/// A disk that can be announced.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the toolstack and the operator want.
    pub nodes: DiskNodes,
    /// What is opened when the frontend connects.
    pub store: StoreSpec,
    /// The PI in use, if any.
    pub profile: Option<Profile>,
    /// Where it is kept, if apart from the data.
    pub sidecar: Option<PathBuf>,
    /// The store's size in bytes when it was looked at.
    pub bytes: u64,
    /// The store's logical block in bytes.
    pub logical_block: u32,
    /// What is offered before the frontend chooses.
    pub transport: Transport,
    /// Bytes of data buffers of each queue.
    pub pool: u64,
}

impl Plan {
    /// Decides. The text of a refusal says what is wrong and what to do.
    ///
    /// # Errors
    /// The disk as it is cannot be what is wanted of it.
    pub fn make(
        config: &DaemonConfig,
        nodes: DiskNodes,
        store: StoreSpec,
        probe: &Probe,
    ) -> Result<Self, String> {
        let found = probe.capabilities.profile;
        expect_profile(&nodes, found)?;
        let spec = &nodes.spec;
        let profile = found.filter(|_| spec.integrity != Integrity::Off);
        let mut store = store;
        store.crash = spec.crash.unwrap_or(config.crash);
        if found.is_some() && profile.is_none() {
            if !nodes.read_only && probe.keeper != Keeper::Device {
                return Err("integrity=off on a writable disk that has PI would leave the PI behind what is written: \
                            use integrity=auto (guests without DIX are served as they are), or take the PI away"
                    .to_owned());
            }
            store.pi = PiSource::None;
        }
        if !nodes.read_only && probe.capabilities.read_only {
            return Err("mode is w, but the disk can only be read".to_owned());
        }
        let logical_block = probe.geometry.logical_block;
        check_sectors(&nodes, profile, &probe.geometry)?;
        let transport = Transport {
            max_ring_page_order: spec.ring_order.unwrap_or(config.ring_order),
            max_queues: spec.queues.unwrap_or(config.queues).min(config.threads),
            max_indirect: spec.indirect.unwrap_or(config.indirect),
            dix: profile.map(|profile| dix_nodes(&profile)),
        };
        let pool = spec.pool.unwrap_or(config.pool);
        let sidecar = profile.and_then(|_| store.sidecar());
        let bytes = probe.geometry.bytes;
        Ok(Self { store, profile, sidecar, bytes, logical_block, transport, pool, nodes })
    }

    /// Whether a store, opened after this was announced, is still what was announced.
    ///
    /// # Errors
    /// In what it is not.
    pub fn holds(&self, geometry: &Geometry, capabilities: &Capabilities) -> Result<(), String> {
        if self.profile != capabilities.profile {
            let name =
                |profile: Option<Profile>| profile.map_or("none".to_owned(), |profile| profile.to_string());
            let (now, then) = (name(capabilities.profile), name(self.profile));
            return Err(format!("the disk's PI is {now}, but {then} was announced"));
        }
        if self.logical_block != geometry.logical_block {
            let (now, then) = (geometry.logical_block, self.logical_block);
            return Err(format!("the disk's logical block is {now} bytes, but {then} was announced"));
        }
        if capabilities.read_only && !self.nodes.read_only {
            return Err("mode is w, but the disk can only be read now".to_owned());
        }
        check_sectors(&self.nodes, self.profile, geometry)
    }

    /// Bytes of all buffers of each queue.
    pub fn queue_bytes(&self) -> u64 {
        let pool = usize::try_from(self.pool).unwrap_or(usize::MAX);
        let bytes = crate::queue::buffer_bytes(pool, self.profile.as_ref(), self.transport.max_indirect);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// `sector-size` in bytes.
    pub fn sector_size(&self) -> u32 {
        sector_size(self.profile, self.logical_block)
    }

    /// What the disk is, for a frontend that has chosen.
    pub fn properties(&self, geometry: &Geometry, capabilities: &Capabilities) -> Properties {
        let sector_size = self.sector_size();
        // blkif.h wants whole physical blocks, in whole sectors; an image need not be that.
        let physical = geometry.physical_block.max(sector_size);
        let whole = geometry.bytes.is_multiple_of(physical.into()) && physical.is_multiple_of(sector_size);
        let unit = capabilities.discard.filter(|_| self.nodes.offers_discard());
        Properties {
            sectors: Sectors(geometry.bytes / 512),
            sector_size,
            physical_sector_size: if whole { physical } else { sector_size },
            info: Info {
                cdrom: self.nodes.cdrom,
                removable: self.nodes.removable,
                read_only: self.nodes.read_only,
            },
            flush: true,
            barrier: true,
            persistent: false,
            discard: unit.map(|unit| DiscardNodes {
                granularity: unit.granularity.max(sector_size),
                alignment: unit.alignment,
                secure: false,
            }),
        }
    }

    /// The disk as its queues see it.
    pub fn disk(&self, name: String, store: Arc<dyn Store>, discard: bool) -> Disk {
        let spec = &self.nodes.spec;
        Disk {
            name,
            store,
            profile: self.profile,
            integrity: spec.integrity,
            app_tag: spec.app_tag,
            allow_escape: spec.allow_escape,
            read_only: self.nodes.read_only,
            discard,
            lost: Lost::default(),
        }
    }
}

/// What is opened for a disk.
pub fn store_spec(nodes: &DiskNodes) -> StoreSpec {
    let spec = &nodes.spec;
    let path = match &spec.target {
        Target::Path(path) => path.clone(),
        Target::Null(text) => format!("null:{text}").into(),
    };
    let mut store = StoreSpec::new(path);
    store.pi = spec.pi.clone();
    store.wish = Wish { guard: spec.guard, interval: spec.interval, metadata_size: spec.metadata_size };
    store.read_only = nodes.read_only;
    store.direct = spec.direct;
    store.discard = nodes.offers_discard();
    if let Some(cache) = spec.cache {
        store.cache_bytes = usize::try_from(cache).unwrap_or(usize::MAX);
    }
    store
}

/// The keys that say what the PI must be, against what it is.
fn expect_profile(nodes: &DiskNodes, found: Option<Profile>) -> Result<(), String> {
    let spec = &nodes.spec;
    let Some(profile) = found else {
        let wanted = [
            (spec.integrity == Integrity::Require, "integrity=require"),
            (spec.guard.is_some(), "guard="),
            (spec.interval.is_some(), "interval="),
            (spec.metadata_size.is_some(), "metadata-size="),
            (spec.app_tag != AppTagRule::Guest, "app-tag="),
        ];
        return match wanted.into_iter().find(|(wanted, _)| *wanted) {
            Some((_, key)) => Err(format!(
                "{key} needs PI, and the disk has none: make a sidecar with `dixback image protect`, or use a device \
                 that keeps PI"
            )),
            None => Ok(()),
        };
    };
    let is = profile.spec();
    if let Some(guard) = spec.guard.filter(|guard| *guard != is.guard) {
        return Err(format!("guard={guard}, but the disk's guard is {}", is.guard));
    }
    if let Some(interval) = spec.interval.filter(|interval| *interval != is.interval) {
        return Err(format!("interval={interval}, but the disk's interval is {} bytes", is.interval));
    }
    if let Some(size) = spec.metadata_size.filter(|size| *size != is.metadata_size) {
        return Err(format!("metadata-size={size}, but the disk's metadata is {} bytes", is.metadata_size));
    }
    if spec.app_tag != AppTagRule::Guest && is.tag_size < 2 {
        return Err(format!("app-tag= needs an application tag, the disk's has {} bytes", is.tag_size));
    }
    Ok(())
}

/// The sector size that follows from the PI and the logical block, against what can be.
fn check_sectors(nodes: &DiskNodes, profile: Option<Profile>, geometry: &Geometry) -> Result<(), String> {
    let sector = sector_size(profile, geometry.logical_block);
    let because = match profile {
        Some(profile) if profile.spec().interval == sector => {
            "from the PI's interval; a sidecar made by `dixback image protect` can have 512"
        }
        _ => "the store's logical block",
    };
    if sector > SECTOR_MAX {
        return Err(format!(
            "sectors of {sector} bytes ({because}) are more than the {SECTOR_MAX} a guest can take"
        ));
    }
    if let Some(wanted) = nodes.spec.sector_size.filter(|wanted| *wanted != sector) {
        return Err(format!("sector-size={wanted}, but the disk's is {sector} ({because})"));
    }
    if geometry.bytes == 0 || !geometry.bytes.is_multiple_of(sector.into()) {
        return Err(format!(
            "{} bytes are no whole number of sectors of {sector} bytes ({because})",
            geometry.bytes
        ));
    }
    Ok(())
}

fn sector_size(profile: Option<Profile>, logical_block: u32) -> u32 {
    logical_block.max(profile.map_or(512, |profile| profile.spec().interval)).max(512)
}

fn dix_nodes(profile: &Profile) -> DixNodes {
    let spec = profile.spec();
    DixNodes {
        guard: spec.guard.name().to_owned(),
        interval: spec.interval,
        metadata_size: spec.metadata_size,
        pi_offset: spec.pi_offset,
        tag_size: spec.tag_size,
        pi_type: spec.pi_type.number(),
    }
}
