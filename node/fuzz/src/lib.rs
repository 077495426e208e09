//! What arbitrary bytes must not do to a member: one function of bytes per target.
//!
//! Owns the targets, what each of them demands, and the corpus beside them. Must not know what feeds it: the fuzzer, which
//! is guided by what the compiler counts, and the tests, which give the corpus and mutations of it.
//!
//! Invariant: a target depends on its bytes alone. It panics if, and only if, the product has broken a rule.

mod apply;
mod chance;
mod client;
mod compare;
mod entries;
mod history;
mod log;
mod machine;
mod mutate;
mod peers;
mod rows;
mod snapshot;

pub use mutate::mutated;

/// What can be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its directory in the corpus.
    pub name: &'static str,
    /// Panics if the bytes make the product break a rule.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "client", run: client::run },
    Target { name: "peers", run: peers::run },
    Target { name: "log", run: log::run },
    Target { name: "rows", run: rows::run },
    Target { name: "apply", run: apply::run },
    Target { name: "entries", run: entries::run },
    Target { name: "snapshot", run: snapshot::run },
];
