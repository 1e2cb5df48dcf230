//! The same requests to both servers, at random: every answer and every event must be the same.
//!
//! Well-formed requests only, and within the quotas: where they differ elsewhere, the checks by hand say how.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use xenstore::wire::Kind;

use crate::subject::{Server, Subject};
use crate::support::raw::Raw;
use crate::support::skipped;

/// Domain 3, beside dom0.
const DOMAIN: u16 = 3;

#[derive(Clone, Debug)]
enum Request {
    /// A node request whose payload is a path, a NUL and more; in a transaction, if that slot has one.
    Node(Kind, String, Vec<u8>, Option<usize>),
    Watch(Kind, String, &'static str),
    Start(usize),
    End(usize, bool),
    Reset,
}

#[derive(Clone, Debug)]
struct Step {
    as_dom0: bool,
    request: Request,
}

/// Few names, so that requests meet.
fn path() -> impl Strategy<Value = String> {
    let names = prop::collection::vec(select(vec!["a", "b", "c"]), 1..4);
    let base = select(vec!["/", "/local/domain/3/", "/local/domain/3/", ""]);
    prop_oneof![
        20 => (base, names).prop_map(|(base, names)| format!("{base}{}", names.join("/"))),
        1 => select(vec!["/", "/local", "/local/domain/3"]).prop_map(str::to_owned),
    ]
}

fn watched() -> impl Strategy<Value = String> {
    prop_oneof![10 => path(), 1 => select(vec!["@introduceDomain", "@releaseDomain"]).prop_map(str::to_owned)]
}

fn permissions() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((select(vec!['n', 'r', 'w', 'b']), select(vec![0, 3, 3, 4])), 1..4).prop_map(
        |list| list.iter().flat_map(|(access, domain)| format!("{access}{domain}\0").into_bytes()).collect(),
    )
}

fn request() -> impl Strategy<Value = Request> {
    let slot = || prop_oneof![2 => Just(None), 1 => (0..2usize).prop_map(Some)];
    let plain = select(vec![Kind::Read, Kind::Directory, Kind::GetPerms, Kind::Mkdir, Kind::Rm]);
    let value = select(vec!["", "1", "two"]);
    prop_oneof![
        6 => (plain, path(), slot()).prop_map(|(kind, path, slot)| Request::Node(kind, path, vec![], slot)),
        6 => (path(), value, slot())
            .prop_map(|(path, value, slot)| Request::Node(Kind::Write, path, value.into(), slot)),
        3 => (path(), permissions(), slot())
            .prop_map(|(path, list, slot)| Request::Node(Kind::SetPerms, path, list, slot)),
        3 => (select(vec![Kind::Watch, Kind::Watch, Kind::Unwatch]), watched(), select(vec!["t", "u"]))
            .prop_map(|(kind, path, token)| Request::Watch(kind, path, token)),
        2 => (0..2usize).prop_map(Request::Start),
        2 => (0..2usize, any::<bool>()).prop_map(|(slot, commit)| Request::End(slot, commit)),
        1 => Just(Request::Reset),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<bool>(), request()).prop_map(|(as_dom0, request)| Step { as_dom0, request });
    prop::collection::vec(step, 1..60)
}

/// One side of one server.
struct Side {
    raw: Raw,
    transactions: [Option<u32>; 2],
}

impl Side {
    fn new(raw: Raw) -> Side {
        Side { raw, transactions: [None; 2] }
    }

    fn ask(&mut self, request: &Request) -> Option<String> {
        let (kind, answer) = match request {
            Request::Node(kind, path, rest, slot) => {
                // A slot without a transaction would only ask the same outside one.
                let transaction = match slot {
                    Some(slot) => self.transactions[*slot]?,
                    None => 0,
                };
                self.raw.ask(*kind, transaction, &[path.as_bytes(), b"\0", rest].concat())
            }
            Request::Watch(kind, path, token) => {
                self.raw.ask(*kind, 0, format!("{path}\0{token}\0").as_bytes())
            }
            Request::Start(slot) if self.transactions[*slot].is_none() => {
                self.transactions[*slot] = Some(self.raw.begin());
                return Some("started".to_owned());
            }
            Request::Start(_) => return None,
            Request::End(slot, commit) => {
                let transaction = self.transactions[*slot].take()?;
                self.raw.ask(Kind::TransactionEnd, transaction, if *commit { b"T\0" } else { b"F\0" })
            }
            Request::Reset => {
                self.transactions = [None; 2];
                self.raw.ask(Kind::ResetWatches, 0, b"\0")
            }
        };
        Some(format!("{kind:?} {}", answer.escape_ascii()))
    }

    /// The events so far: an answer comes after all of them.
    fn events(&mut self) -> Vec<String> {
        self.raw.get(Kind::GetDomainPath, 0, b"1\0");
        std::mem::take(&mut self.raw.events).iter().map(|event| event.escape_ascii().to_string()).collect()
    }
}

/// Everything a server says to these steps.
fn transcript(subject: &Subject, steps: &[Step]) -> Vec<String> {
    let mut domain = Side::new(subject.raw_domain(DOMAIN));
    let mut dom0 = Side::new(subject.raw());
    let mut said = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let side = if step.as_dom0 { &mut dom0 } else { &mut domain };
        let answer = side.ask(&step.request);
        said.push(format!("{number}: {step:?} -> {answer:?}"));
        said.push(format!("{number}: dom0 hears {:?}", dom0.events()));
        said.push(format!("{number}: domain hears {:?}", domain.events()));
    }
    said
}

#[test]
fn servers_when_asked_the_same_then_say_the_same() {
    if let Err(reason) = Subject::start(Server::Xenstored) {
        return skipped("conformance differential::servers_when_asked_the_same_then_say_the_same", &reason);
    }
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let embedded = transcript(&Subject::start(Server::Embedded).unwrap(), &steps);
        let xenstored = transcript(&Subject::start(Server::Xenstored).unwrap(), &steps);
        for (embedded, xenstored) in embedded.iter().zip(&xenstored) {
            // xenstored meets a child its transaction's copy of the parent does not list, because both came
            // about outside after the transaction began, and gives up. Nothing after that compares.
            if xenstored.contains("Error EIO") {
                return Ok(());
            }
            prop_assert_eq!(embedded, xenstored, "embedded on the left");
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
