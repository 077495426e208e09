//! A whole member without I/O.

mod io;

pub use io::{CloseReason, ConnId, Lane, Now, Output, PersistBatch};
