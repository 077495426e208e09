//! pharos-node.

fn main() {}
