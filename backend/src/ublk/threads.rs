//! A device's queue threads: made where errors can still be told, started together, ended together.

use crate::control::Plan;
use crate::io::{Doorbell, PAGE, Pool, Ring};
use crate::limit::Limit;
use crate::queue::{Counters, Disk, Rules, Settings, Spin, Stats};
use crate::ublk::disk::LARGEST;
use crate::ublk::queue::{Engine, Failure, Link, Slot, Work};
use ::ublk::Device;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Submission entries of a queue's io_uring at least; more are handed in as they come.
const SUBMISSIONS: u32 = 256;

/// What the main thread is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A queue has offered all its tags.
    Offered,
    /// A queue has ended: as it was told to, or because the device goes.
    Ended,
    /// A queue has failed; requests may be under way for good.
    Failed(String),
    /// A signal that asks to stop.
    Signal,
}

/// The threads of a device's queues.
pub(super) struct Threads {
    queues: Vec<(Arc<Link>, JoinHandle<()>)>,
}

impl Threads {
    /// Starts one for each queue of the device.
    ///
    /// # Errors
    /// A resource that this process cannot have; what was started ends.
    pub fn start(
        device: &Arc<Device>,
        disk: &Arc<Disk>,
        plan: &Plan,
        events: &Sender<Event>,
    ) -> Result<Self, String> {
        let mut threads = Self { queues: Vec::new() };
        for index in 0..device.info().queues {
            match start_one(device, index, disk, plan, events.clone()) {
                Ok(queue) => threads.queues.push(queue),
                Err(reason) => {
                    threads.stop();
                    threads.join();
                    return Err(format!("queue {index}: {reason}"));
                }
            }
        }
        Ok(threads)
    }

    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Tells each to end what it has begun, and to begin nothing more.
    pub fn stop(&self) {
        for (link, _) in &self.queues {
            link.stop.store(true, Ordering::Relaxed);
            link.bell.ring();
        }
    }

    /// Waits for all of them. What they have counted, all together.
    pub fn join(self) -> Stats {
        let mut total = Stats::default();
        for (link, thread) in self.queues {
            // A panic was told as an event.
            let _ = thread.join();
            total += link.counters.read();
        }
        total
    }
}

fn start_one(
    device: &Arc<Device>,
    index: u16,
    disk: &Arc<Disk>,
    plan: &Plan,
    events: Sender<Event>,
) -> Result<(Arc<Link>, JoinHandle<()>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let bell = Doorbell::new().map_err(|error| text(&error))?;
    let link = Arc::new(Link { stop: AtomicBool::new(false), bell, counters: Counters::default() });
    let entries = u32::from(device.info().depth).next_power_of_two().max(SUBMISSIONS);
    let uring = if disk.store.wide_ring() { Ring::wide(entries) } else { Ring::new(entries) };
    let rules = Rules::of(disk);
    let per_page = rules.as_ref().map_or(0, |rules| rules.profile().metadata_len(PAGE));
    let pool = usize::try_from(plan.pool.max(LARGEST.into())).unwrap_or(usize::MAX);
    let engine = Engine {
        uring: uring.map_err(|error| text(&error))?,
        store: Arc::clone(&disk.store).queue(link.bell.clone()).map_err(|error| text(&error))?,
        pool: Pool::new(pool, per_page).map_err(|error| text(&error))?,
        queue: device.queue(index).map_err(|error| text(&error))?,
        disk: Arc::clone(disk),
        rules,
        link: Arc::clone(&link),
        slots: (0..device.info().depth).map(|_| Slot::default()).collect(),
        spin: Spin::new(Settings::default().spin),
        work: Work::default(),
        refusal_log: Limit::of(&disk.name, "refusal", "dixback::ublk"),
        medium_log: Limit::of(&disk.name, "medium", "dixback::ublk"),
    };
    let thread = std::thread::Builder::new()
        .name(format!("ublk{}-{index}", device.info().id))
        .spawn(move || body(engine, &events))
        .map_err(|error| text(&error))?;
    Ok((link, thread))
}

fn body(mut engine: Engine, events: &Sender<Event>) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        engine.uring.enable().map_err(Failure::Kernel)?;
        engine.uring.register(&engine.pool);
        engine.fetch()?;
        let _ = events.send(Event::Offered);
        engine.run()
    }));
    let reason = match result {
        Ok(Ok(())) => {
            drop(engine);
            let _ = events.send(Event::Ended);
            return;
        }
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => "an internal error; the log has it".to_owned(),
    };
    // The kernel may still work on its buffers. The process ends soon, and with it they do.
    std::mem::forget(engine);
    let _ = events.send(Event::Failed(reason));
}
