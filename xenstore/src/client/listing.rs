//! Listing a node's children, in one message or, where they do not fit, part by part.
//!
//! Each part carries the list's generation; when it changes between two parts the list is begun anew.

use super::reply;
use super::requests::{self, Ask};
use crate::wire::Kind;
use crate::{Error, Result};

/// Bytes of names a listing may have: far beyond what xenstore is for, so a server that never ends is cut off.
const LIST_MAX: usize = 16 << 20;
/// How often a list that keeps changing is begun anew.
const RESTARTS: u32 = 100;

pub(super) fn directory(on: &impl Ask, path: &str) -> Result<Vec<String>> {
    match requests::about(on, Kind::Directory, path) {
        Ok(payload) => reply::strings(&payload),
        Err(Error::TooBig { .. }) => in_parts(on, path),
        Err(error) => Err(error),
    }
}

fn in_parts(on: &impl Ask, path: &str) -> Result<Vec<String>> {
    for _ in 0..RESTARTS {
        if let Some(names) = one_pass(on, path)? {
            return Ok(names);
        }
    }
    Err(Error::Again)
}

/// The whole list, or none if it changed meanwhile.
fn one_pass(on: &impl Ask, path: &str) -> Result<Option<Vec<String>>> {
    let mut names = Vec::new();
    let mut offset = 0;
    let mut generation = None;
    loop {
        let at = offset.to_string();
        let payload = on.ask(Kind::DirectoryPart, path, &[path.as_bytes(), b"\0", at.as_bytes(), b"\0"])?;
        let part = reply::part(&payload)?;
        if *generation.get_or_insert_with(|| part.generation.clone()) != part.generation {
            return Ok(None);
        }
        names.extend(part.names);
        offset += part.bytes;
        if part.last {
            return Ok(Some(names));
        }
        if offset > LIST_MAX {
            return Err(Error::Protocol(format!("{path}: a listing of more than {LIST_MAX} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    /// Answers every part with the next of a script and notes the offsets asked for.
    struct Script {
        parts: RefCell<VecDeque<&'static [u8]>>,
        offsets: RefCell<Vec<String>>,
    }

    impl Script {
        fn new(parts: &[&'static [u8]]) -> Script {
            Script { parts: RefCell::new(parts.iter().copied().collect()), offsets: RefCell::default() }
        }
    }

    impl Ask for Script {
        fn ask(&self, kind: Kind, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>> {
            if kind == Kind::Directory {
                return Err(Error::TooBig { path: path.to_owned() });
            }
            self.offsets.borrow_mut().push(String::from_utf8(payload[2].to_vec()).unwrap());
            Ok(self.parts.borrow_mut().pop_front().unwrap().to_vec())
        }
    }

    #[test]
    fn list_when_in_parts_then_is_put_together() {
        let script = Script::new(&[b"1\0aa\0b\0", b"1\0c\0", b"1\0d\0\0"]);
        assert_eq!(directory(&script, "/x").unwrap(), ["aa", "b", "c", "d"]);
        assert_eq!(*script.offsets.borrow(), ["0", "5", "7"]);
    }

    #[test]
    fn list_when_it_changes_between_parts_then_is_begun_anew() {
        let script = Script::new(&[b"1\0a\0b\0", b"2\0x\0\0", b"2\0a\0", b"2\0x\0\0"]);
        assert_eq!(directory(&script, "/x").unwrap(), ["a", "x"]);
        assert_eq!(*script.offsets.borrow(), ["0", "4", "0", "2"]);
    }

    #[test]
    fn list_when_a_part_leads_nowhere_then_is_refused() {
        let script = Script::new(&[b"1\0a\0", b"1\0"]);
        assert!(matches!(directory(&script, "/x"), Err(Error::Protocol(_))));
    }

    /// Answers every part with the same name and no end.
    struct Endless;

    impl Ask for Endless {
        fn ask(&self, kind: Kind, path: &str, _payload: &[&[u8]]) -> Result<Vec<u8>> {
            if kind == Kind::Directory {
                return Err(Error::TooBig { path: path.to_owned() });
            }
            Ok([b"1\0", &[b'x'; 4000][..], b"\0"].concat())
        }
    }

    #[test]
    fn list_when_it_never_ends_then_is_cut_off() {
        assert!(matches!(directory(&Endless, "/x"), Err(Error::Protocol(_))));
    }

    /// Every part has another generation.
    #[derive(Default)]
    struct Restless(std::cell::Cell<u32>);

    impl Ask for Restless {
        fn ask(&self, kind: Kind, path: &str, _payload: &[&[u8]]) -> Result<Vec<u8>> {
            if kind == Kind::Directory {
                return Err(Error::TooBig { path: path.to_owned() });
            }
            self.0.set(self.0.get() + 1);
            Ok(format!("{}\0x\0", self.0.get()).into_bytes())
        }
    }

    #[test]
    fn list_when_it_changes_every_time_then_is_given_up() {
        assert!(matches!(directory(&Restless::default(), "/x"), Err(Error::Again)));
    }
}
