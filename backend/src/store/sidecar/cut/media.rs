//! What two files can be after a power cut, by a recording of what was written to them and flushed.
//!
//! A write that had completed before a flush began that has ended is there, unless a flush failed between the two. Of any other that had begun, each sector of
//! 512 bytes is there or not, by itself; where several unflushed writes hit a sector, any one of them, or none, may have
//! been the last that reached the medium.

use crate::io::tap::Event;
use std::collections::HashMap;

pub(super) const SECTOR: usize = 512;
/// All states of a cut are tried if there are no more.
const ALL: usize = 64;
/// Otherwise so many chosen by chance, beside the systematic ones.
const CHANCE: usize = 12;

/// What the files hold.
#[derive(Clone)]
pub(super) struct Media(pub Vec<Vec<u8>>);

/// A sector that may hold one of several things: what is certain, then what is newer, in order.
pub(super) struct Doubt {
    file: usize,
    at: usize,
    values: Vec<Vec<u8>>,
}

impl Doubt {
    /// The choice of what was written last.
    pub(super) fn newest(&self) -> usize {
        self.values.len() - 1
    }
}

/// A part of a recording that is taken for never having happened: what a program that does without it could leave.
pub(super) type Without<'a> = &'a dyn Fn(&Event) -> bool;

/// Everything happened.
pub(super) fn nothing(_: &Event) -> bool {
    false
}

impl Media {
    /// What is certain, and what is not, when the power is cut before the event number `cut`.
    pub(super) fn cut(&self, events: &[Event], cut: usize, without: Without<'_>) -> (Media, Vec<Doubt>) {
        let events = &events[..cut];
        let mut done = HashMap::new();
        // By file: where each flush that has ended began, and whether it went well.
        let mut flushed = vec![Vec::new(); self.0.len()];
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Done { id } => _ = done.entry(*id).or_insert(at),
                Event::Synced { id } | Event::Failed { id } if !without(&events[*id]) => {
                    let Event::Syncing { file, .. } = &events[*id] else { unreachable!() };
                    flushed[*file].push((*id, matches!(event, Event::Synced { .. })));
                }
                _ => {}
            }
        }
        let mut certain = self.clone();
        let mut doubts: HashMap<(usize, usize), Vec<Vec<u8>>> = HashMap::new();
        for event in events.iter().filter(|event| !without(event)) {
            let Event::Written { id, file, offset, bytes } = event else { continue };
            // Flushes of a file come one after the other, so these are in order.
            let durable = done.get(id).is_some_and(|at| {
                flushed[*file].iter().find(|(began, _)| at < began).is_some_and(|(_, well)| *well)
            });
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let at = *offset as usize + index * SECTOR;
                if durable {
                    certain.0[*file][at..at + sector.len()].copy_from_slice(sector);
                    // What came before it and was not flushed by itself is overwritten.
                    doubts.remove(&(*file, at));
                } else {
                    doubts.entry((*file, at)).or_default().push(sector.to_vec());
                }
            }
        }
        let doubts = doubts.into_iter().filter_map(|((file, at), newer)| {
            let mut values = vec![certain.0[file][at..at + newer[0].len()].to_vec()];
            for value in newer {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            (values.len() > 1).then_some(Doubt { file, at, values })
        });
        let mut doubts: Vec<Doubt> = doubts.collect();
        doubts.sort_by_key(|doubt| (doubt.file, doubt.at));
        (certain, doubts)
    }

    /// The files with each doubtful sector as chosen.
    pub(super) fn choose(&self, doubts: &[Doubt], choice: &[usize]) -> Media {
        let mut media = self.clone();
        for (doubt, choice) in doubts.iter().zip(choice) {
            let value = &doubt.values[*choice];
            media.0[doubt.file][doubt.at..doubt.at + value.len()].copy_from_slice(value);
        }
        media
    }
}

/// The choices to be tried for these doubts, and whether they are all there are.
pub(super) fn choices(doubts: &[Doubt], random: &mut impl FnMut(usize) -> usize) -> (Vec<Vec<usize>>, bool) {
    let newest: Vec<usize> = doubts.iter().map(Doubt::newest).collect();
    let product = doubts.iter().try_fold(1usize, |all, doubt| all.checked_mul(doubt.values.len()));
    if product.is_some_and(|product| product <= ALL) {
        let mut all = vec![vec![]];
        for doubt in doubts {
            all = all
                .into_iter()
                .flat_map(|choice: Vec<usize>| {
                    (0..doubt.values.len()).map(move |value| choice.iter().copied().chain([value]).collect())
                })
                .collect();
        }
        return (all, true);
    }
    let oldest = vec![0; doubts.len()];
    let mut some = vec![oldest.clone(), newest.clone()];
    // One file as if it had been flushed, the other as if it had not.
    for file in 0..2 {
        let mixed = doubts.iter().zip(&newest).map(|(doubt, new)| if doubt.file == file { *new } else { 0 });
        some.push(mixed.collect());
    }
    // One sector ahead of all others, and one behind; a spread of them where there are many.
    for index in (0..doubts.len()).step_by(doubts.len().div_ceil(24)) {
        for (base, value) in [(&oldest, newest[index]), (&newest, 0)] {
            let mut choice = base.clone();
            choice[index] = value;
            some.push(choice);
        }
    }
    for _ in 0..CHANCE {
        some.push(doubts.iter().map(|doubt| random(doubt.values.len())).collect());
    }
    (some, false)
}
