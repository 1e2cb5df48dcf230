//! Registers and short vectors, below the shape of whole intervals.

use super::*;

fn guard_of(guard: Guard, bytes: &[u8]) -> u64 {
    crate::bulk::number(guard, extend(guard, start(guard), bytes))
}

#[test]
fn guard_when_given_check_strings_then_as_published() {
    assert_eq!(guard_of(Guard::Crc16T10Dif, b"123456789"), 0xD0DB);
    assert_eq!(guard_of(Guard::Crc64Nvme, b"123456789"), 0xAE8B_1486_0A79_9888);
    assert_eq!(guard_of(Guard::Ip, b"123456789"), 0xF62A);
}

#[test]
fn guard_when_given_the_test_set_of_sbc_then_as_published() {
    let rising: Vec<u8> = (0..32).collect();
    let falling: Vec<u8> = (0..32).map(|i| 255 - i).collect();
    let mut leading = [0; 32];
    leading[..2].fill(0xFF);
    for (bytes, crc) in [
        (&[0; 32][..], 0x0000),
        (&[0xFF; 32], 0xA293),
        (&rising, 0x0224),
        (&leading, 0x21B8),
        (&falling, 0xA0B7),
    ] {
        assert_eq!(guard_of(Guard::Crc16T10Dif, bytes), crc);
    }
}

#[test]
fn stream_when_cut_anywhere_then_as_in_one_piece() {
    let bytes: Vec<u8> = (0..300u32).map(|i| ((i * i) >> 3) as u8).collect();
    for guard in Guard::ALL {
        let whole = extend(guard, start(guard), &bytes);
        for first in 0..bytes.len() {
            for second in [first, first + 1, first + 7, bytes.len()] {
                let second = second.min(bytes.len());
                let mut stream = Stream::new(guard);
                stream.update(&bytes[..first]);
                stream.update(&bytes[first..second]);
                stream.update(&bytes[second..]);
                assert_eq!(stream.register(), whole, "{guard} cut at {first} and {second}");
            }
        }
    }
}

#[test]
fn kernel_when_named_then_parsed_back() {
    for kernel in Kernel::ALL {
        assert_eq!(kernel.to_string().parse(), Ok(kernel));
    }
    assert!("abacus".parse::<Kernel>().is_err());
    assert!(Kernel::available().contains(&Kernel::selected()));
    assert_eq!(Kernel::available().last(), Some(&Kernel::Portable));
}
