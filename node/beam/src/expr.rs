//! Expressions: the typed tree an engine runs, and the languages it is written in.

pub mod ir;
pub mod text;
