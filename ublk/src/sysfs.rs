//! What the block layer says of a device's integrity, against what was asked for.
//!
//! A kernel that does not know a parameter drops it without a word; the device then works, without PI.
#![forbid(unsafe_code)]

use crate::{Csum, Error, Integrity};
use std::path::{Path, PathBuf};

/// The block device's name.
pub fn name(device: u32) -> String {
    format!("ublkb{device}")
}

/// The profile's name in `integrity/format` (`block/blk-integrity.c`).
pub fn format(integrity: &Integrity) -> &'static str {
    match (integrity.csum, integrity.reference) {
        (Csum::None, _) => "nop",
        (Csum::Crc16T10Dif, true) => "T10-DIF-TYPE1-CRC",
        (Csum::Crc16T10Dif, false) => "T10-DIF-TYPE3-CRC",
        (Csum::Ip, true) => "T10-DIF-TYPE1-IP",
        (Csum::Ip, false) => "T10-DIF-TYPE3-IP",
        (Csum::Crc64Nvme, true) => "EXT-DIF-TYPE1-CRC64",
        (Csum::Crc64Nvme, false) => "EXT-DIF-TYPE3-CRC64",
    }
}

/// Compares a started device with its parameters.
///
/// # Errors
/// [`Error::Sysfs`] names the file that says something else; [`Error::Device`] one that cannot be read.
pub fn check(device: u32, integrity: &Integrity) -> Result<(), Error> {
    check_in(&PathBuf::from("/sys/block").join(name(device)), integrity)
}

fn check_in(folder: &Path, integrity: &Integrity) -> Result<(), Error> {
    let expected = [
        ("format", format(integrity).to_owned()),
        ("tag_size", integrity.tag_size.to_string()),
        ("protection_interval_bytes", integrity.interval.to_string()),
        ("device_is_integrity_capable", "1".to_owned()),
    ];
    for (file, expected) in expected {
        let path = folder.join("integrity").join(file);
        let found = std::fs::read_to_string(&path).map_err(|source| Error::Device {
            path: path.display().to_string(),
            doing: "what the block layer says of its integrity cannot be read",
            source,
        })?;
        let found = found.trim_end().to_owned();
        if found != expected {
            return Err(Error::Sysfs { path: path.display().to_string(), found, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_when_a_file_says_something_else_names_it() {
        let wanted = Integrity {
            csum: Csum::Crc16T10Dif,
            interval: 512,
            metadata_size: 8,
            pi_offset: 0,
            tag_size: 2,
            reference: true,
        };
        let folder = std::env::temp_dir().join(format!("ublk-sysfs-{}", std::process::id()));
        let integrity = folder.join("integrity");
        std::fs::create_dir_all(&integrity).unwrap();
        for (file, text) in [
            ("format", "T10-DIF-TYPE1-CRC\n"),
            ("tag_size", "2\n"),
            ("protection_interval_bytes", "512\n"),
            ("device_is_integrity_capable", "1\n"),
        ] {
            std::fs::write(integrity.join(file), text).unwrap();
        }
        let good = check_in(&folder, &wanted);
        std::fs::write(integrity.join("format"), "none\n").unwrap();
        let bad = check_in(&folder, &wanted);
        std::fs::remove_dir_all(&folder).unwrap();
        let gone = check_in(&folder, &wanted);
        good.unwrap();
        assert!(matches!(bad, Err(Error::Sysfs { ref found, .. }) if found == "none"), "{bad:?}");
        assert!(matches!(gone, Err(Error::Device { .. })), "{gone:?}");
    }
}
