//! What all disks together may use: queue threads and buffers.

use super::status::Share;
use crate::config::units;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The daemon's threads and buffers, shared out to connections.
#[derive(Debug)]
pub struct Caps {
    threads: u32,
    bytes: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    threads: u32,
    bytes: u64,
}

/// What a connection may use. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    caps: Arc<Caps>,
    threads: u32,
    bytes: u64,
}

/// Why a connection is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// No threads left.
    #[error("{wanted} queues would make {total} queue threads, the daemon is allowed {allowed} (threads)")]
    Threads {
        /// Queues asked for.
        wanted: u32,
        /// Threads there would be.
        total: u64,
        /// Threads there may be.
        allowed: u32,
    },
    /// No buffers left.
    #[error(
        "{wanted} queues would bring all buffers to {}, the daemon is allowed {} (pool-total)",
        units::size_text(*total),
        units::size_text(*allowed)
    )]
    Buffers {
        /// Queues asked for.
        wanted: u32,
        /// Bytes there would be.
        total: u64,
        /// Bytes there may be.
        allowed: u64,
    },
}

impl Caps {
    /// At most so many threads, and so many bytes of buffers.
    pub fn new(threads: u32, bytes: u64) -> Arc<Self> {
        Arc::new(Self { threads, bytes, used: Mutex::default() })
    }

    /// A connection's share: `queues` threads with `pool` bytes of buffers each.
    ///
    /// # Errors
    /// It does not fit beside what is in use.
    pub fn reserve(self: &Arc<Self>, queues: u32, pool: u64) -> Result<Permit, CapError> {
        let permit = self.take(queues, pool);
        let (threads, bytes) = {
            let used = self.lock();
            (used.threads, used.bytes)
        };
        if threads > self.threads {
            return Err(CapError::Threads { wanted: queues, total: threads.into(), allowed: self.threads });
        }
        if bytes > self.bytes {
            return Err(CapError::Buffers { wanted: queues, total: bytes, allowed: self.bytes });
        }
        Ok(permit)
    }

    /// The same whether it fits or not: a connection that another run of the daemon granted.
    pub fn take(self: &Arc<Self>, queues: u32, pool: u64) -> Permit {
        let bytes = u64::from(queues).saturating_mul(pool);
        let mut used = self.lock();
        used.threads = used.threads.saturating_add(queues);
        used.bytes = used.bytes.saturating_add(bytes);
        Permit { caps: Arc::clone(self), threads: queues, bytes }
    }

    /// Threads in use and allowed, bytes in use and allowed.
    pub fn shares(&self) -> (Share, Share) {
        let used = self.lock();
        let share = |used: u64, limit: u64| Share { used, limit };
        (share(used.threads.into(), self.threads.into()), share(used.bytes, self.bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.caps.lock();
        used.threads = used.threads.saturating_sub(self.threads);
        used.bytes = used.bytes.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_when_used_up_then_the_next_is_refused_until_one_is_given_back() {
        let caps = Caps::new(4, 1 << 30);
        let first = caps.reserve(3, 1).unwrap();
        assert_eq!(
            caps.reserve(2, 1).unwrap_err(),
            CapError::Threads { wanted: 2, total: 5, allowed: 4 },
            "and a refusal takes nothing"
        );
        let _second = caps.reserve(1, 1).unwrap();
        drop(first);
        caps.reserve(3, 1).unwrap();
    }

    #[test]
    fn buffers_when_used_up_then_the_message_has_both_numbers() {
        let caps = Caps::new(64, 8 << 20);
        let _first = caps.reserve(1, 4 << 20).unwrap();
        let message = caps.reserve(2, 4 << 20).unwrap_err().to_string();
        assert!(message.contains("12MiB") && message.contains("8MiB"), "{message}");
    }

    #[test]
    fn connection_when_granted_by_another_run_then_is_counted_but_not_refused() {
        let caps = Caps::new(1, 1);
        let old = caps.take(2, 1 << 20);
        assert!(caps.reserve(1, 0).is_err());
        drop(old);
        caps.reserve(1, 1).unwrap();
    }
}
