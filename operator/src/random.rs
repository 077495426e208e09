//! Owns the one source of randomness of the operator: cluster ids and tokens. Must not know what they are for.
//!
//! Invariant: what comes out is unpredictable, for a token is a secret.

use std::fs::File;
use std::io::Read;

/// As many random bytes, in hexadecimal digits.
#[must_use]
pub fn hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut buffer))
        .expect("Linux has /dev/urandom");
    hex::encode(buffer)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_eq!(super::hex(16).len(), 32);
        assert_ne!(super::hex(16), super::hex(16));
    }
}
