//! Permissions of a node: a list, whose first entry names the owner and what everybody else may do.

use std::fmt;
use std::str::FromStr;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing (`n`).
    None,
    /// Read (`r`).
    Read,
    /// Write (`w`).
    Write,
    /// Read and write (`b`).
    Both,
}

impl Access {
    /// Whether reading is allowed.
    pub const fn reads(self) -> bool {
        matches!(self, Access::Read | Access::Both)
    }

    /// Whether writing is allowed.
    pub const fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Both)
    }
}

/// One entry of a node's permission list, on the wire `r5`, `n0` and so on.
///
/// The first entry of a list is special: its domain owns the node and may do everything; its access is what
/// domains without an entry of their own get. Source: docs/misc/xenstore.txt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The domain this entry is about.
    pub domain: u16,
    /// What it may do.
    pub access: Access,
}

impl Permission {
    /// No access for `domain`; as the first entry: owned by `domain`, closed to all others.
    pub const fn none(domain: u16) -> Permission {
        Permission { domain, access: Access::None }
    }

    /// Read access for `domain`; as the first entry: owned by `domain`, readable by all.
    pub const fn read(domain: u16) -> Permission {
        Permission { domain, access: Access::Read }
    }

    /// Write access for `domain`.
    pub const fn write(domain: u16) -> Permission {
        Permission { domain, access: Access::Write }
    }

    /// Read and write access for `domain`.
    pub const fn both(domain: u16) -> Permission {
        Permission { domain, access: Access::Both }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain)
    }
}

/// Text that is no permission entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a xenstore permission (one of n, r, w, b and a domain number)")]
pub struct ParsePermissionError;

impl FromStr for Permission {
    type Err = ParsePermissionError;

    fn from_str(text: &str) -> Result<Permission, ParsePermissionError> {
        let mut characters = text.chars();
        let access = match characters.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(ParsePermissionError),
        };
        let digits = characters.as_str();
        // u16's own parser also takes a plus sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParsePermissionError);
        }
        let domain = digits.parse().map_err(|_| ParsePermissionError)?;
        Ok(Permission { domain, access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_when_written_and_parsed_then_is_the_same() {
        for entry in
            [Permission::none(0), Permission::read(7), Permission::write(65535), Permission::both(12)]
        {
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
    }

    #[test]
    fn text_when_not_an_entry_then_is_refused() {
        for text in ["", "r", "x1", "r-1", "r+1", "r1 ", "r65536", "1", "rr1", "é1"] {
            assert_eq!(text.parse::<Permission>(), Err(ParsePermissionError), "{text:?}");
        }
    }
}
