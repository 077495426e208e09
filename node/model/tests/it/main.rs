//! The model proves itself: what it forgets takes nothing away, it meets what it should, and it finds every
//! planted bug.

mod forgetting;
#[cfg(feature = "planted-bugs")]
mod planted;
mod small;
