//! Baselines in plain Rust: a scan that only reads, and the IP checksum as the compiler vectorises it, with the best
//! instruction set of the machine.

macro_rules! widest {
    ($name:ident, $plain:ident) => {
        pub fn $name(data: &[u8]) -> u64 {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512(data: &[u8]) -> u64 {
                    $plain(data)
                }
                #[target_feature(enable = "avx2")]
                fn avx2(data: &[u8]) -> u64 {
                    $plain(data)
                }
                let has_avx512 = std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512dq");
                if has_avx512 {
                    // SAFETY: the features have just been seen.
                    return unsafe { avx512(data) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature has just been seen.
                    return unsafe { avx2(data) };
                }
            }
            $plain(data)
        }
    };
}

#[inline(always)]
fn plain_scan(data: &[u8]) -> u64 {
    let (words, _) = data.as_chunks::<8>();
    words.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word))
}

#[inline(always)]
fn plain_ip(data: &[u8]) -> u64 {
    let (words, _) = data.as_chunks::<2>();
    let mut sum = words.iter().map(|word| u32::from(u16::from_le_bytes(*word))).sum::<u32>();
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    u64::from((!sum as u16).swap_bytes())
}

widest!(scan, plain_scan);
widest!(ip, plain_ip);
