//! What else the toolstack says of a disk, in nodes beside `params`.

use super::{ConfigError, DiskSpec};

/// A disk as the toolstack describes it: its target string and the nodes beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskNodes {
    /// From `params`.
    pub spec: DiskSpec,
    /// `mode` is `r`, or the device is a CD-ROM.
    pub read_only: bool,
    /// `discard-enable`, where it is written.
    pub discard: Option<bool>,
    /// `device-type` is `cdrom`.
    pub cdrom: bool,
    /// `removable` is 1.
    pub removable: bool,
}

impl DiskNodes {
    /// Reads the nodes of a backend's directory; `read` gives one by its name, none where it is not there.
    ///
    /// # Errors
    /// The first node that is missing or means nothing here.
    pub fn parse(read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, ConfigError> {
        let text = |node| read(node).map(|value| String::from_utf8_lossy(&value).into_owned());
        let params = text(blkif::names::PARAMS).ok_or(ConfigError::NoTarget)?;
        let spec = DiskSpec::parse(&params)?;
        let cdrom = text(blkif::names::DEVICE_TYPE).as_deref() == Some("cdrom");
        let writable = match text(blkif::names::MODE).unwrap_or_default().as_str() {
            "w" | "rw" => true,
            "r" => false,
            other => {
                let allowed = "r or w (w!, a disk written by several guests at once, is not possible)";
                let value = other.to_owned();
                return Err(ConfigError::Node { node: blkif::names::MODE, value, allowed });
            }
        };
        Ok(Self {
            spec,
            read_only: cdrom || !writable,
            discard: flag(blkif::names::DISCARD_ENABLE, text(blkif::names::DISCARD_ENABLE))?,
            cdrom,
            removable: flag(blkif::names::REMOVABLE, text(blkif::names::REMOVABLE))?.unwrap_or(false),
        })
    }

    /// Whether discards may be offered where the store can do them: the toolstack's word and the operator's.
    pub fn offers_discard(&self) -> bool {
        !self.read_only && self.discard.unwrap_or(true) && self.spec.discard.unwrap_or(true)
    }
}

fn flag(node: &'static str, value: Option<String>) -> Result<Option<bool>, ConfigError> {
    match value.as_deref() {
        None => Ok(None),
        Some("0") => Ok(Some(false)),
        Some("1") => Ok(Some(true)),
        Some(other) => Err(ConfigError::Node { node, value: other.to_owned(), allowed: "0 or 1" }),
    }
}
