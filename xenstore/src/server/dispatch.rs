//! One request: taken apart, carried out, answered.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

use super::core::{Core, Id};
use super::node::Caller;
use super::request;
use super::view::View;
use super::watch::Watch;
use crate::wire::{self, Code, Kind, Message, PAYLOAD_MAX};

/// What most requests are answered with.
const OK: &[u8] = b"OK\0";

/// What a request is answered with.
enum Answer {
    Plain(Vec<u8>),
    /// The watch just registered fires right behind the answer.
    Watching(Vec<u8>),
}

impl Core {
    /// Carries out a request and queues its answer.
    pub(super) fn dispatch(&mut self, id: Id, message: Message) {
        let Some(caller) = self.connections.get(&id).map(|connection| connection.caller) else {
            return;
        };
        let (kind, answer, first_event) = match self.carry_out(id, caller, &message) {
            Ok((kind, Answer::Plain(answer))) => (kind, answer, None),
            Ok((kind, Answer::Watching(event))) => (kind, OK.to_vec(), Some(event)),
            Err(code) => (Kind::Error, error(code), None),
        };
        let header = message.header;
        let bytes = wire::encode(kind, header.request, header.transaction, &[&answer]).or_else(|_| {
            wire::encode(Kind::Error, header.request, header.transaction, &[&error(Code::TooBig)])
        });
        // The client may have been disconnected by its own request.
        if let (Some(connection), Ok(bytes)) = (self.connections.get_mut(&id), bytes) {
            connection.output.answer(bytes);
            if let Some(event) = first_event {
                connection.output.event(&event);
            }
        }
    }

    fn carry_out(&mut self, id: Id, caller: Caller, message: &Message) -> Result<(Kind, Answer), Code> {
        let kind = message.kind().ok_or(Code::Unsupported)?;
        let transaction = message.header.transaction;
        let payload = message.payload.as_slice();
        if needs_privilege(kind) && !caller.is_privileged() {
            return Err(Code::Access);
        }
        let plain = match kind {
            Kind::Watch => {
                return self.watch(id, caller, payload).map(|event| (kind, Answer::Watching(event)));
            }
            Kind::Unwatch => self.unwatch(id, caller, payload)?,
            Kind::ResetWatches => self.reset(id),
            Kind::TransactionStart => self.start(id, caller, transaction)?,
            Kind::TransactionEnd => self.end(id, caller, transaction, payload)?,
            Kind::Introduce => self.introduce_by_wire(payload)?,
            Kind::Release => self.release_by_wire(payload)?,
            Kind::IsDomainIntroduced => {
                let domain = request::domain(request::one(payload)?)?;
                if self.introduced.contains(&domain) { b"T\0".to_vec() } else { b"F\0".to_vec() }
            }
            Kind::GetDomainPath => {
                let home = request::home(request::domain(request::one(payload)?)?);
                [home.as_bytes(), b"\0"].concat()
            }
            _ => self.on_node(id, caller, kind, transaction, payload)?,
        };
        Ok((kind, Answer::Plain(plain)))
    }

    /// A request about a node, in a transaction or outside, followed by the events it causes.
    fn on_node(
        &mut self,
        id: Id,
        caller: Caller,
        kind: Kind,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, Code> {
        let connection = self.connections.get_mut(&id).ok_or(Code::Io)?;
        let transaction = match transaction {
            0 => None,
            number => Some(connection.transactions.get_mut(&number).ok_or(Code::NotFound)?),
        };
        let config = &self.config;
        let mut view = View { store: &mut self.store, transaction, caller, config, changes: Vec::new() };
        let answer = node_request(&mut view, kind, payload);
        let changes = view.changes;
        self.fire_all(&changes);
        answer
    }

    fn watch(&mut self, id: Id, caller: Caller, payload: &[u8]) -> Result<Vec<u8>, Code> {
        let (path, token) = path_and_token(payload)?;
        let path = request::full_path(path, caller, &self.config)?;
        let held = self.watches_of(caller.domain);
        let connection = self.connections.get_mut(&id).ok_or(Code::Io)?;
        if connection.watches.iter().any(|watch| watch.is(&path.full, token)) {
            return Err(Code::Exists);
        }
        if !caller.is_privileged() && held >= self.config.watches_per_domain {
            return Err(Code::NoSpace);
        }
        let watch = Watch::new(path.full, token.to_owned(), path.prefix);
        let event = watch.event(&watch.path);
        connection.watches.push(watch);
        Ok(event)
    }

    fn unwatch(&mut self, id: Id, caller: Caller, payload: &[u8]) -> Result<Vec<u8>, Code> {
        let (path, token) = path_and_token(payload)?;
        let path = request::full_path(path, caller, &self.config)?;
        let connection = self.connections.get_mut(&id).ok_or(Code::Io)?;
        let at = connection.watches.iter().position(|watch| watch.is(&path.full, token));
        connection.watches.remove(at.ok_or(Code::NotFound)?);
        Ok(OK.to_vec())
    }

    fn reset(&mut self, id: Id) -> Vec<u8> {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.watches.clear();
            connection.transactions.clear();
        }
        OK.to_vec()
    }

