//! Devices from outside: what there is, and taking one away.
#![forbid(unsafe_code)]

use crate::config::units;
use crate::ublk::record::{Claim, FOLDER, look};
use ::ublk::{Control, Info, State, sysfs};
use comfy_table::{Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::path::Path;

/// How long a server may take to end, in seconds.
const PATIENCE: i64 = 60;

/// All ublk devices of this machine, whoever serves them.
pub(super) fn list() -> Result<String, String> {
    let mut control = Control::open().map_err(text)?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["DEVICE", "STATE", "SERVER", "SIZE", "PI", "QUEUES", "DISK"]);
    for id in ids()? {
        // One that goes meanwhile is no error.
        let Ok(info) = control.info(id) else { continue };
        let params = control.params(id).ok().flatten();
        let integrity = params.as_ref().and_then(|params| params.integrity);
        table.add_row([
            format!("/dev/{}", sysfs::name(id)),
            info.state.to_string(),
            info.server.map_or("-".to_owned(), |process| process.to_string()),
            params.map_or("?".to_owned(), |params| units::size_text(params.bytes)),
            integrity.map_or("-".to_owned(), |integrity| {
                let (interval, metadata) = (integrity.interval, integrity.metadata_size);
                format!("{} {interval}+{metadata}", sysfs::format(&integrity))
            }),
            format!("{}x{}", info.queues, info.depth),
            look(Path::new(FOLDER), id, info.mark)
                .map_or("(not dixback's)".to_owned(), |record| record.target),
        ]);
    }
    Ok(table.to_string())
}

/// The numbers of all devices, in order.
fn ids() -> Result<Vec<u32>, String> {
    let folder = "/sys/class/ublk-char";
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut ids: Vec<u32> =
        names.filter_map(|name| name.strip_prefix("ublkc").and_then(|id| id.parse().ok())).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Takes a device away, and waits until its server has closed the disk. One that is in use only by `force`: its users get
/// errors.
pub(super) fn delete(id: u32, force: bool) -> Result<(), String> {
    let mut control = Control::open().map_err(text)?;
    let info = match control.info(id) {
        Ok(info) => info,
        Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => {
            return Err(format!("there is no ublk device {id}"));
        }
        Err(error) => return Err(text(error)),
    };
    // Held before it is stopped, so that its number cannot become another process's.
    let process = info.server.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?));
    let server = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    if info.state != State::Dead {
        let stopped = if force { control.stop(id) } else { control.try_stop(id) };
        match stopped {
            Ok(()) => {}
            Err(error) if !force && error.errno() == Some(Errno::BUSY.raw_os_error()) => {
                return Err(format!(
                    "/dev/{} is in use (see lsblk and fuser); to take it away all the same: dixback ublk del --force {id}",
                    sysfs::name(id)
                ));
            }
            // Its block device went meanwhile.
            Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => {}
            Err(error) => return Err(text(error)),
        }
    }
    if let Some(server) = server {
        let mut waited = [PollFd::new(&server, PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        if poll(&mut waited, Some(&limit)).map_err(text)? == 0 {
            return Err(format!("its server, process {}, does not end", info.server.unwrap_or(0)));
        }
    }
    delete_stopped(&mut control, &info)?;
    if look(Path::new(FOLDER), id, info.mark).is_some()
        && let Some(mut claim) = Claim::take(Path::new(FOLDER), id).map_err(text)?
        && claim.record(info.mark).map_err(text)?.is_some()
    {
        claim.forget().map_err(text)?;
    }
    Ok(())
}

/// Deletes a device that was stopped, if it is still there: its server may have been faster, and its number may be a
/// later device's.
pub(super) fn delete_stopped(control: &mut Control, was: &Info) -> Result<(), String> {
    let gone = |error: &::ublk::Error| error.errno() == Some(Errno::NODEV.raw_os_error());
    let outcome = match control.info(was.id) {
        Ok(now) if (now.mark, now.state) == (was.mark, State::Dead) => control.delete(was.id),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    outcome.or_else(|error| if gone(&error) { Ok(()) } else { Err(text(error)) })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
