//! Taking over a device that a server left: is it there, is it ours, is the disk the same.
#![forbid(unsafe_code)]

use crate::ublk::disk;
use crate::ublk::manage::delete_stopped;
use crate::ublk::record::{Claim, FOLDER, look};
use crate::ublk::serve::{End, PATIENCE, Server, Wish, close, open, text};
use crate::ublk::threads::Event;
use ::ublk::{Control, Device, Info, Params, State};
use rustix::io::Errno;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// A device of that number, if there is one that waits for a server; its claim with it.
pub(super) fn existing(
    control: &mut Control,
    id: u32,
    patient: bool,
) -> Result<Option<(Info, Claim)>, String> {
    let since = Instant::now();
    loop {
        let info = match control.info(id) {
            Ok(info) => info,
            Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => return Ok(None),
            Err(error) => return Err(text(error)),
        };
        let claim = Claim::take(Path::new(FOLDER), id).map_err(text)?;
        // A server that was killed is not quite gone until the kernel has ended its I/O.
        let foreign = info.state == State::Live && look(Path::new(FOLDER), id, info.mark).is_none();
        let lives = claim.is_none() || foreign;
        match (claim, info.state) {
            (Some(claim), State::Quiesced | State::Failing) => return Ok(Some((info, claim))),
            (Some(mut claim), State::Dead) => {
                if claim.record(info.mark).map_err(text)?.is_none() {
                    return Err(format!(
                        "ublk device {id} is dead, and was not made by dixback; if nobody is about to start it: dixback \
                         ublk del {id}"
                    ));
                }
                // Its server ended before it was started, or after it was stopped.
                delete_stopped(control, &info)?;
                return Ok(None);
            }
            _ if since.elapsed() < PATIENCE && (patient || !lives) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            _ => {
                let by =
                    info.server.map_or("another process".to_owned(), |process| format!("process {process}"));
                return Err(format!("ublk device {id} is {} and served by {by}", info.state));
            }
        }
    }
}

/// Serves it in the place of its former server, if the disk is the one it was made of.
pub(super) fn recover(
    mut control: Control,
    mut claim: Claim,
    wish: &Wish,
    info: Info,
    tell: Sender<Event>,
    told: Receiver<Event>,
    ready: impl FnOnce(&str),
) -> Result<End, String> {
    let id = info.id;
    let record = claim.record(info.mark).map_err(text)?.ok_or_else(|| {
        format!(
            "ublk device {id} is {}, but was not made by dixback: nobody knows what it served",
            info.state
        )
    })?;
    if let Some(target) = wish.target.as_deref()
        && (target, wish.read_only) != (&record.target, record.read_only)
    {
        return Err(format!(
            "ublk device {id} is {} and belongs to {}{}: it is taken over with that, or deleted (dixback ublk del {id})",
            info.state,
            record.target,
            if record.read_only { ", read-only" } else { "" }
        ));
    }
    let plan = disk::plan(&record.target, record.read_only)?;
    let store = open(&plan, &format!("ublk device {id}"), true)?;
    let params = disk::params(&plan, &store.geometry(), &store.capabilities());
    let mut prepared = || {
        let had = control.params(id).map_err(text)?;
        // A disk that has grown is served as far as it went.
        let fits =
            had.is_some_and(|had| Params { bytes: had.bytes, ..params } == had && had.bytes <= params.bytes);
        if !fits {
            return Err(format!(
                "{} is not what ublk device {id} was made of: it is {params:?}, it was {had:?}",
                record.target
            ));
        }
        patiently(|| control.start_recovery(id))?;
        patiently(|| Device::open(info))
    };
    let device = prepared().inspect_err(|_| close(&*store))?;
    let server = Server { control, claim, device, new: false, store };
    server.run(&plan, &params, tell, &told, ready)
}

/// Tries while the driver says that the former server is not quite gone.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, ::ublk::Error>) -> Result<T, String> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.errno() == Some(Errno::BUSY.raw_os_error()) && since.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.map_err(text),
        }
    }
}
