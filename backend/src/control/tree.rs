//! One disk's two directories in xenstore: looking at them, and changing the backend's.
//!
//! A change is one transaction that first looks whether the state is still what this end knows. So a change never
//! overwrites the toolstack's word, never makes a removed directory again, and is seen as a whole. A guest cannot
//! make these transactions fail: nothing it may write is touched by them.

use super::machine::View;
use blkif::{XenbusState, names};
use std::cell::RefCell;
use xenstore::{Client, Error, Transaction};

/// Longest text written for a person to read: a domain may not own nodes of more than 2048 bytes.
const TEXT_MAX: usize = 1024;

/// The node in which a backend says what is wrong with a disk, beside libxl's `hotplug-error`.
pub const ERROR: &str = "error";

/// One disk's directories.
#[derive(Clone, Debug)]
pub struct Tree {
    client: Client,
    /// The backend's directory.
    pub backend: String,
    /// The frontend's directory; none if the toolstack named none that can be.
    pub frontend: Option<String>,
    /// Where Xen's own backends write their errors, too: `<home>/error/backend/...`, with a child `error`.
    errors: String,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the tree.
    Done,
    /// The state is not what it was: nothing was written.
    Overtaken,
}

impl Tree {
    /// The disk whose backend directory is `<home>/backend/<path>`.
    pub fn new(client: Client, home: &str, path: &str, frontend: Option<String>) -> Self {
        let backend = format!("{home}/backend/{path}");
        Self { client, backend, frontend, errors: format!("{home}/error/backend/{path}") }
    }

