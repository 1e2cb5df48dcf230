//! The proof by enumeration: whatever a power cut leaves of a script's writes is made good.
//!
//! ```text
//! script -> store -> recording -> for each cut: what the files can be -> each opened and made good -> each interval is
//!           (as is)                (all states, or many)                  as before or as written, flushed is written,
//!                                                                         and matches its PI
//! ```
//!
//! The store under test is the product's, with real threads and files; only what leaves it is looked at. That this can
//! fail is shown by recordings from which something is left out: what is left out, a store without it could have done.
//! `DIXBACK_TEST_SEED` changes what is left to chance.

#[path = "../../../../tests/store/driver.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod driver;
mod faults;
mod media;
mod play;

use crate::io::tap::{Event, Tape};
use crate::store::CrashMode;
use crate::store::sidecar::default_path;
use integrity::{Guard, PiType, Profile, ProfileSpec};
use media::{Without, choices, nothing};
use play::{Bench, Shape, Step, Story, play};
use std::collections::BTreeSet;
use std::fs::File;

const KIB: u64 = 1 << 10;

fn profile(guard: Guard, interval: u32, metadata_size: u16) -> Profile {
    let (pi_offset, tag_size, pi_type) = (0, 2, PiType::Type1);
    Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type }).unwrap()
}

fn shape(guard: Guard) -> Shape {
    Shape {
        profile: profile(guard, 512, 8),
        intervals: 32,
        log: 64 * KIB,
        crash: CrashMode::Log,
        non_atomic: false,
    }
}

fn seed() -> u64 {
    std::env::var("DIXBACK_TEST_SEED").map_or(1, |text| text.parse().unwrap())
}

fn chance(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |end| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % end
    }
}

/// Contents with the same guard, whatever the `version`: a multiple of the CRC's polynomial is added, or words change
/// places (which the IP checksum does not see).
fn alike(profile: &Profile, version: u8) -> Vec<u8> {
    let mut data = vec![0x5A; profile.interval()];
    match profile.guard() {
        // x^16 + x^15 + x^11 + x^9 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1
        Guard::Crc16T10Dif => {
            let at = usize::from(version) * 4;
            for (byte, add) in data[at..at + 3].iter_mut().zip([0x01, 0x8B, 0xB7]) {
                *byte ^= add;
            }
        }
        _ => data[usize::from(version) * 2..][..2].copy_from_slice(&[1, 2]),
    }
    data
}

/// A write of such contents, with the version as its application tag.
fn write(shape: &Shape, first: u64, count: u64, version: u8) -> Step {
    tagged(shape, first, count, version, u16::from(version))
}

fn tagged(shape: &Shape, first: u64, count: u64, version: u8, tag: u16) -> Step {
    let data: Vec<u8> = (0..count).flat_map(|_| alike(&shape.profile, version)).collect();
    let mut metadata = vec![tag as u8; shape.profile.metadata_len(data.len())];
    shape.profile.generate(&data, &mut metadata, first, tag);
    Step::Write { first, data, metadata, fua: false }
}

/// What an enumeration came to.
#[derive(Debug, Default)]
struct Count {
    cuts: usize,
    whole: usize,
    states: usize,
    replays: usize,
}

/// Tries every cut, or `most` of them spread over the end of a long recording; the first state that is wrong is the
/// result.
fn enumerate(story: &Story, most: usize, without: Without<'_>, nested: bool) -> Result<Count, String> {
    let (bench, mut random) = (Bench::new(), chance(seed()));
    let mut count = Count::default();
    let mut seen = BTreeSet::new();
    for cut in story.events.len().saturating_sub(most)..=story.events.len() {
        count.cuts += 1;
        let (certain, doubts) = story.base.cut(&story.events, cut, without);
        let (all, whole) = choices(&doubts, &mut random);
        count.whole += usize::from(whole);
        for choice in all {
            let state = certain.choose(&doubts, &choice);
            bench.put(&state);
            count.states += 1;
            let recovered = story.check(&bench.path, cut)?;
            // Of like recoveries one is cut short itself.
            let kind = recovered.map(|done| (done.records, done.intervals, done.updated));
            if nested && kind.is_some_and(|(_, _, updated)| updated > 0) && seen.insert(kind) {
                count.replays += replay_again(story, &state, &bench, cut, &mut random)?;
            }
        }
    }
    Ok(count)
}

