//! Negotiation: nodes written, read back, and written by somebody hostile.

use std::collections::HashMap;

use blkif::{
    Abi, DiscardNodes, DixNodes, FrontendNodes, GrantRef, Info, NegotiationError, Properties, RingNodes,
    Sectors, Transport, XenbusState,
};

type Nodes = HashMap<String, Vec<u8>>;

fn offer() -> Transport {
    Transport { max_ring_page_order: 4, max_queues: 4, max_indirect: 256, dix: Some(dix()) }
}

fn dix() -> DixNodes {
    DixNodes {
        guard: "crc16-t10dif".to_owned(),
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: 1,
    }
}

fn map<K: ToString, V: ToString>(nodes: impl IntoIterator<Item = (K, V)>) -> Nodes {
    nodes.into_iter().map(|(name, value)| (name.to_string(), value.to_string().into_bytes())).collect()
}

fn parse(nodes: &Nodes) -> Result<FrontendNodes, NegotiationError> {
    FrontendNodes::parse(&|name| nodes.get(name).cloned(), &offer())
}

/// What Linux's blkfront writes with one ring of one page, and changes to it.
fn linux(changes: &[(&str, &str)]) -> Result<FrontendNodes, NegotiationError> {
    let mut nodes = map([
        ("protocol", "x86_64-abi"),
        ("ring-ref", "8"),
        ("event-channel", "15"),
        ("feature-persistent", "1"),
    ]);
    nodes.extend(map(changes.iter().copied()));
    nodes.retain(|_, value| value != b"-");
    parse(&nodes)
}

#[test]
fn linux_writes_one_ring_then_it_is_understood() {
    let nodes = linux(&[]).unwrap();
    let ring = RingNodes { refs: vec![GrantRef(8)], port: 15 };
    let expected = FrontendNodes {
        abi: Abi::X86_64,
        rings: vec![ring],
        persistent: true,
        dix: false,
        large_sector: false,
    };
    assert_eq!(nodes, expected);
}

#[test]
fn nodes_are_written_then_reading_them_gives_the_same() {
    for abi in Abi::ALL {
        for queues in [1, 2, 4] {
            for order in 0..=4 {
                let rings = (0..queues)
                    .map(|queue| RingNodes {
                        refs: (0..1u32 << order).map(|page| GrantRef(queue * 100 + page)).collect(),
                        port: queue + 1,
                    })
                    .collect();
                let nodes =
                    FrontendNodes { abi, rings, persistent: order == 0, dix: true, large_sector: false };
                assert_eq!(parse(&map(nodes.nodes())), Ok(nodes));
            }
        }
    }
}

#[test]
fn protocol_is_absent_then_it_is_what_linux_and_qemu_take_it_for() {
    let abi = linux(&[("protocol", "-")]).unwrap().abi;
    assert_eq!(abi, Abi::when_absent());
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        assert_eq!(abi, Abi::X86_32);
    }
}

#[test]
fn an_order_of_zero_was_written_then_the_one_page_may_be_numbered_or_not() {
    let numbered = linux(&[("ring-page-order", "0"), ("ring-ref", "-"), ("ring-ref0", "9")]).unwrap();
    assert_eq!(numbered.rings[0].refs, [GrantRef(9)]);
    assert_eq!(linux(&[("ring-page-order", "0")]).unwrap().rings[0].refs, [GrantRef(8)]);
}

#[test]
fn a_value_is_no_plain_number_of_its_range_then_it_is_refused() {
    let long = "0".repeat(21);
    let bad = [
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1\0",
        "0x1",
        "1.0",
        "one",
        "\u{0663}",
        "18446744073709551616",
        long.as_str(),
    ];
    for node in [
        "ring-ref",
        "event-channel",
        "feature-persistent",
        "multi-queue-num-queues",
        "ring-page-order",
        "feature-data-integrity",
        "feature-large-sector-size",
    ] {
        for value in bad {
            let expected = NegotiationError::Malformed { node: node.to_owned() };
            assert_eq!(linux(&[(node, value)]), Err(expected), "{node} = {value:?}");
        }
    }
}

