//! The one hash of this crate: fixed for ever, since digests of members of different versions are compared.
//!
//! Folded 64 x 64 -> 128 bit multiplication, as in wyhash. It resists chance, not an attacker: nothing but the cost of a
//! look-up and the detection of divergence hangs on it, and equality is always checked.

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;
const K2: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Mixes two words.
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let product = ((a ^ K0) as u128) * ((b ^ K1) as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hashes bytes, continuing from `seed`.
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed, bytes.len() as u64);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word), K2);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = mix(hash ^ u64::from_le_bytes(last), K2);
    }
    hash
}

/// Hashes words, continuing from `seed`.
pub(crate) fn hash_words(seed: u64, words: &[u64]) -> u64 {
    words.iter().fold(seed, |hash, word| mix(hash ^ word, K2))
}
