//! Per-queue counters: the queue's thread writes them, anybody reads them.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A queue's counters, shared between its thread and whoever reads them.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// A copy of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// The values now. Each is exact; together they are of about the same moment.
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }

        impl Stats {
            /// Name and value of each, in the order of declaration.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl std::ops::Sub for Stats {
            type Output = Self;
            /// What was counted since `earlier`; nothing where that was another connection's.
            fn sub(self, earlier: Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)* }
        }
    };
}

counters! {
    /// Read requests answered with success.
    reads,
    /// Bytes of data read.
    read_bytes,
    /// Write requests answered with success, those with a barrier or a flush included.
    writes,
    /// Bytes of data written.
    written_bytes,
    /// Flush requests, and barriers without data, answered with success.
    flushes,
    /// Barriers answered with success, with data or without.
    barriers,
    /// Discard requests answered with success.
    discards,
    /// Bytes of whole blocks discarded.
    discarded_bytes,
    /// Requests whose segments were on pages of their own.
    indirect_requests,
    /// Requests that came with the guest's own PI.
    dix_requests,
    /// Requests whose PI the daemon made (writes) or checked alone (reads).
    daemon_requests,
    /// Requests answered with an error, whatever the reason.
    errors,
    /// Requests refused before any I/O: malformed, out of range, forbidden.
    refused,
    /// Requests from the guest whose guard did not match.
    guest_guard_mismatches,
    /// Requests from the guest whose application tag did not match.
    guest_application_mismatches,
    /// Requests from the guest whose reference tag did not match.
    guest_reference_mismatches,
    /// Reads whose guard from the medium did not match; and writes, where the device that refused them says so.
    medium_guard_mismatches,
    /// The same of application tags.
    medium_application_mismatches,
    /// The same of reference tags.
    medium_reference_mismatches,
    /// Requests that the medium failed otherwise.
    medium_errors,
    /// Intervals read or written with an escape: not protected.
    escaped_intervals,
    /// Grant operations the hypervisor refused.
    grant_errors,
    /// Turns of the queue's loop, those in vain included.
    turns,
    /// Batches consumed from the ring.
    batches,
    /// Grant copy calls: a system call each.
    copy_calls,
    /// Segments copied.
    copies,
    /// Kernel entries of the io_uring: a system call each.
    submits,
    /// Notifications sent to the guest: a system call each.
    notifications,
    /// Events of the guest's taken: a system call each.
    events,
    /// Times the event channel was unmasked before a sleep: a system call each.
    unmasks,
    /// Wake-ups from sleep.
    wakeups,
    /// Wake-ups that spinning saved.
    spins_won,
    /// Nanoseconds spun, in vain or not.
    spin_ns,
    /// Requests for which the ring was left alone, because the pool was exhausted.
    pool_waits,
}

impl Stats {
    /// Requests answered with success.
    pub fn served(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards
    }

    /// Requests from the guest whose PI did not match.
    pub fn guest_mismatches(&self) -> u64 {
        self.guest_guard_mismatches + self.guest_application_mismatches + self.guest_reference_mismatches
    }

    /// Reads whose PI from the medium did not match.
    pub fn medium_mismatches(&self) -> u64 {
        self.medium_guard_mismatches + self.medium_application_mismatches + self.medium_reference_mismatches
    }

    /// System calls that the queue's thread made for its requests.
    pub fn system_calls(&self) -> u64 {
        self.copy_calls + self.submits + self.notifications + self.events + self.unmasks
    }
}

/// A counter with one writer: its update is a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may.
    pub fn add(&self, n: u64) {
        // Relaxed: a statistic orders nothing. Load and store instead of fetch_add: there is one writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets it to what was counted elsewhere; only the owning thread may.
    pub fn set(&self, n: u64) {
        // Relaxed: as above.
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