#[test]
fn a_number_is_beyond_the_offer_then_it_is_refused() {
    for (node, values) in [
        ("ring-page-order", &["5", "31", "32", "4294967295", "4294967296"][..]),
        ("multi-queue-num-queues", &["0", "5", "65536", "18446744073709551615"]),
        ("ring-ref", &["4294967296"]),
        ("event-channel", &["0", "4294967296"]),
        ("feature-persistent", &["2"]),
    ] {
        for value in values {
            let result = linux(&[(node, value)]);
            assert!(
                matches!(result, Err(NegotiationError::OutOfRange { .. })),
                "{node} = {value}: {result:?}"
            );
        }
    }
    let small = Transport::default();
    let read = |name: &str| (name == "ring-page-order").then(|| b"1".to_vec());
    assert!(matches!(FrontendNodes::parse(&read, &small), Err(NegotiationError::OutOfRange { .. })));
}

#[test]
fn a_node_is_missing_then_it_is_named() {
    for node in ["ring-ref", "event-channel"] {
        let expected = NegotiationError::Missing { node: node.to_owned() };
        assert_eq!(linux(&[(node, "-")]), Err(expected));
    }
    let two = linux(&[("multi-queue-num-queues", "2")]);
    assert_eq!(two, Err(NegotiationError::Missing { node: "queue-0/ring-ref".to_owned() }));
    let four = linux(&[("ring-page-order", "2"), ("ring-ref0", "1"), ("ring-ref1", "2")]);
    assert_eq!(four, Err(NegotiationError::Missing { node: "ring-ref2".to_owned() }));
}

#[test]
fn a_ring_page_or_event_channel_is_named_twice_then_it_is_refused() {
    let within = linux(&[("ring-page-order", "1"), ("ring-ref0", "8"), ("ring-ref1", "8")]);
    assert_eq!(within, Err(NegotiationError::Repeated { node: "ring-ref1".to_owned(), value: 8 }));
    let queues = |refs: [&str; 2], ports: [&str; 2]| {
        linux(&[
            ("multi-queue-num-queues", "2"),
            ("queue-0/ring-ref", refs[0]),
            ("queue-1/ring-ref", refs[1]),
            ("queue-0/event-channel", ports[0]),
            ("queue-1/event-channel", ports[1]),
        ])
    };
    assert!(queues(["1", "2"], ["1", "2"]).is_ok(), "references and ports do not mix");
    let refs = NegotiationError::Repeated { node: "queue-1/ring-ref".to_owned(), value: 1 };
    assert_eq!(queues(["1", "01"], ["1", "2"]), Err(refs));
    let ports = NegotiationError::Repeated { node: "queue-1/event-channel".to_owned(), value: 5 };
    assert_eq!(queues(["1", "2"], ["5", "5"]), Err(ports));
}

#[test]
fn a_frontend_accepts_dix_then_it_must_speak_our_version() {
    let accept = ("feature-data-integrity", "1");
    assert!(linux(&[accept, ("data-integrity-version", "1")]).unwrap().dix);
    assert!(!linux(&[("data-integrity-version", "1")]).unwrap().dix);
    assert!(matches!(linux(&[accept]), Err(NegotiationError::Missing { .. })));
    for version in ["0", "2", "", "x"] {
        let result = linux(&[accept, ("data-integrity-version", version)]);
        assert!(matches!(result, Err(NegotiationError::Malformed { .. })));
    }
    let mut nodes = linux(&[]).unwrap();
    nodes.dix = true;
    let nodes = map(nodes.nodes());
    let plain = Transport { dix: None, ..offer() };
    let parsed = FrontendNodes::parse(&|name| nodes.get(name).cloned(), &plain).unwrap();
    assert!(!parsed.dix, "what was not offered cannot be accepted");
}

#[test]
fn a_frontend_counts_in_large_sectors_then_only_512_is_served() {
    let nodes = linux(&[("feature-large-sector-size", "1")]).unwrap();
    assert_eq!(nodes.check_sector_size(512), Ok(()));
    assert_eq!(nodes.check_sector_size(4096), Err(NegotiationError::LargeSectorSize(4096)));
    assert_eq!(linux(&[]).unwrap().check_sector_size(4096), Ok(()));
}