/// Records the recovery of a state, and cuts that.
fn replay_again(
    story: &Story,
    state: &media::Media,
    bench: &Bench,
    cut: usize,
    random: &mut impl FnMut(usize) -> usize,
) -> Result<usize, String> {
    bench.put(state);
    let files = [File::open(&bench.path).unwrap(), File::open(default_path(&bench.path)).unwrap()];
    let tape = Tape::start(&[&files[0], &files[1]]);
    let first = story.check(&bench.path, cut);
    let events = tape.stop();
    first?;
    let mut states = 0;
    for again in 0..=events.len() {
        let (certain, doubts) = state.cut(&events, again, &nothing);
        for choice in choices(&doubts, random).0 {
            bench.put(&certain.choose(&doubts, &choice));
            states += 1;
            story.check(&bench.path, cut).map_err(|error| format!("{error}, in a replay cut at {again}"))?;
        }
    }
    Ok(states)
}

fn holds(name: &str, shape: Shape, scripts: &[Vec<Step>], most: usize) -> Story {
    let story = play(shape, scripts);
    let count = enumerate(&story, most, &nothing, true);
    let count = count.unwrap_or_else(|error| panic!("{name}, seed {}: {error}", seed()));
    eprintln!("{name}, seed {}: {} events, {count:?}", seed(), story.events.len());
    story
}

/// Three versions of two places, flushed after the first, the last two unflushed.
fn overwrites(shape: &Shape) -> Vec<Step> {
    vec![
        write(shape, 3, 2, 1),
        write(shape, 20, 1, 1),
        Step::Wait,
        Step::Flush,
        Step::Wait,
        write(shape, 3, 2, 2),
        Step::Wait,
        write(shape, 4, 1, 3),
        write(shape, 20, 1, 2),
        Step::Wait,
    ]
}

#[test]
fn cut_when_guards_collide_leaves_each_interval_old_or_new() {
    for guard in [Guard::Crc16T10Dif, Guard::Ip] {
        let shape = shape(guard);
        let steps = overwrites(&shape);
        // They do collide.
        let guards = steps.iter().filter_map(|step| match step {
            Step::Write { metadata, .. } => Some(shape.profile.tuple(&metadata[..8]).guard),
            _ => None,
        });
        assert_eq!(guards.collect::<BTreeSet<_>>().len(), 1);
        holds("colliding guards", shape, &[steps], usize::MAX);
    }
}

#[test]
fn cut_when_only_metadata_changes_or_is_an_escape_leaves_old_or_new() {
    let shape = shape(Guard::Crc16T10Dif);
    let mut escape = write(&shape, 5, 1, 4);
    if let Step::Write { metadata, .. } = &mut escape {
        metadata.fill(0xFF);
    }
    let steps = vec![
        tagged(&shape, 5, 1, 1, 1),
        Step::Wait,
        Step::Flush,
        Step::Wait,
        tagged(&shape, 5, 1, 1, 2),
        Step::Wait,
        tagged(&shape, 5, 1, 1, 3),
        Step::Wait,
        Step::Flush,
        Step::Wait,
        escape,
        Step::Wait,
        tagged(&shape, 5, 1, 4, 5),
        Step::Wait,
    ];
    holds("metadata only, escapes", shape, &[steps], usize::MAX);
}

