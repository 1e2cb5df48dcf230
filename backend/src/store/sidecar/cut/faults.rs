//! The proof on a medium with faults: whatever fails, what is acknowledged is kept, and what failed is old or new.

use super::driver::Driver;
use super::media::nothing;
use super::play::{Shape, Step, Story, folder, play_with};
use super::{enumerate, profile, seed, shape, torn, write};
use crate::image::{ProtectOptions, protect};
use crate::io::tap::{Deed, Event, FAULT, Fault, Tape};
use crate::store::sidecar::{BLOCK, SidecarStore, default_path};
use crate::store::{CrashMode, Errno, Store, StoreSpec};
use integrity::Guard;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Writes over and over, flushed and not, in the cache and at checkpoints.
fn steps(shape: &Shape) -> Vec<Step> {
    let pause = [Step::Wait, Step::Flush, Step::Wait];
    let mut steps = vec![write(shape, 3, 2, 1), write(shape, 20, 1, 1)];
    steps.extend(pause.clone());
    steps.extend([write(shape, 3, 2, 2), Step::Wait, write(shape, 20, 1, 2)]);
    steps.extend(pause.clone());
    steps.extend([write(shape, 4, 1, 3), Step::Checkpoint, Step::Discard { first: 19, count: 2 }]);
    steps.extend(pause.clone());
    steps.extend([write(shape, 20, 1, 4), write(shape, 3, 1, 4)]);
    steps.extend(pause);
    steps.push(Step::Checkpoint);
    steps.extend([write(shape, 3, 2, 5), Step::Wait]);
    steps
}

/// How many deeds of that kind a recording has.
fn deeds(story: &Story, file: usize, deed: Deed) -> usize {
    let is = |event: &&Event| match event {
        Event::Written { file: other, .. } => *other == file && deed != Deed::Sync,
        Event::Syncing { file: other, .. } => *other == file && deed == Deed::Sync,
        _ => false,
    };
    story.events.iter().filter(is).count()
}

/// Has the deeds fail one after the other, each `step`th of them, and fewer where all is slow.
fn holds(shape: Shape, step: usize) {
    let step = if cfg!(debug_assertions) { 5 * step } else { step };
    let steps = steps(&shape);
    let whole = play_with(shape, std::slice::from_ref(&steps), None);
    let (mut states, mut wrong) = (0, Vec::new());
    let all = [Deed::Write, Deed::Nothing, Deed::Sync];
    for (file, deed) in all.into_iter().flat_map(|deed| [(0, deed), (1, deed)]) {
        let which = (seed() as usize % step..deeds(&whole, file, deed)).step_by(step);
        for (after, times) in which.flat_map(|n| [(n, 1), (n, usize::MAX)]) {
            let fault = Fault { file, deed, after, times };
            let story = play_with(shape, std::slice::from_ref(&steps), Some(fault));
            // Until then it is as it is without.
            let failed = story.events.iter().position(|event| matches!(event, Event::Note(FAULT)));
            let Some(at) = failed else { continue };
            match enumerate(&story, story.events.len() - at, &nothing, false) {
                Ok(count) => states += count.states,
                Err(error) => wrong.push(format!("{fault:?}: {error}")),
            }
        }
    }
    eprintln!("faults, seed {}: {states} states", seed());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn cut_when_a_write_or_flush_failed_keeps_what_was_acknowledged() {
    holds(shape(Guard::Ip), 4);
}

#[test]
fn cut_when_a_write_or_flush_failed_and_records_have_the_data_keeps_what_was_acknowledged() {
    holds(Shape { intervals: 24, ..torn() }, 24);
}

#[test]
fn cut_when_a_write_or_flush_failed_and_a_bitmap_is_kept_keeps_what_was_acknowledged() {
    holds(Shape { crash: CrashMode::Bitmap, ..shape(Guard::Crc16T10Dif) }, 4);
}

#[test]
fn cut_when_a_discard_failed_and_that_was_said_keeps_the_pi_of_data_that_is_there() {
    for shape in [shape(Guard::Ip), Shape { intervals: 24, ..torn() }] {
        let steps = vec![
            write(&shape, 3, 2, 1),
            Step::Wait,
            Step::Flush,
            Step::Checkpoint,
            Step::Discard { first: 3, count: 4 },
            // Something older than what ends next, and something newer.
            write(&shape, 10, 1, 1),
            Step::Wait,
            write(&shape, 4, 1, 2),
            Step::Wait,
        ];
        for (deed, times) in [(Deed::Nothing, 1), (Deed::Write, 1), (Deed::Nothing, 3), (Deed::Write, 3)] {
            // The first write of the data goes well, the discard does not.
            let fault = Fault { file: 0, deed, after: 1, times };
            let story = play_with(shape, std::slice::from_ref(&steps), Some(fault));
            assert!(story.has_failed(&steps[4]), "the discard went well");
            if let Err(error) = enumerate(&story, usize::MAX, &nothing, false) {
                panic!("{fault:?}: {error}");
            }
        }
    }
}

/// A store and a tape of its files.
fn store(path: &Path, spec: StoreSpec) -> (Arc<dyn Store>, Arc<Tape>) {
    let store: Arc<dyn Store> = Arc::new(SidecarStore::open(&spec, &default_path(path), "a test").unwrap());
    let files = [File::open(path).unwrap(), File::open(default_path(path)).unwrap()];
    (store, Tape::start(&[&files[0], &files[1]]))
}

/// A sparse disk with a sidecar.
fn sparse(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
    let options = ProtectOptions {
        disk: path.to_owned(),
        sidecar: None,
        profile: profile(Guard::Crc16T10Dif, 512, 8),
        log: None,
        app_tag: 0,
        force: false,
        non_atomic: false,
    };
    protect(&options, &mut ()).unwrap();
}

const FAILED: Result<(), Errno> = Err(Errno(libc::EIO));

#[test]
fn flush_when_the_sidecars_flush_failed_as_the_disk_grew_fails_too() {
    let folder = folder();
    let path = folder.path().join("disk");
    sparse(&path, 1 << 20);
    let (store, tape) = store(&path, StoreSpec::new(&path));
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 0, false).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(8 << 20).unwrap();
    // The kernel tells of pages that it has lost once: some of the log's may be among them.
    tape.fail(Fault { file: 1, deed: Deed::Sync, after: 0, times: 1 });
    assert!(store.grow().is_err());
    let header =
        |event: &Event| matches!(event, Event::Written { file: 1, offset, .. } if *offset < 64 << 10);
    assert!(!tape.stop().iter().any(header), "a header speaks of a length that is not durable");
    assert_eq!(driver.write(0, &[2; 4096], 0, false), FAILED);
    assert_eq!(driver.flush(), FAILED);
}

