//! A trial: what the kernel does with one read that carries PI. It changes nothing.
//!
//! A kernel without the attribute would not refuse it: it would read the data and leave the PI alone. So it is asked first
//! for an attribute that does not exist, which only a kernel that knows attributes refuses.

use super::format::Format;
use crate::io::{Owner, PiAttr, Pool, Ring, Transfer, attach_unknown};
use crate::store::medium::Medium;
use io_uring::{opcode, types};
use std::io;
use std::ptr::NonNull;

/// Why I/O with PI is not possible on a device that keeps PI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It lacks something: without PI it may serve.
    Lacking(String),
    /// It failed, and may fail without PI just so.
    Failed(String),
}

impl From<Unusable> for String {
    fn from(why: Unusable) -> String {
        match why {
            Unusable::Lacking(why) | Unusable::Failed(why) => why,
        }
    }
}

/// Tries.
///
/// # Errors
/// [`Unusable`].
pub(crate) fn trial(medium: &Medium, format: &Format) -> Result<(), Unusable> {
    let lacking = |why: String| Err(Unusable::Lacking(why));
    if !medium.direct {
        return lacking("PI goes past the page cache only (direct I/O, see the key direct=)".to_owned());
    }
    let failed = |error: &dyn std::fmt::Display| Unusable::Failed(format!("a trial read failed: {error}"));
    let mut ring = Ring::new(2).map_err(|error| Unusable::Failed(error.to_string()))?;
    ring.enable().map_err(|error| failed(&error))?;
    if !knows_attributes(medium, format, &mut ring).map_err(|error| failed(&error))? {
        return lacking("this kernel's io_uring cannot carry PI (Linux 6.14 can)".to_owned());
    }
    match read(medium, format, &mut ring).map_err(|error| failed(&error))? {
        0.. => Ok(()),
        // The first block does not match its PI: it is for whoever reads it to be told.
        result if result == -libc::EILSEQ => Ok(()),
        result if result == -libc::EINVAL => lacking(format!(
            "the kernel does not take PI of {} bytes per interval for this device; if its metadata is larger than that, \
             Linux 6.17 is needed",
            format.profile.metadata_size()
        )),
        result => Err(failed(&io::Error::from_raw_os_error(-result))),
    }
}

/// Whether a read with an attribute of no known type is refused.
fn knows_attributes(medium: &Medium, format: &Format, ring: &mut Ring) -> io::Result<bool> {
    let (mut pool, bytes) = pool(medium, format)?;
    let lease = pool.take(bytes, 0).ok_or_else(too_small)?;
    let mut entry = opcode::Read::new(types::Fd(medium.fd()), lease.data_ptr(), bytes as u32).build();
    attach_unknown(&mut entry);
    // SAFETY: the lease goes back after the completion has been taken; if none can be taken it never does, and its memory
    // stays.
    unsafe { ring.push(&entry.user_data(Owner::Store.user_data(0))) };
    let result = wait(ring);
    if result.is_ok() {
        pool.give_back(lease);
    } else {
        std::mem::forget(lease);
    }
    result.map(|result| result == -libc::EINVAL)
}

/// Reads the first block with its PI, unchecked where the device can leave the checks out.
fn read(medium: &Medium, format: &Format, ring: &mut Ring) -> io::Result<i32> {
    let (mut pool, bytes) = pool(medium, format)?;
    let lease = pool.take(bytes, format.profile.metadata_len(bytes)).ok_or_else(too_small)?;
    let mut attr = Box::new(PiAttr {
        len: lease.metadata_len() as u32,
        addr: lease.metadata_ptr() as u64,
        ..PiAttr::default()
    });
    let pi = Some(NonNull::from(attr.as_mut()));
    let transfer = Transfer { fd: medium.fd(), offset: 0, write: None, pi };
    // SAFETY: lease and attribute are kept until the completion has been taken, and for good if none can be.
    unsafe { ring.transfer(transfer, &lease, 0..bytes, Owner::Store.user_data(0)) };
    let result = wait(ring);
    if result.is_ok() {
        pool.give_back(lease);
    } else {
        std::mem::forget((lease, attr));
    }
    result
}

/// A buffer for one block, and its length.
fn pool(medium: &Medium, format: &Format) -> io::Result<(Pool, usize)> {
    let bytes = format.profile.interval().max(medium.sector as usize);
    Ok((Pool::new(bytes, format.profile.metadata_len(bytes))?, bytes))
}

fn too_small() -> io::Error {
    io::Error::other("the pool is too small")
}

fn wait(ring: &mut Ring) -> io::Result<i32> {
    loop {
        ring.submit(Some(std::time::Duration::from_secs(30)))?;
        if let Some((_, result)) = ring.reap() {
            return Ok(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::cut::Cut;
    use crate::store::lock::Access;
    use crate::store::medium::{Direct, SECTOR};
    use integrity::{Guard, PiType, Profile, ProfileSpec};

    #[test]
    fn trial_when_what_is_read_cannot_carry_pi_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let spec = ProfileSpec {
            guard: Guard::Crc16T10Dif,
            interval: 512,
            metadata_size: 8,
            pi_offset: 0,
            tag_size: 2,
            pi_type: PiType::Type1,
        };
        let format = Format { profile: Profile::new(spec).unwrap(), cut: Cut::after(4096), base: Some(0) };
        let open = |direct| Medium::open(file.path(), Access::Shared, direct, SECTOR).unwrap();
        let buffered = trial(&open(Direct::Off), &format).unwrap_err();
        assert!(matches!(&buffered, Unusable::Lacking(why) if why.contains("direct")), "{buffered:?}");
        // As if it were direct: the kernel, old or new, must not seem to have read PI from a file.
        let mut medium = open(Direct::Off);
        medium.direct = true;
        let refused = trial(&medium, &format).unwrap_err();
        assert!(matches!(&refused, Unusable::Lacking(why) if why.contains("Linux 6.1")), "{refused:?}");
    }
}
