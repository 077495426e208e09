//! The model proves itself: it meets what it should, and finds every planted bug that its size can show.

#[cfg(feature = "planted-bugs")]
mod planted;