#[test]
fn more_nodes_than_offered_are_there_then_they_are_never_asked_for() {
    let asked = std::cell::Cell::new(0);
    let read = |name: &str| {
        asked.set(asked.get() + 1);
        match name {
            "multi-queue-num-queues" | "ring-page-order" => Some(b"4".to_vec()),
            "protocol" => None,
            name if name.starts_with("feature") => None,
            _ => Some(asked.get().to_string().into_bytes()),
        }
    };
    FrontendNodes::parse(&read, &offer()).unwrap();
    assert!(asked.get() <= 4 * (16 + 1) + 8, "{}", asked.get());
}

#[test]
fn a_backend_offers_then_its_nodes_are_those_of_the_protocol() {
    let nodes = offer().nodes();
    let expected = [
        ("max-ring-page-order", "4"),
        ("multi-queue-max-queues", "4"),
        ("feature-max-indirect-segments", "256"),
        ("feature-data-integrity", "1"),
        ("data-integrity-version", "1"),
        ("data-integrity-guard", "crc16-t10dif"),
        ("data-integrity-interval", "512"),
        ("data-integrity-metadata-size", "8"),
        ("data-integrity-pi-offset", "0"),
        ("data-integrity-tag-size", "2"),
        ("data-integrity-type", "1"),
    ];
    assert_eq!(nodes, expected.map(|(name, value)| (name, value.to_owned())));
    let nodes = map(nodes);
    assert_eq!(Transport::parse(&|name| nodes.get(name).cloned()), Ok(offer()));
    let names: Vec<_> = Transport::default().nodes().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["max-ring-page-order", "multi-queue-max-queues"]);
}

#[test]
fn metadata_is_large_then_the_published_indirect_limit_is_the_one_requests_are_held_to() {
    let offer = Transport { dix: Some(DixNodes { metadata_size: 64, ..dix() }), ..offer() };
    assert!(offer.nodes().contains(&("feature-max-indirect-segments", "88".to_owned())));
    let limits = offer.limits(true);
    assert_eq!((limits.max_indirect, limits.dix.map(|dix| dix.metadata_size)), (88, Some(64)));
    let limits = offer.limits(false);
    assert_eq!((limits.max_indirect, limits.dix), (88, None));
}

#[test]
fn a_backend_offers_another_version_then_a_frontend_sees_no_dix() {
    let mut nodes = map(offer().nodes());
    nodes.insert("data-integrity-version".to_owned(), b"2".to_vec());
    assert_eq!(Transport::parse(&|name| nodes.get(name).cloned()).unwrap().dix, None);
    nodes.remove("data-integrity-version");
    assert!(Transport::parse(&|name| nodes.get(name).cloned()).is_err());
}

#[test]
fn a_disk_is_described_then_reading_it_gives_the_same() {
    let properties = Properties {
        sectors: Sectors(2048),
        sector_size: 512,
        physical_sector_size: 4096,
        info: Info { read_only: true, ..Info::default() },
        flush: true,
        barrier: true,
        persistent: false,
        discard: Some(DiscardNodes { granularity: 4096, alignment: 0, secure: false }),
    };
    let nodes = map(properties.nodes());
    assert_eq!(nodes["info"], b"4");
    assert_eq!(Properties::parse(&|name| nodes.get(name).cloned()), Ok(properties.clone()));
    let plain = Properties { discard: None, ..properties };
    let nodes = map(plain.nodes());
    assert!(!nodes.contains_key("discard-granularity"));
    assert_eq!(Properties::parse(&|name| nodes.get(name).cloned()), Ok(plain));
}

#[test]
fn a_state_node_is_read_then_only_its_nine_digits_are_known() {
    for (number, state) in XenbusState::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, number);
        assert_eq!(XenbusState::parse(number.to_string().as_bytes()), Some(state));
        assert_eq!(state.to_string(), number.to_string());
    }
    for value in ["", "9", "44", " 4", "4\0", "-1"] {
        assert_eq!(XenbusState::parse(value.as_bytes()), None);
    }
}
