//! Paths: which are allowed, and how they relate.
//!
//! Source: docs/misc/xenstore.txt (characters, slashes), xs_wire.h (lengths).

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

use crate::{Error, Result};

/// Longest absolute path, in bytes (XENSTORE_ABS_PATH_MAX).
pub const ABSOLUTE_MAX: usize = 3072;
/// Longest relative path, in bytes (XENSTORE_REL_PATH_MAX). Also what xenstored allows a domain behind
/// `/local/domain/<domid>/`.
pub const RELATIVE_MAX: usize = 2048;

/// Why `path` cannot name a node, if it cannot. Absolute and relative paths are fine; `@` names are not.
pub fn check_node(path: &str) -> Result<(), &'static str> {
    if path.starts_with('@') {
        return Err("a special watch is no node");
    }
    check_any(path)
}

/// Why `path` cannot be watched, if it cannot: as [`check_node`], with `@introduceDomain` and its like.
pub fn check_any(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("a path is empty");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@');
    if !path.bytes().all(allowed) {
        return Err("a path has a character other than letters, digits and -/_@");
    }
    if path.contains("//") {
        return Err("a path has a doubled slash");
    }
    if path.len() > 1 && path.ends_with('/') {
        return Err("a path ends in a slash");
    }
    let limit = if path.starts_with('/') { ABSOLUTE_MAX } else { RELATIVE_MAX };
    if path.len() > limit {
        return Err("a path is too long");
    }
    Ok(())
}

pub(crate) fn node(path: &str) -> Result<()> {
    check_node(path).map_err(|reason| Error::Invalid { path: path.to_owned(), reason })
}

pub(crate) fn any(path: &str) -> Result<()> {
    check_any(path).map_err(|reason| Error::Invalid { path: path.to_owned(), reason })
}

/// The parent of an absolute path; the root has none.
pub fn parent(path: &str) -> Option<&str> {
    let (parent, leaf) = path.rsplit_once('/')?;
    match (parent, leaf) {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// The last component of a path.
pub fn leaf(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, leaf)| leaf)
}

/// Whether `path` is `ancestor` or lies below it.
pub fn is_within(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor) {
        Some("") => true,
        Some(rest) => ancestor == "/" || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_when_well_formed_then_is_allowed() {
        for path in ["/", "/a", "/local/domain/0/backend/vbd-x_1@2", "device/vbd", "a"] {
            assert_eq!(check_node(path), Ok(()), "{path}");
        }
        assert_eq!(check_any("@introduceDomain"), Ok(()));
    }

    #[test]
    fn path_when_malformed_then_is_refused() {
        for path in ["", "//", "/a/", "/a//b", "/a\0b", "/a b", "/é", "/a\n", "/a.b", "@releaseDomain"] {
            assert!(check_node(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn path_when_at_the_limit_then_only_longer_is_refused() {
        let absolute = format!("/{}", "a".repeat(ABSOLUTE_MAX - 1));
        assert_eq!(check_node(&absolute), Ok(()));
        assert!(check_node(&format!("{absolute}a")).is_err());
        let relative = "a".repeat(RELATIVE_MAX);
        assert_eq!(check_node(&relative), Ok(()));
        assert!(check_node(&format!("{relative}a")).is_err());
    }

    #[test]
    fn parent_when_walked_up_then_ends_at_the_root() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), None);
        assert_eq!(parent("@releaseDomain"), None);
        assert_eq!(leaf("/a/b"), "b");
    }

    #[test]
    fn is_within_when_names_share_a_prefix_then_counts_whole_components() {
        assert!(is_within("/a/b", "/a"));
        assert!(is_within("/a", "/a"));
        assert!(is_within("/a", "/"));
        assert!(is_within("/", "/"));
        assert!(!is_within("/ab", "/a"));
        assert!(!is_within("/a", "/a/b"));
        assert!(is_within("@releaseDomain", "@releaseDomain"));
        assert!(!is_within("@releaseDomain", "/"));
    }
}
