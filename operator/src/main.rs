//! pharos-operator.

fn main() {}