    fn start(&mut self, id: Id, caller: Caller, inside: u32) -> Result<Vec<u8>, Code> {
        let open = self.transactions_of(caller.domain);
        let connection = self.connections.get_mut(&id).ok_or(Code::Io)?;
        if inside != 0 {
            let known = connection.transactions.contains_key(&inside);
            return Err(if known { Code::Busy } else { Code::NotFound });
        }
        if !caller.is_privileged() && open >= self.config.transactions_per_domain {
            return Err(Code::NoSpace);
        }
        Ok(format!("{}\0", connection.begin()).into_bytes())
    }

    fn end(&mut self, id: Id, caller: Caller, number: u32, payload: &[u8]) -> Result<Vec<u8>, Code> {
        let commit = match request::one(payload)? {
            "T" => true,
            "F" => false,
            _ => return Err(Code::Invalid),
        };
        let connection = self.connections.get_mut(&id).ok_or(Code::Io)?;
        let transaction = connection.transactions.remove(&number).ok_or(Code::NotFound)?;
        if commit {
            let owned = transaction.owned(&self.store, caller.domain);
            let grows = owned > self.store.owned(caller.domain);
            if !caller.is_privileged() && grows && owned > self.config.nodes_per_domain {
                return Err(Code::NoSpace);
            }
            let changes = transaction.commit(&mut self.store)?;
            self.fire_all(&changes);
        }
        Ok(OK.to_vec())
    }

    /// Domain, frame of its ring page, event channel. There is no ring here, so the frame is not looked at.
    fn introduce_by_wire(&mut self, payload: &[u8]) -> Result<Vec<u8>, Code> {
        let strings = request::strings(payload)?;
        let [domain, _frame, port, ..] = strings.as_slice() else {
            return Err(Code::Invalid);
        };
        let domain = request::domain(domain)?;
        if domain == 0 || !port.parse::<u32>().is_ok_and(|port| port > 0) {
            return Err(Code::Invalid);
        }
        self.introduce(domain);
        Ok(OK.to_vec())
    }

    fn release_by_wire(&mut self, payload: &[u8]) -> Result<Vec<u8>, Code> {
        let domain = request::domain(request::one(payload)?)?;
        if domain == 0 {
            return Err(Code::Invalid);
        }
        if self.release(domain) { Ok(OK.to_vec()) } else { Err(Code::NotFound) }
    }
}

fn node_request(view: &mut View<'_>, kind: Kind, payload: &[u8]) -> Result<Vec<u8>, Code> {
    let (caller, config) = (view.caller, view.config);
    let only = || request::node_path(request::one(payload)?, caller, config);
    match kind {
        Kind::Read => Ok(view.read(&only()?)?.value.clone()),
        Kind::Directory => Ok(view.read(&only()?)?.children.as_bytes().to_vec()),
        Kind::DirectoryPart => directory_part(view, payload),
        Kind::Mkdir => view.mkdir(&only()?).map(|()| OK.to_vec()),
        Kind::Rm => view.remove(&only()?).map(|()| OK.to_vec()),
        Kind::Write => {
            let (path, value) = request::string_and_rest(payload)?;
            let path = request::node_path(path, caller, config)?;
            view.write(&path, value).map(|()| OK.to_vec())
        }
        Kind::GetPerms => {
            let path = request::full_path(request::one(payload)?, caller, config)?.full;
            let entries = view.permissions(&path)?;
            Ok(entries.iter().flat_map(|entry| format!("{entry}\0").into_bytes()).collect())
        }
        Kind::SetPerms => {
            let strings = request::strings(payload)?;
            let (path, entries) = strings.split_first().ok_or(Code::Invalid)?;
            let path = request::full_path(path, caller, config)?.full;
            view.set_permissions(&path, request::permissions(entries)?).map(|()| OK.to_vec())
        }
        _ => Err(Code::Unsupported),
    }
}

/// A generation, whole names from an offset on, and an empty name behind the last of the list.
fn directory_part(view: &mut View<'_>, payload: &[u8]) -> Result<Vec<u8>, Code> {
    let strings = request::strings(payload)?;
    let [path, offset] = strings.as_slice() else {
        return Err(Code::Invalid);
    };
    let path = request::node_path(path, view.caller, view.config)?;
    let offset = offset.parse().map_err(|_| Code::Invalid)?;
    let node = view.read(&path)?;
    let mut answer = format!("{}\0", node.generation).into_bytes();
    // One byte for the end mark.
    let room = PAYLOAD_MAX.saturating_sub(answer.len()).saturating_sub(1);
    let (names, last) = node.children.part(offset, room);
    answer.extend_from_slice(names);
    if last {
        answer.push(0);
    }
    Ok(answer)
}

fn path_and_token(payload: &[u8]) -> Result<(&str, &str), Code> {
    let strings = request::strings(payload)?;
    match strings.as_slice() {
        [path, token] => Ok((path, token)),
        _ => Err(Code::Invalid),
    }
}

fn needs_privilege(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Control
            | Kind::Introduce
            | Kind::Release
            | Kind::IsDomainIntroduced
            | Kind::Resume
            | Kind::SetTarget
    )
}

fn error(code: Code) -> Vec<u8> {
    [code.name().as_bytes(), b"\0"].concat()
}
