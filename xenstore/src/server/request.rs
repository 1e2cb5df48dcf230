//! Requests taken apart: everything here is a client's word, some clients are hostile.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

use super::ServerConfig;
use super::node::Caller;
use crate::wire::Code;
use crate::{Permission, path};

/// The one string of a payload that has exactly one NUL, at its end.
pub(super) fn one(payload: &[u8]) -> Result<&str, Code> {
    match payload.split_last() {
        Some((0, string)) if !string.contains(&0) => text(string),
        _ => Err(Code::Invalid),
    }
}

/// All strings of a payload that ends in a NUL.
pub(super) fn strings(payload: &[u8]) -> Result<Vec<&str>, Code> {
    let list = payload.strip_suffix(b"\0").ok_or(Code::Invalid)?;
    list.split(|&byte| byte == 0).map(text).collect()
}

/// A string, a NUL, and whatever follows.
pub(super) fn string_and_rest(payload: &[u8]) -> Result<(&str, &[u8]), Code> {
    let nul = payload.iter().position(|&byte| byte == 0).ok_or(Code::Invalid)?;
    let (string, rest) = payload.split_at(nul);
    Ok((text(string)?, rest.get(1..).unwrap_or_default()))
}

/// A domain's number.
pub(super) fn domain(string: &str) -> Result<u16, Code> {
    if string.is_empty() || !string.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Code::Invalid);
    }
    string.parse().map_err(|_| Code::Invalid)
}

/// A permission list.
pub(super) fn permissions(entries: &[&str]) -> Result<Vec<Permission>, Code> {
    entries.iter().map(|entry| entry.parse().map_err(|_| Code::Invalid)).collect()
}

/// A path as the store knows it: absolute, within its limits.
pub(super) struct Path {
    /// Absolute, or special.
    pub(super) full: String,
    /// Bytes at its front that a relative path did not say.
    pub(super) prefix: usize,
}

/// The home of a domain.
pub(super) fn home(domain: u16) -> String {
    format!("/local/domain/{domain}")
}

/// A path of a node.
pub(super) fn node_path(string: &str, caller: Caller, config: &ServerConfig) -> Result<String, Code> {
    path::check_node(string).map_err(|_| Code::Invalid)?;
    full_path(string, caller, config).map(|path| path.full)
}

/// A path that may be special.
pub(super) fn full_path(string: &str, caller: Caller, config: &ServerConfig) -> Result<Path, Code> {
    path::check_any(string).map_err(|_| Code::Invalid)?;
    let path = if string.starts_with(['/', '@']) {
        Path { full: string.to_owned(), prefix: 0 }
    } else {
        let home = home(caller.domain);
        Path { full: format!("{home}/{string}"), prefix: home.len().saturating_add(1) }
    };
    if below_home(&path.full).len() > config.path_length {
        return Err(Code::Invalid);
    }
    Ok(path)
}

/// What follows `/local/domain/<domid>/`, which does not count against a path's length; or the whole path.
fn below_home(path: &str) -> &str {
    path.strip_prefix("/local/domain/")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(domain, _)| domain.len() <= 5 && domain.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(path, |(_, below)| below)
}

fn text(bytes: &[u8]) -> Result<&str, Code> {
    std::str::from_utf8(bytes).map_err(|_| Code::Invalid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_when_not_exactly_one_string_then_is_refused() {
        assert_eq!(one(b"/a\0"), Ok("/a"));
        for payload in [&b""[..], b"/a", b"/a\0b\0", b"/a\0\0", b"\xff\0"] {
            assert_eq!(one(payload), Err(Code::Invalid), "{payload:?}");
        }
    }

    #[test]
    fn path_when_relative_then_begins_at_the_callers_home() {
        let config = ServerConfig::default();
        let path = full_path("device/vbd", Caller { domain: 7 }, &config).unwrap();
        assert_eq!((path.full.as_str(), path.prefix), ("/local/domain/7/device/vbd", 16));
        assert!(node_path("@releaseDomain", Caller { domain: 0 }, &config).is_err());
    }

    #[test]
    fn path_when_at_its_limit_then_the_home_does_not_count() {
        let config = ServerConfig { path_length: 10, ..ServerConfig::default() };
        let caller = Caller { domain: 7 };
        for path in ["/local/domain/7/0123456789", "0123456789", "/123456789"] {
            assert!(node_path(path, caller, &config).is_ok(), "{path}");
        }
        for path in ["/local/domain/7/0123456789a", "0123456789a", "/1234567890", "/local/domain/x/y"] {
            assert!(node_path(path, caller, &config).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn payload_when_arbitrary_then_is_parsed_or_refused(payload in prop::collection::vec(any::<u8>(), 0..4200)) {
            let config = ServerConfig::default();
            let _ = one(&payload);
            let _ = string_and_rest(&payload);
            if let Ok(strings) = strings(&payload) {
                let _ = permissions(&strings);
                for string in strings {
                    let _ = domain(string);
                    if let Ok(path) = full_path(string, Caller { domain: 3 }, &config) {
                        prop_assert!(path.full.len() <= 2048 + 32);
                    }
                }
            }
        }
    }
}
