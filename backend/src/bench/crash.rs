//! What each way of keeping for a crash costs: a store's queue beside a bare io_uring loop on the same medium, with no
//! guest and no ring between.
//!
//! ```text
//! raw loop -> data                 store: crash=off, bitmap, log -> data and sidecar, PI ready-made
//! ```

use super::raw::{self, Rate};
use super::workload::{self, Workload};
use crate::image::{ProtectOptions, protect};
use crate::io::{Doorbell, Lease, Owner, Pool, Ring};
use crate::simhost::{HostError, system};
use crate::store::{CrashMode, Direct, Io, Op, PiSource, Store, StoreSpec, open};
use comfy_table::{CellAlignment, Table};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Not measured: first writes have blocks allocated, of the data and of a log's area.
const WARM_UP: Duration = Duration::from_millis(1500);

/// What is measured on.
pub(super) struct Media {
    /// Its name in the table.
    pub name: String,
    /// The data.
    pub data: PathBuf,
    /// The sidecar.
    pub sidecar: PathBuf,
    /// Bytes of data that are written to.
    pub bytes: u64,
}

/// The first `bytes` of a data device and a device for its sidecar, as `DATA,SIDECAR`. What is on them is lost.
pub(super) fn devices(text: &str, bytes: u64) -> Result<Media, HostError> {
    let wrong = || system("--devices")(io::Error::other("two devices are wanted: DATA,SIDECAR"));
    let (data, sidecar) = text.split_once(',').ok_or_else(wrong)?;
    let cache = |path: &str| {
        let name = Path::new(path).file_name().unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(Path::new("/sys/block").join(name).join("queue/write_cache"));
        text.map_or("?".to_owned(), |text| text.trim().to_owned())
    };
    let name = format!("{data} ({}), {sidecar} ({})", cache(data), cache(sidecar));
    Ok(Media { name, data: data.into(), sidecar: sidecar.into(), bytes })
}

/// Measures, and prints the table.
pub(super) fn table(media: &[Media], seconds: Duration) -> Result<(), HostError> {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header(["writes", "crash", "requests/s", "ratio", "ns of processor", "requests a batch"]);
    for media in media {
        let failed = || system(media.data.display().to_string());
        table.add_row([media.name.as_str()]);
        for workload in workload::ALL.into_iter().filter(|workload| workload.write) {
            let file = raw::open(&media.data).map_err(failed())?;
            on_a_thread(|| raw::run(&file, media.bytes, workload, WARM_UP)).map_err(failed())?;
            let base = on_a_thread(|| raw::run(&file, media.bytes, workload, seconds)).map_err(failed())?;
            drop(file);
            add(&mut table, workload, "raw loop", base, base, None);
            make_sidecar(media)?;
            for (name, crash) in
                [("off", CrashMode::Off), ("bitmap", CrashMode::Bitmap), ("log", CrashMode::Log)]
            {
                let spec = StoreSpec {
                    pi: PiSource::Sidecar(media.sidecar.clone()),
                    direct: Direct::Auto,
                    crash,
                    ..StoreSpec::new(&media.data)
                };
                let store = open(&spec, "dixback bench").map_err(|e| failed()(io::Error::other(e)))?;
                on_a_thread(|| run(&store, media.bytes, workload, WARM_UP)).map_err(failed())?;
                let before = batches(&*store);
                let rate = on_a_thread(|| run(&store, media.bytes, workload, seconds)).map_err(failed())?;
                let batches = batches(&*store) - before;
                store.close().map_err(failed())?;
                add(&mut table, workload, name, rate, base, (batches > 0).then_some(batches));
            }
        }
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    println!("ratio: requests/s against the raw loop; a batch: one write and one flush of the log");
    Ok(())
}

fn add(table: &mut Table, workload: Workload, name: &str, rate: Rate, base: Rate, batches: Option<u64>) {
    table.add_row([
        format!("{} {}K, depth {}", workload.name, workload.block >> 10, workload.depth),
        name.to_owned(),
        format!("{:.0}", rate.per_second()),
        format!("{:.2}", rate.per_second() / base.per_second()),
        format!("{:.0}", rate.cpu_ns()),
        batches.map_or("-".to_owned(), |batches| format!("{:.1}", rate.requests as f64 / batches as f64)),
    ]);
}

fn batches(store: &dyn Store) -> u64 {
    store.statistics().into_iter().find(|(name, _)| *name == "log_batches").map_or(0, |(_, count)| count)
}

/// A ring belongs to its thread.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the loop failed")))
    })
}