#[test]
fn disk_when_the_datas_new_length_cannot_be_made_durable_does_not_grow() {
    let folder = folder();
    let path = folder.path().join("disk");
    sparse(&path, 1 << 20);
    let (store, tape) = store(&path, StoreSpec::new(&path));
    File::options().write(true).open(&path).unwrap().set_len(8 << 20).unwrap();
    // A header that speaks of more than the data has after a power cut would keep the disk from being opened.
    tape.fail(Fault { file: 0, deed: Deed::Sync, after: 0, times: 1 });
    assert!(store.grow().is_err());
    assert_eq!(store.geometry().bytes, 1 << 20);
    tape.stop();
}

#[test]
fn write_when_nothing_can_be_made_durable_any_more_ends_wherever_its_block_is() {
    let folder = folder();
    let path = folder.path().join("disk");
    sparse(&path, 512 << 20);
    let sets = 67;
    let (store, tape) = store(&path, StoreSpec { cache_bytes: sets * 16 * BLOCK, ..StoreSpec::new(&path) });
    tape.fail(Fault { file: 0, deed: Deed::Sync, after: 0, times: usize::MAX });
    let mut driver = Driver::new(&store);
    let mut write = |block: u64| driver.write(block * (256 << 10), &[1; 512], 0, false);
    // More than a batch of dirty blocks comes before those of a set that is full of them.
    let sets = sets as u64;
    let before = (0..14).flat_map(|row| (0..38).map(move |set| row * sets + set));
    for block in before.chain((14..28).map(|row| row * sets + 50)) {
        write(block).unwrap();
    }
    assert_eq!(write(28 * sets + 50), FAILED);
    tape.stop();
}

#[test]
fn discard_when_neither_it_nor_a_checkpoint_can_be_done_ends_all_the_same() {
    let folder = folder();
    let path = folder.path().join("disk");
    sparse(&path, 1 << 20);
    let (store, tape) = store(&path, StoreSpec::new(&path));
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 0, false).unwrap();
    tape.fail(Fault { file: 0, deed: Deed::Sync, after: 0, times: 1 });
    assert_eq!(driver.flush(), FAILED);
    // From now on the data cannot be flushed. Nor can it be punched.
    tape.fail(Fault { file: 0, deed: Deed::Nothing, after: 0, times: usize::MAX });
    assert!(driver.discard(0, 4096).is_err());
    tape.stop();
}

#[test]
fn metadata_when_the_datas_flush_fails_is_written_all_the_same_where_no_log_is_kept() {
    for crash in [CrashMode::Off, CrashMode::Bitmap] {
        let folder = folder();
        let path = folder.path().join("disk");
        sparse(&path, 1 << 20);
        let (store, tape) = store(&path, StoreSpec { crash, ..StoreSpec::new(&path) });
        tape.fail(Fault { file: 0, deed: Deed::Sync, after: 0, times: usize::MAX });
        let mut driver = Driver::new(&store);
        driver.write(0, &[1; 512], 0, false).unwrap();
        assert_eq!(driver.flush(), FAILED);
        // Who waits for fewer dirty blocks would wait for ever.
        let statistics = store.statistics();
        assert!(statistics.contains(&("metadata_dirty_blocks", 0)), "{statistics:?}");
        tape.stop();
    }
}
