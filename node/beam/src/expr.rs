//! Expressions: the typed tree an engine runs, and the languages it is written in.

pub(crate) mod check;
pub mod dynamic;
pub mod error;
pub mod eval;
pub mod format;
pub(crate) mod generic;
pub mod ir;
pub(crate) mod lexer;
pub mod number;
pub mod strings;
pub(crate) mod syntax;
pub mod text;
pub mod time;

#[cfg(test)]
mod tests;
