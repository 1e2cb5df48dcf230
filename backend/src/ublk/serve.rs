//! A device's server, from its making to its end.
//!
//! ```text
//! plan -> claim -> open the store -> new:  ADD_DEV, SET_PARAMS -> queues offer their tags -> START_DEV
//!                                    old:  START_USER_RECOVERY -> queues offer their tags -> END_USER_RECOVERY
//!      -> the block layer says the same of its PI -> ready -> ... -> stop | the device goes | a queue fails
//! ```
//!
//! A device whose server ends while somebody has it open is left to the next server: what is asked of it meanwhile waits,
//! and what was begun and not answered is asked again (UBLK_F_USER_RECOVERY_REISSUE).
#![forbid(unsafe_code)]

use crate::control::Plan;
use crate::queue::{Disk, Stats};
use crate::store::{self, Store, StoreError};
use crate::ublk::disk::{self, LARGEST};
use crate::ublk::manage::delete_stopped;
use crate::ublk::record::{Claim, FOLDER, Record, new_mark};
use crate::ublk::takeover::{existing, recover};
use crate::ublk::threads::{Event, Threads};
use ::ublk::{Control, Device, Features, Info, NewDevice, Params, State};
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a server that has gone may still hold the device or the disk: the kernel ends its I/O first.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What `dixback ublk add` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The target with its keys, the path absolute; none: what the device served.
    pub target: Option<String>,
    pub read_only: bool,
    pub id: Option<u32>,
    /// A device that is there is taken over, and no other made.
    pub recover: bool,
    /// None: the disk's key, or the daemon's default.
    pub queues: Option<u16>,
    pub depth: u16,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The device is gone.
    Gone,
    /// The device waits for the next server.
    Left,
}

/// A device that is about to be served.
pub(super) struct Server {
    pub control: Control,
    pub claim: Claim,
    pub device: Arc<Device>,
    /// Made by this process: if it cannot be started, it goes again.
    pub new: bool,
    pub store: Arc<dyn Store>,
}

/// Serves until it ends. `ready` is told once, with a line about the device.
///
/// # Errors
/// Why it cannot be served, or not any longer.
pub(super) fn serve(wish: &Wish, ready: impl FnOnce(&str)) -> Result<End, String> {
    let (tell, told) = channel();
    listen_to_signals(tell.clone())?;
    // Memory that a queue allocates must not wait for a write to its own device (prctl(2), PR_SET_IO_FLUSHER).
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        log::warn!("PR_SET_IO_FLUSHER: {error}; under memory pressure the device may hang");
    }
    let mut control = Control::open().map_err(text)?;
    let existing = match wish.id {
        Some(id) => existing(&mut control, id, wish.recover)?,
        None => None,
    };
    match existing {
        Some((info, claim)) => recover(control, claim, wish, info, tell, told, ready),
        None if wish.recover => Err("there is no such ublk device to take over".to_owned()),
        None => create(control, wish, tell, told, ready),
    }
}

fn create(
    mut control: Control,
    wish: &Wish,
    tell: Sender<Event>,
    told: Receiver<Event>,
    ready: impl FnOnce(&str),
) -> Result<End, String> {
    let target = wish.target.as_deref().ok_or("no disk is given")?;
    let plan = disk::plan(target, wish.read_only)?;
    let mut features = Features::USER_COPY.and(Features::USER_RECOVERY).and(Features::USER_RECOVERY_REISSUE);
    if plan.profile.is_some() {
        features = features.and(Features::INTEGRITY);
    }
    let queues = wish.queues.unwrap_or(u16::try_from(plan.transport.max_queues).unwrap_or(1));
    // Before the disk is marked as in use: what the kernel lacks, it lacks.
    let offered = control.features().map_err(text)?;
    offers(features, offered)?;
    let name = wish.id.map_or("a ublk device".to_owned(), |id| format!("ublk device {id}"));
    let store = open(&plan, &name, false)?;
    let record = Record::new(target, wish.read_only, new_mark());
    let depth = wish.depth;
    let new = NewDevice { id: wish.id, queues, depth, largest: LARGEST, features, mark: record.mark };
    let (claim, device) = make(&mut control, &new, &record).inspect_err(|_| close(&*store))?;
    let params = disk::params(&plan, &store.geometry(), &store.capabilities());
    let server = Server { control, claim, device, new: true, store };
    server.run(&plan, &params, tell, &told, ready)
}