    /// What the tree says now.
    ///
    /// # Errors
    /// Xenstore cannot be asked. A frontend whose state cannot be read, for whatever reason of its own, is Unknown.
    pub fn view(&self) -> Result<View, Error> {
        let own = match self.client.read(&self.own(names::STATE)) {
            Ok(value) => Some(XenbusState::parse(&value).unwrap_or(XenbusState::Unknown)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let online = match self.client.read(&self.own(names::ONLINE)) {
            Ok(value) => value != b"0",
            Err(error) if error.is_not_found() => own.is_some(),
            Err(error) => return Err(error),
        };
        let frontend = match self.read_frontend(names::STATE)? {
            Some(value) => XenbusState::parse(&value).unwrap_or(XenbusState::Unknown),
            None => XenbusState::Unknown,
        };
        Ok(View { own, online, frontend, overdue: false })
    }

    /// A node of the backend's directory; none where it is not there.
    ///
    /// # Errors
    /// Xenstore cannot be asked.
    pub fn read_own(&self, node: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.client.read(&self.own(node)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node of the frontend's directory; none where there is nothing to be read.
    ///
    /// # Errors
    /// Xenstore cannot be asked.
    pub fn read_frontend(&self, node: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(frontend) = &self.frontend else { return Ok(None) };
        match self.client.read(&format!("{frontend}/{node}")) {
            Ok(value) => Ok(Some(value)),
            Err(error @ (Error::Disconnected | Error::Io { .. })) => Err(error),
            // The rest is between the guest and xenstored: gone, forbidden, too long.
            Err(_) => Ok(None),
        }
    }

    /// Gives nodes, by `read` of this tree, to something that cannot fail with xenstore.
    ///
    /// # Errors
    /// Xenstore could not be asked meanwhile, so that what came out means nothing.
    pub fn parse<T>(
        &self,
        read: impl Fn(&Self, &str) -> Result<Option<Vec<u8>>, Error>,
        parse: impl FnOnce(&dyn Fn(&str) -> Option<Vec<u8>>) -> T,
    ) -> Result<T, Error> {
        gather(|node| read(self, node), parse)
    }

    /// Looks at the backend's directory as it is at one moment: the toolstack may remove it and make it anew at any time,
    /// and a look at both is a look at neither.
    ///
    /// # Errors
    /// Xenstore, or what `look` gives.
    pub fn at_once<T>(&self, look: impl Fn(&Edit<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.client.transaction(|transaction| look(&Edit { transaction, tree: self }))
    }

    /// Changes the backend's directory if its state is still `from`: `body` first, then the state.
    ///
    /// # Errors
    /// Xenstore, or what `body` gives.
    pub fn change(
        &self,
        from: XenbusState,
        to: XenbusState,
        body: impl Fn(&Edit<'_>) -> Result<Change, Error>,
    ) -> Result<Change, Error> {
        self.client.transaction(|transaction| {
            let edit = Edit { transaction, tree: self };
            let state = edit.read(names::STATE)?;
            let known = state.map(|value| XenbusState::parse(&value).unwrap_or(XenbusState::Unknown));
            if known != Some(from) || body(&edit)? == Change::Overtaken {
                return Ok(Change::Overtaken);
            }
            if from != to {
                edit.write(names::STATE, to.name())?;
            }
            Ok(Change::Done)
        })
    }

    /// Writes or takes back the error where Xen's own backends have theirs. A number goes before the text there:
    /// EINVAL, as nothing finer is told.
    ///
    /// # Errors
    /// Xenstore.
    pub fn log_error(&self, reason: Option<&str>) -> Result<(), Error> {
        match reason {
            Some(reason) => {
                let text = format!("{} {}", libc::EINVAL, readable(reason));
                self.client.write(&format!("{}/error", self.errors), text)
            }
            None => {
                let top = self.errors.split("/backend/").next().unwrap_or_default();
                prune(&self.client, &self.errors, top)
            }
        }
    }

    /// Deletes the backend's directory, if the disk is closed and the toolstack wants it gone.
    ///
    /// # Errors
    /// Xenstore.
    pub fn remove_closed(&self) -> Result<(), Error> {
        self.change(XenbusState::Closed, XenbusState::Closed, |edit| {
            if edit.read(names::ONLINE)?.is_some_and(|online| online != b"0") {
                return Ok(Change::Overtaken);
            }
            edit.transaction.remove(&self.backend)?;
            Ok(Change::Done)
        })
        .map(drop)
    }

    fn own(&self, node: &str) -> String {
        format!("{}/{node}", self.backend)
    }
}

/// Gives nodes to something that cannot fail with xenstore.
fn gather<T>(
    read: impl Fn(&str) -> Result<Option<Vec<u8>>, Error>,
    parse: impl FnOnce(&dyn Fn(&str) -> Option<Vec<u8>>) -> T,
) -> Result<T, Error> {
    let failure = RefCell::new(None);
    let value = parse(&|node| match read(node) {
        Ok(value) => value,
        Err(error) => {
            failure.replace(Some(error));
            None
        }
    });
    failure.into_inner().map_or(Ok(value), Err)
}

/// A change under way, or a look at one moment.
pub struct Edit<'a> {
    transaction: &'a Transaction<'a>,
    tree: &'a Tree,
}

impl Edit<'_> {
    /// A node of the backend's directory.
    ///
    /// # Errors
    /// Xenstore.
    pub fn read(&self, node: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.transaction.read(&self.tree.own(node)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same for all that `parse` asks for.
    ///
    /// # Errors
    /// Xenstore.
    pub fn parse<T>(&self, parse: impl FnOnce(&dyn Fn(&str) -> Option<Vec<u8>>) -> T) -> Result<T, Error> {
        gather(|node| self.read(node), parse)
    }

    /// Writes a node of the backend's directory.
    ///
    /// # Errors
    /// Xenstore.
    pub fn write(&self, node: &str, value: &str) -> Result<(), Error> {
        self.transaction.write(&self.tree.own(node), value)
    }

    /// Writes a text for a person.
    ///
    /// # Errors
    /// Xenstore.
    pub fn tell(&self, node: &str, text: &str) -> Result<(), Error> {
        self.write(node, &readable(text))
    }

    /// Removes a node of the backend's directory, if it is there.
    ///
    /// # Errors
    /// Xenstore.
    pub fn remove(&self, node: &str) -> Result<(), Error> {
        if self.read(node)?.is_none() {
            return Ok(());
        }
        self.transaction.remove(&self.tree.own(node))
    }
}

/// Removes a node, and each of the directories above it that is left empty, up to `top`, which stays.
///
/// # Errors
/// Xenstore. What is not there is no error.
pub fn prune(client: &Client, path: &str, top: &str) -> Result<(), Error> {
    match client.remove(path) {
        Err(error) if error.is_not_found() => return Ok(()),
        result => result?,
    }
    // In one go: a node that appears in a directory stays.
    client.transaction(|transaction| {
        let mut path = path;
        while let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| above.len() > top.len()) {
            match transaction.directory(above) {
                Ok(children) if children.is_empty() => {}
                Err(error) if error.is_not_found() => {}
                Ok(_) | Err(Error::Access { .. }) => break,
                Err(error) => return Err(error),
            }
            match transaction.remove(above) {
                Err(Error::Access { .. }) => break,
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            path = above;
        }
        Ok(())
    })
}

/// A text of bounded length without control characters: parts of it may be a guest's.
pub fn readable(text: &str) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX - 3).rev().find(|end| clean.is_char_boundary(*end)).unwrap_or(0);
        clean.truncate(end);
        clean.push_str("...");
    }
    clean
}
