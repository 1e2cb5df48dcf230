//! Mirrors of md below a device, through which PI with reference tags cannot always be written.
//!
//! ```text
//! one write -> md raid1 -> a request to each disk, and one buffer of PI for all: its tags become the first disk's numbers,
//!                          in place; for the second they are right only if it counts the same
//! ```
//!
//! Where it does not, the second disk refuses the write, md has the block on the first alone, and tells nobody (seen on
//! Linux 7.3).
#![forbid(unsafe_code)]

use std::fs::{canonicalize, read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// How many devices may lie on each other.
const DEEPEST: u32 = 16;

/// Why PI with reference tags cannot be written to the device with this folder in sysfs.
pub(super) fn mirror(folder: &Path) -> Option<String> {
    below(folder, DEEPEST)
}

fn below(folder: &Path, depth: u32) -> Option<String> {
    let disk = disk(folder)?;
    if let Some(level) = read(&disk, "md/level").filter(|level| level == "raid1" || level == "raid10")
        && (level == "raid10" || !alike(&disk))
    {
        return Some(format!(
            "on Linux, the disks of a {level} of md share a request's PI, with the first one's numbers in it: right only \
             in a raid1 of disks, or of partitions, that all start at the same block; a sidecar can be used"
        ));
    }
    let slaves = read_dir(disk.join("slaves")).ok()?;
    slaves.flatten().find_map(|slave| below(&slave.path(), depth.checked_sub(1)?))
}

/// Whether every disk of a mirror begins at the same block of what counts. One that is missing now is not asked.
fn alike(array: &Path) -> bool {
    let number = |folder: &Path, name: &str| read(folder, name).and_then(|text| text.parse::<u64>().ok());
    let member = |index| {
        let member = array.join(format!("md/rd{index}"));
        let offset = number(&member, "offset")?;
        let block = member.join("block");
        // Where a disk of dm or md begins on what is below it is not known here.
        let layered = disk(&block).is_none_or(|disk| disk.join("dm").exists() || disk.join("md").exists());
        Some((!layered).then(|| offset.saturating_add(number(&block, "start").unwrap_or(0))))
    };
    let mut starts = (0..number(array, "md/raid_disks").unwrap_or(0)).filter_map(member);
    let first = starts.next().flatten();
    first.is_some() && starts.all(|start| start == first)
}

/// The folder of the disk that a partition is on, or of the disk itself.
fn disk(folder: &Path) -> Option<PathBuf> {
    let folder = canonicalize(folder).ok()?;
    if folder.join("partition").exists() { folder.parent().map(Path::to_owned) } else { Some(folder) }
}

fn read(folder: &Path, name: &str) -> Option<String> {
    Some(read_to_string(folder.join(name)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A sysfs with disks `a` and `b`, each with a partition `1` at block 2056 and `2` at another.
    fn disks() -> TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (disk, second) in [("a", "4000"), ("b", "4008")] {
            for (partition, start) in [("1", "2056"), ("2", second)] {
                let folder = sysfs.path().join(disk).join(partition);
                create_dir_all(&folder).unwrap();
                write(folder.join("partition"), partition).unwrap();
                write(folder.join("start"), start).unwrap();
            }
        }
        sysfs
    }

    /// An array of these members, each with its offset; of more disks than are there.
    fn array(sysfs: &Path, name: &str, level: &str, members: &[(&str, u64)]) -> PathBuf {
        let folder = sysfs.join(name);
        create_dir_all(folder.join("slaves")).unwrap();
        create_dir_all(folder.join("md")).unwrap();
        write(folder.join("md/level"), format!("{level}\n")).unwrap();
        write(folder.join("md/raid_disks"), "3\n").unwrap();
        for (index, (member, offset)) in members.iter().enumerate() {
            // The first place is one that is missing.
            let folder = folder.join(format!("md/rd{}", index + 1));
            create_dir_all(&folder).unwrap();
            write(folder.join("offset"), format!("{offset}\n")).unwrap();
            symlink(sysfs.join(member), folder.join("block")).unwrap();
            symlink(sysfs.join(member), sysfs.join(name).join("slaves").join(member.replace('/', "p")))
                .unwrap();
        }
        folder
    }

    #[test]
    fn mirror_when_its_disks_count_alike_can_be_used_and_else_not() {
        let sysfs = disks();
        let at = sysfs.path();
        let cases = [
            ("raid1", [("a", 2048), ("b", 2048)], true),
            ("raid1", [("a/1", 2048), ("b/1", 2048)], true),
            ("raid1", [("a/1", 0), ("b", 2056)], true),
            ("raid1", [("a/1", 2048), ("b/1", 4096)], false),
            ("raid1", [("a/2", 2048), ("b/2", 2048)], false),
            ("raid10", [("a", 2048), ("b", 2048)], false),
            ("raid0", [("a/2", 2048), ("b/2", 4096)], true),
        ];
        for (number, (level, members, usable)) in cases.into_iter().enumerate() {
            let why = mirror(&array(at, &format!("md{number}"), level, &members));
            assert_eq!(why.is_none(), usable, "{level} {members:?}: {why:?}");
        }
        assert_eq!(mirror(&at.join("a/1")), None);
    }

    #[test]
    fn mirror_when_it_is_below_others_is_found_and_of_what_is_not_known_nothing_is_believed() {
        let sysfs = disks();
        let at = sysfs.path();
        array(at, "bad", "raid1", &[("a/2", 0), ("b/2", 0)]);
        array(at, "good", "raid1", &[("a/1", 0), ("b/1", 0)]);
        for (volume, array) in [("volume", "bad"), ("other", "good")] {
            create_dir_all(at.join(volume).join("dm")).unwrap();
            create_dir_all(at.join(volume).join("slaves")).unwrap();
            symlink(at.join(array), at.join(volume).join("slaves").join(array)).unwrap();
            create_dir_all(at.join(array).join("part")).unwrap();
            write(at.join(array).join("part/partition"), "1").unwrap();
        }
        assert!(mirror(&at.join("volume")).is_some_and(|why| why.contains("raid1")));
        assert!(mirror(&at.join("bad/part")).is_some());
        assert_eq!((mirror(&at.join("other")), mirror(&at.join("good/part"))), (None, None));
        assert!(mirror(&array(at, "over", "raid1", &[("other", 0), ("b", 0)])).is_some());
        assert!(mirror(&array(at, "empty", "raid1", &[])).is_some());
    }
}
