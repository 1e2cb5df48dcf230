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

/// Why I/O with PI is not possible on a device that keeps PI; `Ok` if it is.
pub(crate) fn trial(medium: &Medium, format: &Format) -> Result<(), String> {
    if !medium.direct {
        return Err("PI goes past the page cache only (direct I/O, see the key direct=)".to_owned());
    }
    let failed = |error: &dyn std::fmt::Display| format!("a trial read failed: {error}");
    let mut ring = Ring::new(2).map_err(|error| error.to_string())?;
    ring.enable().map_err(|error| failed(&error))?;
    if !knows_attributes(medium, format, &mut ring).map_err(|error| failed(&error))? {
        return Err("this kernel's io_uring cannot carry PI (Linux 6.14 can)".to_owned());
    }
    match read(medium, format, &mut ring).map_err(|error| failed(&error))? {
        0.. => Ok(()),
        // The first block does not match its PI: it is for whoever reads it to be told.
        result if result == -libc::EILSEQ => Ok(()),
        result if result == -libc::EINVAL => Err(format!(
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
