//! The proof on a medium with faults: whatever fails, what is acknowledged is kept, and what failed is old or new.

use super::media::nothing;
use super::play::{Shape, Step, Story, play_with};
use super::{enumerate, seed, shape, torn, write};
use crate::io::tap::{Deed, Event, FAULT, Fault};
use crate::store::CrashMode;
use integrity::Guard;

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
    let whole = play_with(shape, &[steps.clone()], None);
    let (mut states, mut wrong) = (0, Vec::new());
    let all = [Deed::Write, Deed::Nothing, Deed::Sync];
    for (file, deed) in all.into_iter().flat_map(|deed| [(0, deed), (1, deed)]) {
        let which = (seed() as usize % step..deeds(&whole, file, deed)).step_by(step);
        for (after, times) in which.flat_map(|n| [(n, 1), (n, usize::MAX)]) {
            let fault = Fault { file, deed, after, times };
            let story = play_with(shape, &[steps.clone()], Some(fault));
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
    holds(Shape { intervals: 24, ..torn() }, 16);
}

#[test]
fn cut_when_a_write_or_flush_failed_and_a_bitmap_is_kept_keeps_what_was_acknowledged() {
    holds(Shape { crash: CrashMode::Bitmap, ..shape(Guard::Crc16T10Dif) }, 4);
}
