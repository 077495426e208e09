//! The exchange between the workers of a run.
//!
//! Owns: the connection of two workers, its frames, credits, and what a round looks like as bytes.
//! Must not know: tasks, checkpoints, who leads, the Ensemble.
//! Invariant: a channel never has more bytes on the way than its sender was given credit for, so one
//! whose receiver is slow holds no other back; a frame that is damaged, of another run or of another
//! generation ends the connection and is never taken for data.

pub(crate) mod arrays;
pub(crate) mod link;
pub(crate) mod message;