/// Whether the driver offers what a device must have.
fn offers(wanted: Features, offered: Features) -> Result<(), String> {
    let missing = wanted.beyond(offered);
    if missing == Features::default() {
        return Ok(());
    }
    let instead = if missing.contains(Features::INTEGRITY) { "; without PI: pi=none" } else { "" };
    Err(format!("{}{instead}", ::ublk::Error::Features { missing, offered }))
}

/// Makes a device, and the file that says what it serves.
fn make(control: &mut Control, new: &NewDevice, record: &Record) -> Result<(Claim, Arc<Device>), String> {
    let claim = |id| {
        Claim::make(Path::new(FOLDER), id, record, PATIENCE)
            .map_err(text)?
            .ok_or_else(|| format!("{FOLDER}/{id}.toml is locked by another process"))
    };
    // Where the number is known the file comes first: a device whose maker was killed before it had a file is nobody's,
    // and a service that asks for this number would find it taken for good.
    let early = new.id.map(claim).transpose()?;
    let info = match control.add(new) {
        Ok(info) => info,
        Err(error) => {
            let _ = early.map(Claim::forget);
            return Err(text(error));
        }
    };
    let rest = || Ok((early.map_or_else(|| claim(info.id), Ok)?, Device::open(info).map_err(text)?));
    rest().inspect_err(|_: &String| {
        let _ = control.delete_later(info.id);
    })
}

impl Server {
    pub fn run(
        mut self,
        plan: &Plan,
        params: &Params,
        tell: Sender<Event>,
        told: &Receiver<Event>,
        ready: impl FnOnce(&str),
    ) -> Result<End, String> {
        let id = self.device.info().id;
        let name = format!("ublkb{id}");
        let disk = Arc::new(plan.disk(name, Arc::clone(&self.store), params.discard.is_some()));
        let threads = match self.start(&disk, plan, params, &tell, told) {
            Ok(threads) => threads,
            Err(reason) => {
                // The store is not used any more: every queue has ended.
                close(&*self.store);
                drop(self.device);
                if self.new {
                    // A queue that failed may keep the device open until this process ends.
                    let _ = self.control.delete_later(id);
                    let _ = self.claim.forget();
                }
                return Err(reason);
            }
        };
        ready(&describe(self.device.info(), params, plan));
        let (end, stats) = self.attend(threads, told)?;
        log::info!("ublkb{id}: {}", summary(&stats));
        drop(disk);
        self.store.close().map_err(|error| format!("the disk cannot be closed: {error}"))?;
        let info = *self.device.info();
        drop(self.device);
        if end == End::Gone {
            // Whoever stopped it deletes it too.
            delete_stopped(&mut self.control, &info)?;
            self.claim.forget().map_err(text)?;
        }
        Ok(end)
    }

    /// Starts the queues, then the device, and looks at it.
    fn start(
        &mut self,
        disk: &Arc<Disk>,
        plan: &Plan,
        params: &Params,
        tell: &Sender<Event>,
        told: &Receiver<Event>,
    ) -> Result<Threads, String> {
        let id = self.device.info().id;
        if self.new {
            self.control.set_params(id, params).map_err(text)?;
        }
        let threads = Threads::start(&self.device, disk, plan, tell)?;
        let started = self.bring_up(&threads, params, told);
        match started {
            Ok(()) => Ok(threads),
            Err(reason) => {
                if self.new {
                    // Makes the queues end, if the device was started; they also end by being told.
                    let _ = self.control.stop(id);
                }
                threads.stop();
                threads.join();
                Err(reason)
            }
        }
    }

    fn bring_up(&mut self, threads: &Threads, params: &Params, told: &Receiver<Event>) -> Result<(), String> {
        let id = self.device.info().id;
        let mut offered = 0;
        // The driver waits for every tag, and would wait for ever.
        while offered < threads.len() {
            match told.recv().map_err(text)? {
                Event::Offered => offered += 1,
                Event::Failed(reason) => return Err(reason),
                Event::Ended => return Err("the device went away".to_owned()),
                Event::Signal => return Err("stopped before it was ready".to_owned()),
            }
        }
        if self.new {
            self.control.start(id).map_err(text)?;
        } else {
            self.control.end_recovery(id).map_err(text)?;
        }
        params.integrity.as_ref().map_or(Ok(()), |wanted| ::ublk::sysfs::check(id, wanted)).map_err(text)
    }

