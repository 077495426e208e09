//! Expressions: the typed tree an engine runs, and the languages it is written in.

pub mod dynamic;
pub mod error;
pub mod eval;
pub mod format;
pub mod ir;
pub mod number;
pub mod strings;
pub mod text;
