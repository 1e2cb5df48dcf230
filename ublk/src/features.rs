//! Feature flags of the driver and of a device.
#![forbid(unsafe_code)]

use crate::uapi;
use std::fmt;

/// A set of `UBLK_F_*` flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

/// Names by bit, without `UBLK_F_`.
const NAMES: [&str; 21] = [
    "SUPPORT_ZERO_COPY",
    "URING_CMD_COMP_IN_TASK",
    "NEED_GET_DATA",
    "USER_RECOVERY",
    "USER_RECOVERY_REISSUE",
    "UNPRIVILEGED_DEV",
    "CMD_IOCTL_ENCODE",
    "USER_COPY",
    "ZONED",
    "USER_RECOVERY_FAIL_IO",
    "UPDATE_SIZE",
    "AUTO_BUF_REG",
    "QUIESCE",
    "PER_IO_DAEMON",
    "BUF_REG_OFF_DAEMON",
    "BATCH_IO",
    "INTEGRITY",
    "SAFE_STOP_DEV",
    "NO_AUTO_PART_SCAN",
    "SHMEM_ZC",
    "IO_DESC_SIZE",
];

impl Features {
    /// A device outlives its server and waits for the next.
    pub const USER_RECOVERY: Self = Self(uapi::F_USER_RECOVERY);
    /// Requests that a server left unanswered go to the next one, instead of failing.
    pub const USER_RECOVERY_REISSUE: Self = Self(uapi::F_USER_RECOVERY_REISSUE);
    /// Data is copied by pread and pwrite.
    pub const USER_COPY: Self = Self(uapi::F_USER_COPY);
    /// Requests carry integrity metadata (Linux 7.0 with CONFIG_BLK_DEV_INTEGRITY).
    pub const INTEGRITY: Self = Self(uapi::F_INTEGRITY);
    /// A device can be stopped only if nobody has it open.
    pub const SAFE_STOP: Self = Self(uapi::F_SAFE_STOP_DEV);

    /// All flags of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of this set that `other` lacks.
    pub const fn beyond(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..64).filter(|bit| self.0 >> bit & 1 == 1) {
            match NAMES.get(bit) {
                Some(name) => write!(f, "{separator}UBLK_F_{name}")?,
                None => write!(f, "{separator}bit {bit}")?,
            }
            separator = ", ";
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_when_shown_have_the_headers_names() {
        let wanted = Features::USER_COPY.and(Features::INTEGRITY);
        assert_eq!(wanted.to_string(), "UBLK_F_USER_COPY, UBLK_F_INTEGRITY");
        assert_eq!(wanted.beyond(Features::USER_COPY), Features::INTEGRITY);
        assert!(!Features::USER_COPY.contains(wanted));
        assert_eq!(Features(1 << 40).to_string(), "bit 40");
        assert_eq!(Features::default().to_string(), "none");
    }
}