#[test]
fn cut_when_writes_to_one_interval_are_not_flushed_leaves_any_one_of_them() {
    let shape = shape(Guard::Ip);
    let mut steps: Vec<Step> = (1..5).map(|version| write(&shape, 7, 1, version)).collect();
    steps.push(Step::Wait);
    steps.extend((5..8).flat_map(|version| [write(&shape, 7, 1, version), Step::Wait]));
    let Step::Write { first, data, metadata, .. } = write(&shape, 7, 1, 9) else { unreachable!() };
    steps.extend([Step::Write { first, data, metadata, fua: true }, Step::Wait, write(&shape, 7, 1, 10)]);
    holds("several unflushed, FUA", shape, &[steps], usize::MAX);
}

#[test]
fn cut_when_discards_are_between_leaves_old_or_new_or_nothing() {
    let shape = shape(Guard::Crc16T10Dif);
    let steps = vec![
        write(&shape, 2, 3, 1),
        Step::Wait,
        Step::Discard { first: 3, count: 4 },
        Step::Wait,
        Step::Flush,
        Step::Wait,
        write(&shape, 4, 1, 2),
        Step::Wait,
        Step::Discard { first: 0, count: 32 },
        Step::Wait,
        write(&shape, 4, 2, 3),
        Step::Wait,
        Step::Flush,
        Step::Wait,
    ];
    holds("discards", shape, &[steps], usize::MAX);
}

#[test]
fn cut_when_checkpoints_are_between_leaves_old_or_new() {
    for metadata_size in [8, 21] {
        let shape =
            Shape { profile: profile(Guard::Ip, 512, metadata_size), intervals: 200, ..shape(Guard::Ip) };
        let mut steps = overwrites(&shape);
        steps.extend([Step::Checkpoint, write(&shape, 3, 3, 4), write(&shape, 199, 1, 4), Step::Wait]);
        steps.extend([write(&shape, 20, 1, 5), Step::Checkpoint, write(&shape, 20, 1, 6), Step::Wait]);
        holds("checkpoints", shape, &[steps], usize::MAX);
    }
}

#[test]
fn cut_when_the_disk_grows_leaves_what_was_there_and_what_is_written_to_the_new_part() {
    // The last block of metadata is not full, and is grown into.
    let shape = Shape { intervals: 600, ..shape(Guard::Ip) };
    let mut steps = vec![write(&shape, 598, 2, 1), Step::Wait, Step::Flush, Step::Wait];
    steps.extend([write(&shape, 597, 2, 2), Step::Grow(500), write(&shape, 599, 3, 3), Step::Wait]);
    steps.extend([write(&shape, 1099, 1, 4), Step::Wait, Step::Flush, Step::Wait, Step::Checkpoint]);
    steps.extend([
        write(&shape, 600, 1, 5),
        Step::Grow(8),
        write(&shape, 1100, 2, 6),
        Step::Wait,
        Step::Flush,
    ]);
    holds("growth", shape, &[steps], usize::MAX);
}

/// A daemon that was killed, and the power cut while what it left is made good: what it had written was all there to be
/// read, and not all of it durable.
fn killed_then_cut(story: &Story) -> Result<usize, String> {
    let (bench, mut random) = (Bench::new(), chance(seed()));
    let mut states = 0;
    for kill in 0..=story.events.len() {
        let (certain, doubts) = story.base.cut(&story.events, kill, &nothing);
        let newest: Vec<usize> = doubts.iter().map(media::Doubt::newest).collect();
        bench.put(&certain.choose(&doubts, &newest));
        let files = [File::open(&bench.path).unwrap(), File::open(default_path(&bench.path)).unwrap()];
        let tape = Tape::start(&[&files[0], &files[1]]);
        let checked = story.check(&bench.path, kill);
        let replay = tape.stop();
        checked?;
        // The kernel went on with what it had. What the replay did follows.
        let mut events = story.events[..kill].to_vec();
        events.extend((0..kill).map(|id| Event::Done { id }));
        let start = events.len();
        events.extend(replay.into_iter().map(|event| event.behind(start)));
        for cut in start..=events.len() {
            let (certain, doubts) = story.base.cut(&events, cut, &nothing);
            for choice in choices(&doubts, &mut random).0 {
                bench.put(&certain.choose(&doubts, &choice));
                states += 1;
                story
                    .check(&bench.path, kill)
                    .map_err(|e| format!("{e}, made good until event {}", cut - start))?;
            }
        }
    }
    Ok(states)
}

