//! A file to the disk, and the disk to a file.

use std::io::{Read, Write};

use super::Progress;
use crate::{Error, Queue, Submission};

/// Bytes between two reports of progress, at least.
const CHUNK: usize = 4 << 20;

/// Writes `len` bytes of `from` to the disk from byte `offset` on, at the queue's depth, and flushes. A last
/// block that is not whole keeps its rest.
///
/// # Errors
/// The first request that failed; [`Error::System`] when `from` cannot be read or ends early.
pub fn copy_in(
    queue: &mut Queue,
    from: &mut dyn Read,
    offset: u64,
    len: u64,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let block = queue.disk().block() as u64;
    if !offset.is_multiple_of(block) {
        return Err(Error::Request("the start is a whole block of the disk"));
    }
    let most = queue.disk().max_bytes() / block as usize * block as usize;
    let whole = len / block * block;
    let (mut sent, mut done) = (0, 0);
    let mut buffer = vec![0; most];
    let mut first_error = None;
    loop {
        while sent < whole && queue.free() > 0 && first_error.is_none() {
            let bytes = (most as u64).min(whole - sent) as usize;
            from.read_exact(&mut buffer[..bytes]).map_err(Error::system("reading the file"))?;
            queue.submit(&Submission::write((offset + sent) / 512, &buffer[..bytes]))?;
            sent += bytes as u64;
        }
        let Some(completion) = queue.complete()? else { break };
        done += completion.bytes() as u64;
        if let Err(error) = completion.check() {
            first_error.get_or_insert(error);
        }
        progress(done, len);
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    if whole < len {
        let mut last = vec![0; block as usize];
        queue.read_at(offset + whole, &mut last)?;
        let part = &mut last[..(len - whole) as usize];
        from.read_exact(part).map_err(Error::system("reading the file"))?;
        queue.write_at(offset + whole, &last)?;
        progress(len, len);
    }
    queue.flush()
}

/// Writes `len` bytes of the disk, from byte `offset` on, to `to`. Gives how many intervals carried an escape:
/// they were not protected.
///
/// # Errors
/// The first request that failed, after what is before it was written; [`Error::System`] when `to` cannot be
/// written.
pub fn copy_out(
    queue: &mut Queue,
    to: &mut dyn Write,
    offset: u64,
    len: u64,
    progress: Progress<'_>,
) -> Result<u64, Error> {
    let block = queue.disk().block() as u64;
    let mut buffer = vec![0; CHUNK.next_multiple_of(block as usize)];
    let (mut done, mut escaped) = (0, 0);
    while done < len {
        let bytes = (buffer.len() as u64).min(len - done);
        let whole = bytes.next_multiple_of(block) as usize;
        escaped += queue.read_at(offset + done, &mut buffer[..whole])?.escaped as u64;
        to.write_all(&buffer[..bytes as usize]).map_err(Error::system("writing the file"))?;
        done += bytes;
        progress(done, len);
    }
    to.flush().map_err(Error::system("writing the file"))?;
    Ok(escaped)
}
