//! The golden vectors that the protocol's specification publishes, from both ends. A separate program
//! packed them field by field after the specification; this crate had no part in making them.

use blkif::{
    Abi, DixLimits, Encode, Limits, Paired, Pairing, RawSlot, Response, Segments, Status, parse_indirect,
    total_len,
};

mod common;
use common::rings;

const VECTORS: &str = include_str!("../../docs/protocol/vectors.txt");
const DIX: DixLimits = DixLimits { interval: 512, metadata_size: 8 };
const LIMITS: Limits = Limits { max_indirect: 256, dix: Some(DIX) };

#[derive(Default)]
struct Case<'a> {
    name: &'a str,
    indirect: Vec<u8>,
    verdict: &'a str,
    slots: Vec<(Abi, [Vec<u8>; 2])>,
    responses: Vec<(Abi, [Vec<u8>; 2])>,
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case> = Vec::new();
    for line in VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "case" {
            cases.push(Case { name: words[1], ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case comes first");
        let pair = || {
            let abi = Abi::from_name(words[1].as_bytes()).expect("an ABI");
            (abi, [hex(words[2]), hex(words[3])])
        };
        match words[0] {
            "indirect" => case.indirect = hex(words[1]),
            "verdict" => case.verdict = words[1],
            "slots" => case.slots.push(pair()),
            "responses" => case.responses.push(pair()),
            other => panic!("{other} is unknown"),
        }
    }
    cases
}

fn status(verdict: &str) -> Status {
    match verdict {
        "okay" => Status::Okay,
        "error" => Status::Error,
        "guard" => Status::Guard,
        "application" => Status::Application,
        "reference" => Status::Reference,
        other => panic!("{other} is unknown"),
    }
}

/// The responses a backend gives to a pair whose data and PI turn out as the verdict says.
fn answer(paired: &Paired, case: &Case) -> Vec<Response> {
    match paired {
        Paired::Refused(refused) => {
            assert_eq!(case.verdict, "error", "{}: {}", case.name, refused.reason);
            refused.responses.to_vec()
        }
        Paired::Pair { data, payload } => {
            let mut list = Vec::new();
            let segments = match &data.segments {
                Segments::Direct(segments) => segments.as_slice(),
                Segments::Indirect { count, .. } => {
                    parse_indirect(&case.indirect, *count, &LIMITS, &mut list).expect("valid segments");
                    &list
                }
            };
            let needed =
                payload.needed(&DIX, data.sector, total_len(segments)).expect("a long enough payload");
            assert_eq!(needed, total_len(segments) / 512 * 8, "{}", case.name);
            let status = status(case.verdict);
            vec![data.response(status), payload.response(status)]
        }
        other => panic!("{}: {other:?}", case.name),
    }
}

#[test]
fn the_vectors_are_read_then_each_abi_has_slots_and_responses() {
    let cases = cases();
    assert_eq!(cases.len(), 10);
    for case in &cases {
        for pairs in [&case.slots, &case.responses] {
            let abis: Vec<Abi> = pairs.iter().map(|(abi, _)| *abi).collect();
            assert_eq!(abis, Abi::ALL, "{}", case.name);
        }
    }
}

#[test]
fn a_backend_sees_the_slots_then_it_writes_the_responses() {
    for case in cases() {
        for ((abi, slots), (_, responses)) in case.slots.iter().zip(&case.responses) {
            let (mut front, mut back) = rings(*abi, 1);
            for slot in slots {
                assert_eq!(slot.len(), abi.entry_size());
                front.push(&RawSlot::from_bytes(*abi, slot)).unwrap();
            }
            assert!(front.publish());
            let paired = Pairing::new(LIMITS).next(&mut back).unwrap().expect("two slots are visible");
            for (n, (response, expected)) in answer(&paired, &case).iter().zip(responses).enumerate() {
                back.respond(response);
                let mut words = vec![0; expected.len() / 4];
                let offset = 64 + n * abi.entry_size();
                blkif::RingMemory::read(back.memory(), offset, &mut words);
                let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
                assert_eq!(&bytes, expected, "{} {abi}, response {n}", case.name);
                assert_eq!(bytes.len(), abi.response_size());
            }
            assert!(back.publish());
            assert_eq!(back.unanswered(), 0);
        }
    }
}

#[test]
fn a_frontend_makes_the_requests_then_it_writes_the_slots() {
    for case in cases() {
        for (abi, [data_bytes, payload_bytes]) in &case.slots {
            let [first, second] = [data_bytes, payload_bytes].map(|bytes| RawSlot::from_bytes(*abi, bytes));
            let wide =
                Limits { max_indirect: 4096, dix: Some(DixLimits { interval: 512, metadata_size: 1 }) };
            let Paired::Pair { data, payload } = Pairing::new(wide).pair(&first, Some(&second)) else {
                panic!("{} is a pair under wider limits", case.name)
            };
            let sent = Encode::payload(payload.id, data.handle, data.sector, &payload.segments);
            assert_eq!(Encode::request(&data).to_bytes(*abi).as_slice(), data_bytes, "{} {abi}", case.name);
            assert_eq!(sent.to_bytes(*abi).as_slice(), payload_bytes, "{} {abi}", case.name);
        }
    }
}

#[test]
fn a_frontend_takes_the_responses_then_they_are_what_was_sent_and_the_verdict() {
    for case in cases() {
        for ((abi, slots), (_, responses)) in case.slots.iter().zip(&case.responses) {
            let (mut front, mut back) = rings(*abi, 1);
            for (slot, response) in slots.iter().zip(responses) {
                front.push(&RawSlot::from_bytes(*abi, slot)).unwrap();
                let _ = front.publish();
                back.consume().unwrap().expect("it was published");
                let words: Vec<u32> =
                    response.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
                let offset = 64 + back.indexes().rsp_prod as usize * abi.entry_size();
                back.respond(&Response { id: 0, operation: 0, status: Status::Okay });
                blkif::RingMemory::write(back.memory(), offset, &words);
            }
            let _ = back.publish();
            let echo = RawSlot::from_bytes(*abi, &slots[0]).echo();
            let verdict = status(case.verdict);
            let data = front.take_response().unwrap().expect("it was published");
            assert_eq!((data.id, data.check(echo)), (0x1122_3344_5566_7788, Ok(verdict.for_data())));
            let payload = front.take_response().unwrap().expect("it was published");
            assert_eq!((payload.id, payload.check(7)), (0x99AA_BBCC_DDEE_FF00, Ok(verdict)));
        }
    }
}

#[test]
fn the_patch_for_blkif_h_is_read_then_its_numbers_are_ours() {
    use blkif::wire::*;
    let defined: Vec<(&str, &str)> = include_str!("../../docs/protocol/blkif-dix.patch")
        .lines()
        .filter_map(|line| line.strip_prefix("+#define BLKIF_"))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let ours = [
        ("OP_INTEGRITY", OP_INTEGRITY.to_string()),
        ("OP_DIX_FLAG", format!("{OP_DIX_FLAG:#x}")),
        ("RSP_DIX_REFERENCE", RSP_DIX_REFERENCE.to_string()),
        ("RSP_DIX_APPLICATION", RSP_DIX_APPLICATION.to_string()),
        ("RSP_DIX_GUARD", RSP_DIX_GUARD.to_string()),
    ];
    assert_eq!(defined, ours.each_ref().map(|(name, value)| (*name, value.as_str())));
}
