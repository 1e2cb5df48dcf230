//! Plays a script on a store, records it, and knows what may be read after a cut at any point of it.

use super::driver::Driver;
use super::media::{Media, SECTOR};
use crate::image::{ProtectOptions, protect};
use crate::io::tap::{Deed, Event, Fault, Tape};
use crate::store::lock::Access;
use crate::store::medium::Direct;
use crate::store::sidecar::{Header, Pair, Recovered, Safety, SidecarStore, default_path, write_header};
use crate::store::{CrashMode, Op, Store, StoreSpec};
use integrity::{Expected, Profile};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a script asks for. Intervals are counted from 0.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write {
        first: u64,
        data: Vec<u8>,
        metadata: Vec<u8>,
        fua: bool,
    },
    Discard {
        first: u64,
        count: u64,
    },
    Flush,
    /// Until everything asked for so far has ended.
    Wait,
    /// A checkpoint, to its end.
    Checkpoint,
    /// The disk grows by so many intervals.
    Grow(u64),
}

/// A disk for a script.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub profile: Profile,
    pub intervals: u64,
    pub log: u64,
    pub crash: CrashMode,
    pub non_atomic: bool,
}

/// A request that was played.
struct Played {
    step: Step,
    queue: usize,
    submitted: usize,
    acknowledged: Option<usize>,
    /// When it was said to have failed.
    failed: Option<usize>,
}

/// A recording with all there is to know about it.
pub(super) struct Story {
    pub shape: Shape,
    pub base: Media,
    pub events: Vec<Event>,
    /// How often a request found no room in the log.
    pub waits: u64,
    /// Whether what a failed write left of its intervals' data is anything.
    torn: bool,
    /// Whether the log works throughout, so that a discard's record is on the medium only if its announcement went well.
    logged: bool,
    played: Vec<Played>,
}

/// What is noted when a step of that number is asked for, has been done, and has failed.
pub(super) fn asked(number: usize) -> usize {
    3 * number
}

pub(super) fn done(number: usize) -> usize {
    3 * number + 1
}

pub(super) fn failed(number: usize) -> usize {
    3 * number + 2
}