#[test]
fn cut_when_the_daemon_was_killed_before_and_is_being_made_good_leaves_old_or_new() {
    let story = witness();
    let states = killed_then_cut(&story).unwrap_or_else(|error| panic!("seed {}: {error}", seed()));
    eprintln!("killed, then cut, seed {}: {} events, {states} states", seed(), story.events.len());
}

#[test]
fn cut_when_writes_go_on_during_checkpoints_leaves_old_or_new() {
    let shape = Shape { intervals: 8, ..shape(Guard::Ip) };
    let writes = (0..40).flat_map(|number| [write(&shape, number % 3, 1, number as u8 + 1), Step::Wait]);
    let checkpoints =
        (0..12).flat_map(|number| [write(&shape, 5 + number % 2, 1, number as u8 + 50), Step::Checkpoint]);
    holds("checkpoints among writes", shape, &[writes.collect(), checkpoints.collect()], usize::MAX);
}

/// So many writes here and there, in flight together, with flushes and discards between.
fn long(shape: &Shape, seed: u64, steps: usize) -> Vec<Step> {
    let mut random = chance(seed);
    let mut script = Vec::new();
    for number in 0..steps {
        let first = random(shape.intervals as usize) as u64;
        let count = (random(3) as u64 + 1).min(shape.intervals - first);
        script.push(match random(12) {
            0 => Step::Flush,
            1 => Step::Discard { first, count },
            2 | 3 => Step::Wait,
            _ => write(shape, first, count, number as u8 % 100),
        });
    }
    script.push(Step::Wait);
    script
}

#[test]
fn cut_when_queues_overlap_leaves_old_or_new() {
    let shape = Shape { intervals: 8, ..shape(Guard::Ip) };
    let scripts: Vec<_> = (0..2).map(|queue| long(&shape, seed() * 2 + queue, 14)).collect();
    holds("two queues", shape, &scripts, usize::MAX);
}

#[test]
fn cut_when_the_log_was_full_and_has_gone_round_leaves_old_or_new() {
    let shape = shape(Guard::Ip);
    let mut script = Vec::new();
    for round in 0..12 {
        script.extend(long(&shape, seed() + round, 30));
    }
    let story = holds("a log that goes round", shape, &[script], 60);
    let log = 64 * KIB..128 * KIB;
    let batches = story.events.iter().filter_map(|event| match event {
        Event::Written { file: 1, offset, bytes, .. } if log.contains(offset) => Some(bytes.len() as u64),
        _ => None,
    });
    assert!(batches.sum::<u64>() > 2 * 64 * KIB, "it did not go round");
}

/// Intervals that a power cut can tear: records carry the data.
fn torn() -> Shape {
    Shape {
        profile: profile(Guard::Crc64Nvme, 4096, 16),
        intervals: 8,
        log: 128 * KIB,
        non_atomic: true,
        ..shape(Guard::Ip)
    }
}

#[test]
fn cut_when_more_is_in_flight_than_the_log_has_room_for_leaves_old_or_new() {
    let shape = torn();
    // Larger than half a batch, so in several steps.
    let steps = (0..40)
        .map(|number| write(&shape, number % 2, if number % 5 == 0 { 6 } else { 2 }, number as u8 + 1));
    let story = holds("a full log", shape, &[steps.collect()], 40);
    assert!(story.waits > 0, "nobody waited for room");
}