    /// Waits for the end.
    fn attend(&mut self, threads: Threads, told: &Receiver<Event>) -> Result<(End, Stats), String> {
        let id = self.device.info().id;
        let (mut ended, mut stopping) = (0, None);
        while ended < threads.len() {
            match told.recv().map_err(text)? {
                Event::Offered => {}
                Event::Ended => ended += 1,
                Event::Failed(reason) => {
                    // Requests may be under way that nobody waits for any more: the process must end before the disk
                    // is anybody else's, and its end makes the device wait for the next server.
                    log::error!("ublkb{id}: {reason}; the device waits for the next server");
                    std::process::exit(1);
                }
                Event::Signal if stopping.is_some() => {
                    log::error!("ublkb{id}: stopped while requests are under way");
                    std::process::exit(1);
                }
                Event::Signal => stopping = Some(self.part(&threads)),
            }
        }
        let state = self.control.info(id).map(|info| info.state);
        let end = match stopping {
            Some(end) => end,
            // Somebody stopped the device, or asks for another server.
            None if matches!(state, Ok(State::Dead) | Err(_)) => End::Gone,
            None => End::Left,
        };
        Ok((end, threads.join()))
    }

    /// Asked to stop: the device goes if nobody has it open; else it is left to the next server.
    fn part(&mut self, threads: &Threads) -> End {
        let id = self.device.info().id;
        let why = match self.control.try_stop(id) {
            Ok(()) => return End::Gone,
            Err(error) if error.errno() == Some(Errno::BUSY.raw_os_error()) => "it is in use".to_owned(),
            Err(error) => text(error),
        };
        log::warn!(
            "ublkb{id} is left to the next server ({why}): dixback ublk add --recover {id}; until then whoever \
             uses it waits"
        );
        threads.stop();
        End::Left
    }
}

/// Opens a disk. One whose server was killed may be locked for a little longer: until the kernel has ended its I/O, which
/// is what the lock is waited for.
pub(super) fn open(plan: &Plan, owner: &str, patient: bool) -> Result<Arc<dyn Store>, String> {
    let since = Instant::now();
    let store = loop {
        match store::open(&plan.store, owner) {
            Err(StoreError::InUse { .. }) if patient && since.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => break result.map_err(text)?,
        }
    };
    plan.holds(&store.geometry(), &store.capabilities()).inspect_err(|_| close(&*store))?;
    Ok(store)
}

pub(super) fn close(store: &dyn Store) {
    if let Err(error) = store.close() {
        log::error!("the disk cannot be closed: {error}");
    }
}

fn listen_to_signals(tell: Sender<Event>) -> Result<(), String> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(text)?;
    let listen = move || signals.forever().take_while(|_| tell.send(Event::Signal).is_ok()).for_each(drop);
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop).map_err(text)
}

fn describe(info: &Info, params: &Params, plan: &Plan) -> String {
    let pi = plan.profile.map_or("without PI".to_owned(), |profile| format!("PI {profile}"));
    let (id, queues, depth) = (info.id, info.queues, info.depth);
    let (bytes, path) = (params.bytes, plan.store.path.display());
    format!("/dev/ublkb{id} serves {path}: {bytes} bytes, {pi}, {queues} queues of {depth}")
}

/// What the queues did, in a line.
fn summary(stats: &Stats) -> String {
    let told = stats.named().filter(|(_, value)| *value > 0);
    told.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_when_the_driver_lacks_integrity_says_that_and_what_to_do() {
        let wanted = Features::USER_COPY.and(Features::INTEGRITY);
        let refused = offers(wanted, Features::USER_COPY.and(Features::USER_RECOVERY)).unwrap_err();
        for words in [
            "lacks UBLK_F_INTEGRITY (it has: UBLK_F_USER_RECOVERY, UBLK_F_USER_COPY)",
            "Linux 7.0",
            "pi=none",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        let older = offers(Features::USER_COPY, Features::default()).unwrap_err();
        assert!(older.contains("lacks UBLK_F_USER_COPY") && !older.contains("pi=none"), "{older}");
        assert_eq!(offers(wanted, Features(u64::MAX)), Ok(()));
    }
}