/// A folder where flushes cost nothing, for what is flushed there is never lost.
pub(super) fn folder() -> TempDir {
    let builder = tempfile::Builder::new();
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// Makes a disk, all of whose intervals have data and PI, with a log area of the shape's length.
fn make(shape: &Shape, path: &Path) {
    let interval = shape.profile.interval();
    let data: Vec<u8> = (0..shape.intervals).flat_map(|i| vec![(i % 255) as u8 + 1; interval]).collect();
    std::fs::write(path, data).unwrap();
    let options = ProtectOptions {
        disk: path.to_owned(),
        sidecar: None,
        profile: shape.profile,
        log: None,
        app_tag: 0,
        force: false,
        non_atomic: true,
    };
    protect(&options, &mut ()).unwrap();
    // The same with a small log: another place for the metadata is the header's to say.
    let pair = open(path);
    let old = &pair.pi.header;
    let new = Header {
        non_atomic: shape.non_atomic,
        log: (old.log.0, shape.log),
        metadata: (old.log.0 + shape.log, old.metadata.1),
        ..old.clone()
    };
    let sidecar = default_path(path);
    let bytes = std::fs::read(&sidecar).unwrap();
    let metadata = bytes[old.metadata.0 as usize..].to_vec();
    for sequence in 0..2 {
        write_header(&pair.pi.medium, &Header { sequence, ..new.clone() }).unwrap();
    }
    let file = File::options().write(true).open(&sidecar).unwrap();
    file.write_all_at(&metadata, new.metadata.0).unwrap();
    file.set_len(new.sidecar_bytes()).unwrap();
}

pub(super) fn open(path: &Path) -> Pair {
    Pair::open(path, &default_path(path), Access::Exclusive, Direct::Off, Direct::Off, true).unwrap()
}

fn read_all(path: &Path) -> Media {
    Media(vec![std::fs::read(path).unwrap(), std::fs::read(default_path(path)).unwrap()])
}

/// Plays each script on a queue of its own, all at once.
pub(super) fn play(shape: Shape, scripts: &[Vec<Step>]) -> Story {
    play_with(shape, scripts, None)
}

/// The same on a medium with a fault.
pub(super) fn play_with(shape: Shape, scripts: &[Vec<Step>], fault: Option<Fault>) -> Story {
    let folder = folder();
    let path = folder.path().join("disk");
    make(&shape, &path);
    let spec = StoreSpec { crash: shape.crash, direct: Direct::Off, ..StoreSpec::new(&path) };
    let mut base = read_all(&path);
    let files = [File::open(&path).unwrap(), File::open(default_path(&path)).unwrap()];
    let tape = Tape::start(&[&files[0], &files[1]]);
    let store = Arc::new(SidecarStore::open(&spec, &default_path(&path), "a test").unwrap());
    if let Some(fault) = fault {
        tape.fail(fault);
    }
    let steps: Vec<Vec<(usize, &Step)>> = scripts
        .iter()
        .scan(0, |next, script| {
            let first = *next;
            *next += script.len();
            Some(script.iter().enumerate().map(|(at, step)| (first + at, step)).collect())
        })
        .collect();
    std::thread::scope(|scope| {
        for steps in &steps {
            let (store, tape) = (Arc::clone(&store), &tape);
            scope.spawn(move || run(&store, steps, tape, fault.is_some()));
        }
    });
    let waits = store.statistics().into_iter().find(|(name, _)| *name == "log_waits").map_or(0, |(_, n)| n);
    let closed = store.close();
    assert!(closed.is_ok() || fault.is_some(), "{closed:?}");
    let events = tape.stop();
    let after = read_all(&path);
    // What was added was zeroes, and whether it is there yet is the header's word.
    for (base, after) in base.0.iter_mut().zip(&after.0) {
        base.resize(after.len(), 0);
    }
    // The recording is whole: all of it gives what is there.
    let mut all = base.clone();
    for event in &events {
        if let Event::Written { file, offset, bytes, .. } = event {
            all.0[*file][*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    let of_failures = fault.is_some_and(|fault| fault.deed == Deed::Write);
    assert!(of_failures || all.0 == after.0, "something was written past the recording");
    let place = |note: usize| events.iter().position(|event| matches!(event, Event::Note(n) if *n == note));
    let played =
        scripts.iter().enumerate().flat_map(|(queue, script)| script.iter().map(move |step| (queue, step)));
    let played = played.enumerate().filter_map(|(number, (queue, step))| {
        let submitted = place(asked(number))?;
        let (acknowledged, failed) = (place(done(number)), place(failed(number)));
        Some(Played { step: step.clone(), queue, submitted, acknowledged, failed })
    });
    let played = played.collect();
    let torn = fault.is_some_and(|fault| fault.file == 0 && fault.deed == Deed::Write);
    let logged = shape.crash == CrashMode::Log && fault.is_none_or(|fault| fault.file == 0);
    Story { shape, base, events, waits, torn, logged, played }
}

fn run(store: &Arc<SidecarStore>, steps: &[(usize, &Step)], tape: &Tape, may_fail: bool) {
    let shared: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    let mut driver = Driver::new(&shared);
    let interval = store.shared.pi.layout.interval();
    let mut waiting: Vec<(u32, usize)> = Vec::new();
    let settle = |driver: &mut Driver, waiting: &mut Vec<(u32, usize)>| {
        for (id, number) in waiting.drain(..) {
            let completion = driver.wait(id);
            assert!(may_fail || completion.result.is_ok(), "{:?}", completion.result);
            if let Some(lease) = completion.buffer {
                driver.give_back(lease);
            }
            tape.note(if completion.result.is_ok() { done(number) } else { failed(number) });
        }
    };
    for (number, step) in steps {
        let start = |driver: &mut Driver, op, first: u64, count: u64, buffer| {
            tape.note(asked(*number));
            (driver.start(op, first * interval, count * interval, buffer), *number)
        };
        match step {
            Step::Write { first, data, metadata, fua } => {
                let mut lease = driver.buffer(data.len());
                lease.parts_mut().0.copy_from_slice(data);
                lease.parts_mut().1.copy_from_slice(metadata);
                let count = data.len() as u64 / interval;
                waiting.push(start(&mut driver, Op::Write { fua: *fua }, *first, count, Some(lease)));
            }
            Step::Discard { first, count } => {
                waiting.push(start(&mut driver, Op::Discard, *first, *count, None));
            }
            Step::Flush => waiting.push(start(&mut driver, Op::Flush, 0, 0, None)),
            Step::Wait => settle(&mut driver, &mut waiting),
            Step::Grow(intervals) => {
                settle(&mut driver, &mut waiting);
                let bytes = store.geometry().bytes + intervals * interval;
                let data = File::options().write(true).open(&store.shared.data.path).unwrap();
                data.set_len(bytes).unwrap();
                tape.note(asked(*number));
                match store.grow() {
                    Ok(now) => {
                        assert_eq!(now, bytes);
                        tape.note(done(*number));
                    }
                    Err(error) => assert!(may_fail, "{error}"),
                }
            }
            Step::Checkpoint => {
                settle(&mut driver, &mut waiting);
                let live = || match &store.shared.safety {
                    Safety::Log(wal) => wal.used() > 0,
                    _ => store.shared.cache.dirty() > 0,
                };
                let begin = Instant::now();
                while live() && !(may_fail && begin.elapsed() > Duration::from_millis(20)) {
                    store.shared.maintenance.kick(true);
                    std::thread::yield_now();
                }
            }
        }
        driver.turn(false);
    }
    settle(&mut driver, &mut waiting);
}

impl Story {
    /// Whether a discard like that was said to have failed.
    pub(super) fn has_failed(&self, step: &Step) -> bool {
        let Step::Discard { first, count } = step else { return false };
        self.played.iter().any(|played| {
            matches!(&played.step, Step::Discard { first: f, count: c } if (f, c) == (first, count))
                && played.failed.is_some()
        })
    }

    fn covers(&self, played: &Played, interval: u64) -> Option<usize> {
        let (first, count) = match &played.step {
            Step::Write { first, data, .. } => (*first, (data.len() / self.shape.profile.interval()) as u64),
            Step::Discard { first, count } => (*first, *count),
            _ => return None,
        };
        (first..first + count).contains(&interval).then(|| (interval - first) as usize)
    }

    /// Whether a request was durable for certain when the power was cut.
    fn secured(&self, one: &Played, cut: usize) -> bool {
        let Some(acknowledged) = one.acknowledged.filter(|at| *at < cut) else { return false };
        matches!(one.step, Step::Write { fua: true, .. })
            || self.played.iter().any(|flush| {
                matches!(flush.step, Step::Flush)
                    && acknowledged < flush.submitted
                    && flush.acknowledged.is_some_and(|at| at < cut)
            })
    }

    /// Says what is wrong with a disk that was made good after a cut, if anything is.
    pub(super) fn check(&self, path: &Path, cut: usize) -> Result<Option<Recovered>, String> {
        let mut pair = open(path);
        let recovered = pair.recover(&mut |_, _| ()).map_err(|error| error.to_string())?;
        let intervals = pair.pi.layout.intervals();
        let excused = |interval: &u64| {
            let failed =
                |played: &Played| played.acknowledged.is_none() && self.covers(played, *interval).is_some();
            self.torn && self.played.iter().any(failed)
        };
        if let Some(done) = &recovered
            && (done.lost.count > 0 || !done.bad.first.iter().all(excused))
        {
            return Err(format!("after a cut before event {cut}: {done}"));
        }
        if self.played.iter().any(|p| p.submitted < cut && self.covers(p, intervals).is_some()) {
            return Err(format!("after a cut before event {cut}: what the disk had grown by is gone"));
        }
        let (profile, strict) = (self.shape.profile, self.shape.crash == CrashMode::Log);
        let (size, entry) = (profile.interval(), profile.metadata_size());
        let data = std::fs::read(path).unwrap();
        let mut metadata = vec![0; intervals as usize * entry];
        pair.pi.read_metadata(0, &mut metadata).unwrap();
        let mut base = vec![0; metadata.len()];
        let start = pair.pi.header.metadata.0 as usize;
        for piece in pair.pi.layout.pieces(0, intervals) {
            let at = start + piece.block as usize * 4096;
            let from = &self.base.0[1][at + piece.in_block.start..at + piece.in_block.end];
            base[piece.in_run].copy_from_slice(from);
        }
        base.iter_mut().for_each(|byte| *byte = !*byte);
        for interval in 0..intervals {
            let at = interval as usize;
            let (data, metadata) = (&data[at * size..][..size], &metadata[at * entry..][..entry]);
            let base = (&self.base.0[0][at * size..][..size], &base[at * entry..][..entry]);
            let fail =
                |what: &str| Err(format!("after a cut before event {cut}: interval {interval} {what}"));
            let all: Vec<(&Played, usize)> = self
                .played
                .iter()
                .filter(|played| played.submitted < cut)
                .filter_map(|played| self.covers(played, interval).map(|index| (played, index)))
                .collect();
            let part = |bytes: &[u8], index: usize, size: usize| bytes[index * size..][..size].to_vec();
            let written = |version: &Played, index| match &version.step {
                Step::Write { data, metadata, .. } => {
                    Some((part(data, index, size), part(metadata, index, entry)))
                }
                _ => None,
            };
            // A discard that was said to have failed may have taken the data, but the PI of data that is there stays.
            let escaped = metadata.iter().all(|byte| *byte == 0xFF);
            let there = base.0 == data
                || all.iter().any(|(v, index)| written(v, *index).is_some_and(|(d, _)| d == data));
            let failed = |version: &Played| version.failed.is_some_and(|at| at < cut);
            let may_escape = |(v, index): &(&Played, usize)| match written(v, *index) {
                Some((_, m)) => m == metadata,
                None => !(self.logged && there && failed(v)),
            };
            if self.logged && escaped && base.1 != metadata && !all.iter().any(may_escape) {
                return fail("has lost its PI to a discard that had failed");
            }
            if excused(&interval) {
                continue;
            }
            if profile.verify(data, metadata, &Expected::new(interval)).is_err() {
                return fail("does not match its PI");
            }
            let old = |version: &Played| {
                all.iter().any(|(newer, _)| {
                    let after = version.acknowledged.is_some_and(|at| at < newer.submitted)
                        || (version.queue == newer.queue && version.submitted < newer.submitted);
                    after && self.secured(newer, cut)
                })
            };
            // A discard's data may be whatever was there, or nothing, sector by sector: nobody cares.
            let some_data = |data: &[u8]| {
                data.chunks(SECTOR).enumerate().all(|(at, sector)| {
                    let same = |other: &[u8]| other[at * SECTOR..][..SECTOR] == *sector;
                    same(base.0)
                        || sector.iter().all(|byte| *byte == 0)
                        || all.iter().any(|(v, index)| written(v, *index).is_some_and(|(d, _)| same(&d)))
                })
            };
            let is = |version: &Played, index| match written(version, index) {
                Some((d, m)) => d == data && (m == metadata || !strict),
                None => some_data(data) && (escaped && may_escape(&(version, index)) || !strict),
            };
            let as_base = base.0 == data && (base.1 == metadata || !strict);
            let base_is_old = all.iter().any(|(newer, _)| self.secured(newer, cut));
            if !(as_base && !base_is_old || all.iter().any(|(v, index)| is(v, *index) && !old(v))) {
                return fail("is neither as before nor as written, or has lost what was flushed");
            }
        }
        Ok(recovered)
    }
}

/// Where states are put to be opened.
pub(super) struct Bench {
    _folder: TempDir,
    pub path: PathBuf,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("disk");
        Self { _folder: folder, path }
    }

    pub(super) fn put(&self, media: &Media) {
        for (path, bytes) in [&self.path, &default_path(&self.path)].into_iter().zip(&media.0) {
            // In place: the file is what a recording knows it by.
            let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        }
    }
}
