//! What the hypervisor says of one grant operation: the GNTST_* numbers of
//! xen/include/public/grant_table.h.

use std::fmt;

/// A GNTST_* number. Numbers this crate has no name for pass through unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct GrantStatus(pub i16);

impl GrantStatus {
    /// Done.
    pub const OKAY: Self = Self(0);
    /// An entry that does not permit it: revoked, another domain's, or read-only and to be written.
    pub const GENERAL_ERROR: Self = Self(-1);
    /// No such domain, or it is gone.
    pub const BAD_DOMAIN: Self = Self(-2);
    /// A reference beyond the grant table.
    pub const BAD_REFERENCE: Self = Self(-3);
    /// An unmap of what is not mapped.
    pub const BAD_HANDLE: Self = Self(-4);
    /// A virtual address nothing can be mapped at.
    pub const BAD_VIRTUAL_ADDRESS: Self = Self(-5);
    /// A device address that is not mapped.
    pub const BAD_DEVICE_ADDRESS: Self = Self(-6);
    /// The I/O MMU is full.
    pub const NO_DEVICE_SPACE: Self = Self(-7);
    /// The caller may not do this.
    pub const PERMISSION_DENIED: Self = Self(-8);
    /// The entry names a frame that the granting domain has not.
    pub const BAD_PAGE: Self = Self(-9);
    /// A copy that crosses a page.
    pub const BAD_COPY_ARGUMENT: Self = Self(-10);
    /// A frame above what the entry can carry.
    pub const ADDRESS_TOO_BIG: Self = Self(-11);
    /// Not now: the page is paged out. Linux retries by itself, so a program never sees it.
    pub const AGAIN: Self = Self(-12);
    /// Out of handles.
    pub const NO_SPACE: Self = Self(-13);

    /// Whether the operation was done.
    pub const fn is_okay(self) -> bool {
        self.0 == 0
    }

    /// The name without its GNTST_ prefix, where the number has one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::OKAY => "okay",
            Self::GENERAL_ERROR => "general error",
            Self::BAD_DOMAIN => "bad domain",
            Self::BAD_REFERENCE => "bad reference",
            Self::BAD_HANDLE => "bad handle",
            Self::BAD_VIRTUAL_ADDRESS => "bad virtual address",
            Self::BAD_DEVICE_ADDRESS => "bad device address",
            Self::NO_DEVICE_SPACE => "no device space",
            Self::PERMISSION_DENIED => "permission denied",
            Self::BAD_PAGE => "bad page",
            Self::BAD_COPY_ARGUMENT => "bad copy argument",
            Self::ADDRESS_TOO_BIG => "address too big",
            Self::AGAIN => "try again",
            Self::NO_SPACE => "no space",
            _ => return None,
        })
    }
}

impl fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "status {}", self.0),
        }
    }
}