#[test]
fn replay_when_the_medium_has_lost_what_was_flushed_names_it_and_reads_fail() {
    let story = witness();
    // After the guest's first flush, which `overwrites` puts behind three writes.
    let is_done = |event: &Event| matches!(event, Event::Note(note) if *note == play::done(3));
    let flushed = story.events.iter().position(is_done).unwrap() + 1;
    let (mut state, doubts) = story.base.cut(&story.events, flushed, &nothing);
    let newest: Vec<usize> = doubts.iter().map(|doubt| doubt.newest()).collect();
    state = state.choose(&doubts, &newest);
    // All of the data as it was before. A guard that agrees with it must not save it.
    state.0[0] = story.base.0[0].clone();
    state.0[0][3 * 512..4 * 512].copy_from_slice(&alike(&story.shape.profile, 9));
    let bench = Bench::new();
    bench.put(&state);
    let mut pair = play::open(&bench.path);
    let done = pair.recover(&mut |_, _| ()).unwrap().unwrap();
    assert_eq!(done.lost.first, [3, 4, 20], "{done}");
    let mut metadata = vec![0; 8 * 32];
    pair.pi.read_metadata(0, &mut metadata).unwrap();
    for interval in 0..32 {
        let data = &state.0[0][interval * 512..][..512];
        let expected = integrity::Expected::new(interval as u64);
        let good = story.shape.profile.verify(data, &metadata[interval * 8..][..8], &expected).is_ok();
        assert_eq!(good, ![3, 4, 20].contains(&interval), "interval {interval}");
    }
}

#[test]
fn cut_when_intervals_can_be_torn_leaves_them_whole() {
    let shape = torn();
    let steps = vec![
        write(&shape, 2, 2, 1),
        Step::Wait,
        Step::Flush,
        Step::Wait,
        write(&shape, 2, 1, 2),
        Step::Wait,
        Step::Discard { first: 3, count: 1 },
        write(&shape, 3, 1, 3),
        Step::Wait,
    ];
    holds("torn intervals", shape, &[steps], usize::MAX);
}

#[test]
fn cut_when_a_bitmap_is_kept_leaves_data_old_or_new_and_all_of_it_matching() {
    let shape = Shape { crash: CrashMode::Bitmap, ..shape(Guard::Crc16T10Dif) };
    let mut steps = overwrites(&shape);
    steps.extend([
        Step::Checkpoint,
        Step::Discard { first: 3, count: 3 },
        write(&shape, 20, 1, 4),
        Step::Wait,
    ]);
    holds("bitmap", shape, &[steps], usize::MAX);
}

/// A story in which everything that is flushed matters.
fn witness() -> Story {
    let shape = shape(Guard::Ip);
    let mut steps = overwrites(&shape);
    steps.extend([Step::Flush, Step::Checkpoint, write(&shape, 3, 3, 4), Step::Wait, Step::Checkpoint]);
    steps.extend([write(&shape, 3, 3, 5), Step::Wait]);
    play(shape, &[steps])
}

fn is_sync(event: &Event, which: usize, by: &str) -> bool {
    matches!(event, Event::Syncing { file, thread, .. } if *file == which && thread == by)
}

#[test]
fn enumeration_when_a_flush_or_a_write_is_left_out_finds_what_goes_wrong() {
    let story = witness();
    let count = enumerate(&story, usize::MAX, &nothing, false).unwrap();
    eprintln!("nothing left out: {count:?}");
    let left_out: [(&str, Without<'_>); 5] = [
        ("the log's flush before the data", &|event| is_sync(event, 1, "dixback-log")),
        ("the data's flush before blocks and flush marks", &|event| is_sync(event, 0, "dixback-pi")),
        ("the flush of blocks before the header that retires", &|event| is_sync(event, 1, "dixback-pi")),
        (
            "the log",
            &|event| matches!(event, Event::Written { file: 1, offset, .. } if (64 * KIB..128 * KIB).contains(offset)),
        ),
        (
            "blocks of metadata",
            &|event| matches!(event, Event::Written { file: 1, offset, .. } if *offset >= 128 * KIB),
        ),
    ];
    for (what, without) in left_out {
        let found = enumerate(&story, usize::MAX, without, false).map(|_| ());
        eprintln!("without {what}: {found:?}");
        let error = found.expect_err("a store without it is not found out");
        assert!(error.contains("LOST") || !what.starts_with("the data's"), "{error}");
    }
}
