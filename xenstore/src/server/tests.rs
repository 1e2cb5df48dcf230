//! The core under arbitrary bytes and arbitrary requests: it neither panics nor loses count, and the tree
//! stays a tree.

use proptest::prelude::*;
use proptest::sample::select;

use super::ServerConfig;
use super::core::{Core, Id};
use crate::wire::{self, Frames, Kind, Message};

/// Small, so that every quota is met.
fn config() -> ServerConfig {
    ServerConfig {
        nodes_per_domain: 8,
        watches_per_domain: 4,
        transactions_per_domain: 2,
        nodes_per_transaction: 6,
        node_size: 120,
        permissions_per_node: 3,
        path_length: 40,
        connections_per_domain: 3,
        output_limit: 20_000,
    }
}

/// A core with a connection for dom0 and two each for two domains with homes.
fn populated() -> (Core, Vec<Id>) {
    let mut core = Core::new(config());
    let dom0 = core.connect(0).unwrap();
    for domain in [1, 2] {
        for (kind, payload) in [
            (Kind::Mkdir, format!("/local/domain/{domain}\0")),
            (Kind::SetPerms, format!("/local/domain/{domain}\0n{domain}\0")),
        ] {
            core.receive(dom0, &wire::encode(kind, 1, 0, &[payload.as_bytes()]).unwrap());
        }
        core.introduce(domain);
    }
    let others = [1, 1, 2, 2].map(|domain| core.connect(domain).unwrap());
    let ids = [&[dom0][..], &others].concat();
    drain(&mut core, dom0);
    (core, ids)
}

/// All that waits for a client.
fn drain(core: &mut Core, id: Id) -> Vec<Message> {
    let mut frames = Frames::new();
    if let Some(connection) = core.connections.get_mut(&id) {
        while connection.output.waiting() > 0 {
            let bytes = connection.output.next().to_vec();
            connection.output.advance(bytes.len());
            frames.push(&bytes);
        }
    }
    std::iter::from_fn(|| frames.next_message().unwrap()).collect()
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let word = select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/local/domain/1",
        "/local/domain/1/x",
        "/local/domain/2/x/y",
        "x",
        "x/y",
        "@introduceDomain",
        "@releaseDomain",
        "n0",
        "b1",
        "r2",
        "t",
        "T",
        "F",
        "0",
        "1",
        "2",
        "7",
        "70000",
        "",
    ]);
    let words = prop::collection::vec(word, 0..5);
    prop_oneof![
        8 => words.prop_map(|words| words.iter().flat_map(|word| format!("{word}\0").into_bytes()).collect()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn request() -> impl Strategy<Value = (usize, Kind, u32, Vec<u8>)> {
    (0..5usize, select(Kind::ALL.to_vec()), 0..4u32, payload())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_when_arbitrary_then_each_has_one_answer_and_the_tree_is_whole(
        requests in prop::collection::vec(request(), 1..80),
        drained in prop::bool::weighted(0.9),
    ) {
        let (mut core, ids) = populated();
        for (number, (who, kind, transaction, payload)) in (1u32..).zip(&requests) {
            let id = ids[*who];
            core.receive(id, &wire::encode(*kind, number, *transaction, &[payload]).unwrap());
            core.store.assert_whole();
            for domain in [1, 2] {
                prop_assert!(core.store.owned(domain) <= 8 || dom0_adds_nodes(&requests));
                prop_assert!(core.watches_of(domain) <= 4);
                prop_assert!(core.transactions_of(domain) <= 2);
            }
            if drained {
                let answers = drain(&mut core, id);
                let mine = answers.iter().filter(|message| message.header.request == number).count();
                // None only for a client that its own request, or another's RELEASE, has ended.
                prop_assert_eq!(mine, usize::from(core.connections.contains_key(&id)));
            }
            for connection in core.connections.values() {
                prop_assert!(connection.output.waiting() <= 20_000 + 4112);
            }
        }
    }

    #[test]
    fn bytes_when_arbitrary_then_the_tree_stays_whole(
        pieces in prop::collection::vec((0..5usize, prop::collection::vec(any::<u8>(), 0..200)), 0..40),
    ) {
        let (mut core, ids) = populated();
        for (who, bytes) in &pieces {
            core.receive(ids[*who], bytes);
        }
        core.store.assert_whole();
    }
}

/// Dom0 may give a domain more nodes than it could make itself.
fn dom0_adds_nodes(requests: &[(usize, Kind, u32, Vec<u8>)]) -> bool {
    requests
        .iter()
        .any(|(who, kind, ..)| *who == 0 && matches!(kind, Kind::SetPerms | Kind::Mkdir | Kind::Write))
}
