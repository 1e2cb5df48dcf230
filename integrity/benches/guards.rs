//! PI at the speed of memory: how fast guards are made and checked, beside memcpy, a scan that only reads, ISA-L and
//! crc-fast, in one run.
//!
//! `cargo bench -p integrity --bench guards [-- FILTER]`: FILTER picks the tables whose title contains it.
//! `INTEGRITY_KERNEL` forces a kernel; without it the tables also show the other kernels of this machine, verifying.
//! "Hot" is a set of 64 KiB that is used again and again; "out of cache" goes, 64 KiB at a time, through a set of
//! twice the last-level cache (`GUARDS_COLD_MIB` sets another size).

#[path = "guards/isal.rs"]
mod isal;
#[path = "guards/measure.rs"]
mod measure;
#[path = "guards/plain.rs"]
mod plain;

use std::hint::black_box;
use std::time::Duration;

use crc_fast::CrcAlgorithm;
use integrity::{Expected, Guard, Kernel, PiType, Profile, ProfileSpec, Tuple};
use isal::IsaL;
use measure::{Case, compare};

/// Bytes per call, as a large request has them.
const CALL: usize = 64 * 1024;

/// Zeroed bytes that start at a page, as the pages of guests and pools do. Never freed.
fn pages(length: usize) -> &'static mut [u8] {
    let layout = std::alloc::Layout::from_size_align(length, 4096).unwrap();
    // SAFETY: the layout's size is not zero.
    let pages = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!pages.is_null());
    // SAFETY: just allocated with this length, zeroed, and never freed.
    unsafe { std::slice::from_raw_parts_mut(pages, length) }
}

/// What a table is about.
struct Shape {
    profile: Profile,
    source: &'static [u8],
    target: *mut u8,
    metadata: Vec<u8>,
}

/// Checks tuples one interval after the other, as a verifier does that has nothing but a checksum function.
fn check(
    profile: &Profile,
    data: &[u8],
    metadata: &[u8],
    first: usize,
    guard: impl Fn(&[u8]) -> u64,
) -> bool {
    let each = data.chunks_exact(profile.interval()).zip(metadata.chunks_exact(profile.metadata_size()));
    each.enumerate().all(|(i, (data, metadata))| {
        guard(data) == guard_of(profile, metadata) && reference_of(metadata) == (first + i) as u32
    })
}

/// Makes tuples one interval after the other, likewise.
fn make(profile: &Profile, data: &[u8], metadata: &mut [u8], first: usize, guard: impl Fn(&[u8]) -> u64) {
    let each = data.chunks_exact(profile.interval()).zip(metadata.chunks_exact_mut(profile.metadata_size()));
    for (reference, (data, metadata)) in (first as u64..).zip(each) {
        profile.set_tuple(metadata, Tuple { guard: guard(data), application: 0, reference });
    }
}

fn guard_of(profile: &Profile, tuple: &[u8]) -> u64 {
    match profile.guard() {
        Guard::Crc64Nvme => u64::from_be_bytes(tuple[..8].try_into().unwrap()),
        _ => u64::from(u16::from_be_bytes(tuple[..2].try_into().unwrap())),
    }
}

fn reference_of(tuple: &[u8]) -> u32 {
    u32::from_be_bytes(tuple[tuple.len() - 4..].try_into().unwrap())
}

/// Verifying, generating, and verifying after a copy with a checksum function, each interval on its own; what is `first`
/// is what the others are compared with.
fn theirs<'a>(
    shape: &'a Shape,
    by: &str,
    first: Option<&'static str>,
    guard: impl Fn(&[u8]) -> u64 + Copy + 'a,
) -> [Case<'a>; 3] {
    let Shape { profile, source, metadata, target } = shape;
    let (profile, target) = (*profile, *target);
    let per_call = profile.metadata_len(CALL);
    let intervals = profile.intervals(CALL);
    let calls = move || source.chunks_exact(CALL).zip(metadata.chunks_exact(per_call)).enumerate();
    let mut made = metadata.clone();
    let verify = move || {
        for (i, (from, metadata)) in calls() {
            assert!(check(&profile, black_box(from), metadata, i * intervals, guard));
        }
    };
    let generate = move || {
        for ((i, (from, _)), metadata) in calls().zip(made.chunks_exact_mut(per_call)) {
            make(&profile, black_box(from), metadata, i * intervals, guard);
        }
    };
    let copy_verify = move || {
        // SAFETY: the target is never freed, as long as the source, and only one case runs at a time.
        let target = unsafe { std::slice::from_raw_parts_mut(target, source.len()) };
        for ((i, (from, metadata)), to) in calls().zip(target.chunks_exact_mut(CALL)) {
            to.copy_from_slice(black_box(from));
            assert!(check(&profile, to, metadata, i * intervals, guard));
        }
    };
    let case = |operation, by: String, baseline, run| Case { operation, by, baseline, run };
    [
        case("verify", by.to_owned(), first.map(|first| ("verify", first)), Box::new(verify)),
        case("generate", by.to_owned(), first.map(|first| ("generate", first)), Box::new(generate)),
        case("copy + verify", format!("memcpy, then {by}"), Some(("copy", "memcpy")), Box::new(copy_verify)),
    ]
}

