//! Answers taken apart: everything here is the server's word and is believed only as far as it parses.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

use super::WatchEvent;
use crate::wire::{Code, Kind, Message};
use crate::{Error, Permission, Result};

/// The payload of the answer to a request of `kind` about `path`, or the error it carries.
pub(super) fn payload(message: Message, kind: Kind, path: &str) -> Result<Vec<u8>> {
    match message.kind() {
        Some(answered) if answered == kind => Ok(message.payload),
        Some(Kind::Error) => {
            let name = message.payload.strip_suffix(b"\0").unwrap_or(&message.payload);
            Err(Error::from_code(Code::from_name(name), path))
        }
        _ => Err(Error::Protocol(format!("{kind:?} was answered by type {}", message.header.kind))),
    }
}

/// A string that may end in one NUL.
pub(super) fn string(payload: Vec<u8>) -> Result<String> {
    let mut payload = payload;
    if payload.last() == Some(&0) {
        payload.pop();
    }
    text(&payload).map(str::to_owned)
}

/// Strings that each end in a NUL.
pub(super) fn strings(payload: &[u8]) -> Result<Vec<String>> {
    let Some(list) = payload.strip_suffix(b"\0") else {
        return if payload.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Error::Protocol("a list does not end in a NUL".to_owned()))
        };
    };
    list.split(|&byte| byte == 0).map(|name| text(name).map(str::to_owned)).collect()
}

/// A permission list.
pub(super) fn permissions(payload: &[u8]) -> Result<Vec<Permission>> {
    strings(payload)?
        .iter()
        .map(|entry| entry.parse().map_err(|_| Error::Protocol(format!("{entry:?} is no permission entry"))))
        .collect()
}

/// What a TRANSACTION_START gave.
pub(super) fn transaction(payload: Vec<u8>) -> Result<u32> {
    let number = string(payload)?;
    match number.parse() {
        // 0 means "no transaction" in a header.
        Ok(0) | Err(_) => Err(Error::Protocol(format!("{number:?} is no transaction"))),
        Ok(id) => Ok(id),
    }
}

/// The answer to IS_DOMAIN_INTRODUCED.
pub(super) fn truth(payload: &[u8]) -> Result<bool> {
    match payload {
        b"T" | b"T\0" => Ok(true),
        b"F" | b"F\0" => Ok(false),
        _ => Err(Error::Protocol("neither T nor F".to_owned())),
    }
}

/// A watch event: path and token. Kernels may append more strings.
pub(super) fn event(payload: &[u8]) -> Result<WatchEvent> {
    let mut strings = strings(payload)?.into_iter();
    match (strings.next(), strings.next()) {
        (Some(path), Some(token)) => Ok(WatchEvent { path, token }),
        _ => Err(Error::Protocol("a watch event without path and token".to_owned())),
    }
}

/// One part of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Changes whenever the list does.
    pub(super) generation: String,
    /// Names, in order.
    pub(super) names: Vec<String>,
    /// Bytes of the list these names take: what to add to the offset.
    pub(super) bytes: usize,
    /// Whether the list ends here.
    pub(super) last: bool,
}

/// The answer to DIRECTORY_PART: a generation, names, and an empty name after the last of the list.
pub(super) fn part(payload: &[u8]) -> Result<Part> {
    let mut names = strings(payload)?;
    if names.is_empty() {
        return Err(Error::Protocol("a part of a listing without generation".to_owned()));
    }
    let generation = names.remove(0);
    let last = names.last().is_some_and(String::is_empty);
    if last {
        names.pop();
    }
    let bytes = names.iter().map(|name| name.len().saturating_add(1)).sum();
    if names.iter().any(String::is_empty) {
        return Err(Error::Protocol("an empty name in a listing".to_owned()));
    }
    if names.is_empty() && !last {
        return Err(Error::Protocol("an empty part in the middle of a listing".to_owned()));
    }
    Ok(Part { generation, names, bytes, last })
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::Protocol("a name is not text".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn part_when_last_then_says_so() {
        let part = part(b"17\0a\0bc\0\0").unwrap();
        assert_eq!((part.names, part.bytes, part.last), (vec!["a".to_owned(), "bc".to_owned()], 5, true));
        let part = super::part(b"17\0a\0").unwrap();
        assert_eq!((part.generation.as_str(), part.bytes, part.last), ("17", 2, false));
        let part = super::part(b"17\0\0").unwrap();
        assert_eq!((part.bytes, part.last), (0, true));
    }

    #[test]
    fn part_when_it_would_not_lead_on_then_is_refused() {
        for payload in [&b""[..], b"17", b"17\0", b"17\0a", b"17\0a\0\0b\0"] {
            assert!(part(payload).is_err(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn payload_when_arbitrary_then_is_parsed_or_refused(payload in prop::collection::vec(any::<u8>(), 0..4200)) {
            let _ = string(payload.clone());
            let _ = strings(&payload);
            let _ = permissions(&payload);
            let _ = transaction(payload.clone());
            let _ = truth(&payload);
            let _ = event(&payload);
            if let Ok(part) = part(&payload) {
                prop_assert!(part.last || part.bytes > 0);
                prop_assert!(part.bytes <= payload.len());
            }
        }

        #[test]
        fn strings_when_joined_and_parsed_then_are_the_same(
            names in prop::collection::vec("[a-zA-Z0-9/_@-]{0,20}", 0..20),
        ) {
            let payload: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(strings(&payload).unwrap(), names);
        }
    }
}
