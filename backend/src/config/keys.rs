//! The keys of a disk's target string, one line each: name, what it may be, how it is read.

use super::disk::Set;
use super::{ConfigError, units};
use crate::queue::{AppTagRule, Integrity};
use crate::store::{Direct, PiSource};
use integrity::AppTag;
use std::path::PathBuf;

/// One key.
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value may be, for messages and the guide.
    pub allowed: &'static str,
    /// Reads it.
    pub set: Set,
}

/// All keys: name, values.
pub fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.iter().map(|key| (key.name, key.allowed))
}

pub(super) fn find(name: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey {
        key: name.to_owned(),
        allowed: KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", "),
    })
}

const KEYS: &[Key] = &[
    Key {
        name: "pi",
        allowed: "auto, none, device or the absolute path of a sidecar",
        set: |spec, value| {
            spec.pi = match value {
                "auto" => PiSource::Auto,
                "none" => PiSource::None,
                "device" => PiSource::Device,
                path if path.starts_with('/') && !path.contains('\0') => {
                    PiSource::Sidecar(PathBuf::from(path))
                }
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "integrity",
        allowed: "off, auto or require",
        set: |spec, value| {
            spec.integrity = match value {
                "off" => Integrity::Off,
                "auto" => Integrity::Auto,
                "require" => Integrity::Require,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "guard",
        allowed: "crc16-t10dif, ip, crc64-nvme or none",
        set: |spec, value| put(&mut spec.guard, value.parse().ok()),
    },
    Key {
        name: "interval",
        allowed: "512, 1024, 2048 or 4096",
        set: |spec, value| put(&mut spec.interval, block(value)),
    },
    Key {
        name: "metadata-size",
        allowed: "1 to 255",
        set: |spec, value| {
            put(&mut spec.metadata_size, number(value, 1..=255).and_then(|size| size.try_into().ok()))
        },
    },
    Key {
        name: "sector-size",
        allowed: "512, 1024, 2048 or 4096",
        set: |spec, value| put(&mut spec.sector_size, block(value)),
    },
    Key {
        name: "app-tag",
        allowed: "VALUE or VALUE/MASK, 16 bits each, such as 0x1200/0xff00; \
                  no bit of the value outside the mask; not 0xffff, which marks an interval as unchecked",
        set: |spec, value| {
            spec.app_tag = AppTagRule::Operator(app_tag(value)?);
            Some(())
        },
    },
    Key {
        name: "escape",
        allowed: "allow or refuse",
        set: |spec, value| {
            spec.allow_escape = choice(value, "allow", "refuse")?;
            Some(())
        },
    },
    Key {
        name: "direct",
        allowed: "auto, on or off",
        set: |spec, value| {
            spec.direct = match value {
                "auto" => Direct::Auto,
                _ if choice(value, "on", "off")? => Direct::On,
                _ => Direct::Off,
            };
            Some(())
        },
    },
    Key {
        name: "queues",
        allowed: "1 to 64",
        set: |spec, value| put(&mut spec.queues, number(value, 1..=64)),
    },
    Key {
        name: "ring-order",
        allowed: "0 to 4",
        set: |spec, value| put(&mut spec.ring_order, number(value, 0..=4)),
    },
    Key {
        name: "indirect",
        allowed: "0 (none) or 11 to 256",
        set: |spec, value| {
            let segments = number(value, 0..=256).filter(|n| *n == 0 || *n >= 11)?;
            put(&mut spec.indirect, u16::try_from(segments).ok())
        },
    },
    Key {
        name: "pool",
        allowed: "a size from 1MiB to 1GiB",
        set: |spec, value| {
            put(&mut spec.pool, units::size(value).filter(|n| (1 << 20..=1 << 30).contains(n)))
        },
    },
    Key {
        name: "discard",
        allowed: "on or off",
        set: |spec, value| put(&mut spec.discard, choice(value, "on", "off")),
    },
    Key {
        name: "cache",
        allowed: "a size from 64KiB to 16GiB",
        set: |spec, value| {
            put(&mut spec.cache, units::size(value).filter(|n| (1 << 16..=1 << 34).contains(n)))
        },
    },
    Key {
        name: "crash",
        allowed: "log, bitmap or off",
        set: |spec, value| put(&mut spec.crash, value.parse().ok()),
    },
];

fn put<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    *place = Some(value?);
    Some(())
}

fn choice(value: &str, yes: &str, no: &str) -> Option<bool> {
    match value {
        _ if value == yes => Some(true),
        _ if value == no => Some(false),
        _ => None,
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    // The standard parser also takes a plus sign.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|n| digits && range.contains(n))
}

/// Intervals and sectors that can be offered to a guest.
fn block(value: &str) -> Option<u32> {
    number(value, 512..=4096).filter(|n| n.is_power_of_two())
}

fn app_tag(value: &str) -> Option<AppTag> {
    let (tag, mask) = match value.split_once('/') {
        Some((tag, mask)) => (tag16(tag)?, tag16(mask)?),
        None => (tag16(value)?, 0xffff),
    };
    // An operator's tag that is the escape would tell every checker not to look.
    let sound = mask != 0 && tag & !mask == 0 && (tag, mask) != (0xffff, 0xffff);
    sound.then_some(AppTag { value: tag, mask })
}

fn tag16(text: &str) -> Option<u16> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let plain = digits.chars().all(|c| c.is_digit(radix));
    u16::from_str_radix(digits, radix).ok().filter(|_| plain)
}