/// The cases of one table. Those that write have a copy of the set, and metadata, of their own.
fn cases<'a>(shape: &'a Shape, isal: Option<IsaL>) -> Vec<Case<'a>> {
    let Shape { profile, source, metadata, target } = shape;
    let (profile, target) = (*profile, *target);
    let per_call = profile.metadata_len(CALL);
    let intervals = profile.intervals(CALL);
    let calls = move || source.chunks_exact(CALL).zip(metadata.chunks_exact(per_call)).enumerate();
    let mut cases: Vec<Case<'a>> = Vec::new();
    let case = |operation, by: &str, baseline, run: Box<dyn FnMut() + 'a>| Case {
        operation,
        by: by.to_owned(),
        baseline,
        run,
    };
    let length = source.len();
    let copies = move || {
        // SAFETY: the target is never freed, as long as the source, and only one case runs at a time.
        let target = unsafe { std::slice::from_raw_parts_mut(target, length) };
        calls().zip(target.chunks_exact_mut(CALL))
    };

    cases.push(case(
        "copy",
        "memcpy",
        None,
        Box::new(move || {
            copies().for_each(|((_, (from, _)), to)| black_box(to).copy_from_slice(black_box(from)))
        }),
    ));
    cases.push(case(
        "read",
        "scan",
        Some(("copy", "memcpy")),
        Box::new(move || {
            calls().for_each(|(_, (from, _))| {
                black_box(plain::scan(black_box(from)));
            });
        }),
    ));

    let first = match profile.guard() {
        Guard::Crc16T10Dif if isal.is_some() => "ISA-L",
        Guard::Ip => "plain loop",
        _ => "crc-fast",
    };
    let baseline = Some(("verify", first));
    let mut others = Vec::new();
    match profile.guard() {
        Guard::Crc16T10Dif => {
            if let Some(isal) = isal {
                others.push(theirs(shape, "ISA-L", None, move |data| isal.crc16(data)));
                let without = move |data: &[u8]| isal.crc16_without_avx512(data);
                others.push(theirs(shape, "ISA-L, no AVX-512", Some(first), without));
            }
            let crc = |data: &[u8]| crc_fast::checksum(CrcAlgorithm::Crc16T10Dif, data);
            others.push(theirs(shape, "crc-fast", isal.is_some().then_some(first), crc));
        }
        Guard::Crc64Nvme => {
            let crc = |data: &[u8]| crc_fast::checksum(CrcAlgorithm::Crc64Nvme, data);
            others.push(theirs(shape, "crc-fast", None, crc));
        }
        _ => others.push(theirs(shape, "plain loop", None, plain::ip)),
    }
    let (mut others_generate, mut others_copy) = (Vec::new(), Vec::new());
    for [verify, generate, copy_verify] in others {
        cases.push(verify);
        others_generate.push(generate);
        others_copy.push(copy_verify);
    }
    if let (Guard::Crc64Nvme, Some(isal)) = (profile.guard(), isal) {
        // With another polynomial the guards are not NVMe's: it is only timed.
        cases.push(case(
            "guards only",
            isal.crc64_name,
            baseline,
            Box::new(move || {
                calls().for_each(|(_, (from, _))| {
                    black_box(from).chunks_exact(profile.interval()).for_each(|data| {
                        black_box(isal.crc64(data));
                    });
                });
            }),
        ));
    }

    let ours = |kernel: Kernel| format!("ours, {kernel}");
    let mut kernels = vec![profile.kernel()];
    if std::env::var_os("INTEGRITY_KERNEL").is_none() {
        kernels = Kernel::available().to_vec();
    }
    for kernel in kernels {
        let profile = profile.with_kernel(kernel).unwrap();
        cases.push(case(
            "verify",
            &ours(kernel),
            baseline,
            Box::new(move || {
                calls().for_each(|(i, (from, metadata))| {
                    let expected = Expected::new((i * intervals) as u64);
                    profile.verify(black_box(from), metadata, &expected).unwrap();
                });
            }),
        ));
    }

    cases.append(&mut others_generate);
    let mut made = metadata.clone();
    cases.push(case(
        "generate",
        &ours(profile.kernel()),
        Some(("generate", first)),
        Box::new(move || {
            calls().zip(made.chunks_exact_mut(per_call)).for_each(|((i, (from, _)), metadata)| {
                profile.generate(black_box(from), metadata, (i * intervals) as u64, 0);
            });
        }),
    ));

    let memcpy = Some(("copy", "memcpy"));
    cases.append(&mut others_copy);
    if let (Guard::Crc16T10Dif, Some(isal)) = (profile.guard(), isal) {
        cases.push(case(
            "copy + verify",
            "ISA-L, fused",
            memcpy,
            Box::new(move || {
                copies().for_each(|((_, (from, metadata)), to)| {
                    let to = to.chunks_exact_mut(profile.interval());
                    let from = black_box(from).chunks_exact(profile.interval());
                    to.zip(from).zip(metadata.chunks_exact(profile.metadata_size())).for_each(
                        |((to, from), metadata)| {
                            assert!(isal.crc16_copy(from, to) == guard_of(&profile, metadata));
                        },
                    );
                });
            }),
        ));
    }
    cases.push(case(
        "copy + verify",
        &ours(profile.kernel()),
        memcpy,
        Box::new(move || {
            copies().for_each(|((i, (from, metadata)), to)| {
                let expected = Expected::new((i * intervals) as u64);
                profile.copy_verify(&[black_box(from)], black_box(to), metadata, &expected).unwrap();
            });
        }),
    ));
    let mut made = metadata.clone();
    cases.push(case(
        "copy + generate",
        &ours(profile.kernel()),
        memcpy,
        Box::new(move || {
            copies().zip(made.chunks_exact_mut(per_call)).for_each(|(((i, (from, _)), to), metadata)| {
                profile.copy_generate(&[black_box(from)], black_box(to), metadata, (i * intervals) as u64, 0);
            });
        }),
    ));
    cases
}

