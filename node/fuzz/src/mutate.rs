//! Mutations of the corpus for the tests, which have no counters to be guided by.
//!
//! Invariant: the same input and number give the same bytes.

use crate::chance::Chance;

/// Values that decoders stumble over.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// The input with a few changes; `other` is what may be spliced in.
#[must_use]
pub fn mutated(input: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut chance = Chance::new(number);
    let mut out = input.to_vec();
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(out.len() + 1);
        let rest = out.len() - at;
        match chance.below(6) {
            0 if rest > 0 => out[at] ^= 1 << chance.below(8),
            1 => out.insert(at, chance.next() as u8),
            2 => drop(out.drain(at..at + chance.below(rest + 1).min(16))),
            3 => {
                let edge = EDGES[chance.below(EDGES.len())].to_be_bytes();
                let width = (1 << chance.below(4)).min(rest);
                let place = &mut out[at..at + width];
                place.copy_from_slice(&edge[8 - width..]);
                if chance.below(2) == 0 {
                    place.reverse();
                }
            }
            4 if !other.is_empty() => {
                let from = chance.below(other.len());
                let to = from + chance.below(other.len() - from + 1);
                out.splice(at..at, other[from..to].iter().copied());
            }
            _ => out.truncate(at),
        }
    }
    out
}