fn make_sidecar(media: &Media) -> Result<(), HostError> {
    let profile = Profile::new(ProfileSpec {
        guard: Guard::Crc16T10Dif,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: PiType::Type1,
    });
    let profile = profile.map_err(|error| system("the profile")(io::Error::other(error)))?;
    let sidecar = Some(media.sidecar.clone());
    let options = ProtectOptions {
        disk: media.data.clone(),
        sidecar,
        profile,
        force: true,
        non_atomic: true,
        log: None,
        app_tag: 0,
    };
    protect(&options, &mut ())
        .map_err(|e| system(media.sidecar.display().to_string())(io::Error::other(e)))?;
    Ok(())
}

/// Keeps a store busy as [`raw::run`] does a file.
fn run(store: &Arc<dyn Store>, bytes: u64, workload: Workload, limit: Duration) -> io::Result<Rate> {
    let profile = store.capabilities().profile.ok_or_else(|| io::Error::other("no PI"))?;
    let mut ring = Ring::new(256).map_err(io::Error::other)?;
    let mut pool = Pool::new(workload.depth * workload.block, profile.metadata_len(crate::io::PAGE))?;
    ring.enable()?;
    ring.register(&pool);
    let bell = Doorbell::new()?;
    let mut queue = Arc::clone(store).queue(bell.clone())?;
    let fd = bell.as_fd().as_raw_fd();
    ring.poll(fd, Owner::Queue.user_data(0));
    let (mut places, mut done) = (workload.places(bytes), Vec::new());
    let mut next = |id: u32,
                    buffer: Lease,
                    ring: &mut Ring,
                    done: &mut Vec<_>,
                    queue: &mut Box<dyn crate::store::StoreQueue>| {
        let io = Io {
            id,
            op: Op::Write { fua: false },
            offset: places.next(),
            bytes: workload.block as u64,
            buffer: Some(buffer),
        };
        queue.submit(io, ring, done);
    };
    let (begin, cpu) = (Instant::now(), super::cpu::of_this_process()?);
    for id in 0..workload.depth as u32 {
        let metadata = profile.metadata_len(workload.block);
        let mut lease =
            pool.take(workload.block, metadata).ok_or_else(|| io::Error::other("the pool is too small"))?;
        // The store does not look at it; what reads it again would find other places in it.
        lease.parts_mut().1.fill(id as u8);
        next(id, lease, &mut ring, &mut done, &mut queue);
    }
    let (mut requests, mut left, mut over, mut failed) = (0, workload.depth, false, None);
    while left > 0 {
        over |= begin.elapsed() >= limit;
        for completion in std::mem::take(&mut done) {
            requests += 1;
            if let Err(error) = completion.result {
                over = true;
                failed = Some(io::Error::from_raw_os_error(error.errno().0));
            }
            let Some(lease) = completion.buffer else { continue };
            if over {
                pool.give_back(lease);
                left -= 1;
            } else {
                next(completion.id, lease, &mut ring, &mut done, &mut queue);
            }
        }
        if !done.is_empty() || left == 0 {
            continue;
        }
        ring.submit(Some(Duration::from_secs(1)))?;
        while let Some((user_data, result)) = ring.reap() {
            match Owner::of(user_data) {
                (Owner::Store, value) => queue.complete(value, result, &mut ring, &mut done),
                (Owner::Queue, _) => {
                    bell.quiet();
                    queue.resume(&mut ring, &mut done);
                    ring.poll(fd, Owner::Queue.user_data(0));
                }
            }
        }
    }
    let rate = Rate { requests, elapsed: begin.elapsed(), cpu: super::cpu::of_this_process()? - cpu };
    failed.map_or(Ok(rate), Err)
}