/// Bytes of the set that is out of cache.
fn cold() -> usize {
    let megabytes = std::env::var("GUARDS_COLD_MIB").ok().and_then(|value| value.parse().ok());
    let cache = || {
        let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").ok()?;
        size.trim().strip_suffix('K')?.parse::<usize>().ok().map(|kilobytes| kilobytes / 1024)
    };
    megabytes.unwrap_or_else(|| 2 * cache().unwrap_or(64)).max(1) << 20
}

/// Remapping and the vectorised tuples alone, without any data.
fn remap(guard: Guard) {
    let spec = ProfileSpec {
        guard,
        interval: 512,
        metadata_size: guard.tuple_size() as u16,
        pi_offset: 0,
        tag_size: 0,
        pi_type: PiType::Type1,
    };
    let profile = Profile::new(spec).unwrap();
    let size = profile.metadata_size();
    let mut one = vec![0; 1024 * size];
    for (i, metadata) in one.chunks_exact_mut(size).enumerate() {
        profile.set_tuple(metadata, Tuple { guard: 7, application: 0, reference: i as u64 });
    }
    let mut other = one.clone();
    let mut cases = [
        Case {
            operation: "remap",
            by: "one tuple at a time".to_owned(),
            baseline: None,
            run: Box::new(|| {
                for (from, to) in [(0, 1 << 20), (1 << 20, 0)] {
                    for (i, metadata) in (0..).zip(black_box(&mut one).chunks_exact_mut(size)) {
                        let tuple = profile.tuple(metadata);
                        if tuple.reference == from + i {
                            profile.set_tuple(metadata, Tuple { reference: to + i, ..tuple });
                        }
                    }
                }
            }),
        },
        Case {
            operation: "remap",
            by: "ours".to_owned(),
            baseline: Some(("remap", "one tuple")),
            run: Box::new(|| {
                profile.remap(black_box(&mut other), 0, 1 << 20);
                profile.remap(black_box(&mut other), 1 << 20, 0);
            }),
        },
    ];
    let title = format!("remap of {size}-byte tuples");
    compare(&title, 2 * 1024 * size, Duration::from_millis(200), &mut cases);
}

fn main() {
    // Cargo passes --bench; what else there is, is the filter.
    let filter: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |title: &str| filter.iter().all(|part| title.contains(part.as_str()));
    let isal = IsaL::load();
    if isal.is_none() {
        eprintln!("SKIPPED the comparison with ISA-L: this machine has no libisal.so.2 (Debian: libisal2)");
    }
    println!("kernels of this machine: {:?}, selected: {}", Kernel::available(), Kernel::selected());
    for (place, length, budget) in [("hot", CALL, 1000), ("out of cache", cold(), 3000)] {
        let (source, target) = (pages(length), pages(length));
        // Fibonacci hashing: bytes without pattern.
        (0..).zip(source.iter_mut()).for_each(|(i, byte): (u64, _)| {
            *byte = (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        });
        target.fill(1);
        let source = &*source;
        for guard in [Guard::Crc16T10Dif, Guard::Crc64Nvme, Guard::Ip] {
            for interval in [512, 4096] {
                let title = format!("{guard}, {interval}-byte intervals, {place} ({} KiB)", length >> 10);
                if !wanted(&title) {
                    continue;
                }
                let spec = ProfileSpec {
                    guard,
                    interval,
                    metadata_size: guard.tuple_size() as u16,
                    pi_offset: 0,
                    tag_size: 0,
                    pi_type: PiType::Type1,
                };
                let profile = Profile::new(spec).unwrap();
                let mut metadata = vec![0; profile.metadata_len(length)];
                profile.generate(source, &mut metadata, 0, 0);
                let shape = Shape { profile, source, target: target.as_mut_ptr(), metadata };
                compare(&title, length, Duration::from_millis(budget), &mut cases(&shape, isal));
            }
        }
    }
    for guard in [Guard::Crc16T10Dif, Guard::Crc64Nvme] {
        if wanted("remap") {
            remap(guard);
        }
    }
}
