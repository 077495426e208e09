//! Feature levels: which rules a state is carried out by.
//!
//! Owns the numbers and what each added. Must not know who can do which, nor when an ensemble goes to the next.
//! Invariant: whatever changes a result of [`crate::State::apply`] is asked of the state's own level, which only a command
//! of the log raises: so members whose versions differ do the same at every slot. A level never falls.

use std::fmt;

/// The number of a set of rules. A new one is made for every change of what commands do, and never changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u16);

impl Level {
    /// The first: that of every state, log and row that says nothing of levels.
    pub const FIRST: Self = Self(1);
    /// Nodes with a time to live.
    pub const TTL: Self = Self(2);
    /// The newest that this version knows.
    pub const NEWEST: Self = Self::TTL;
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a member can carry out, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest.
    pub min: Level,
    /// The highest.
    pub max: Level,
}

impl Levels {
    /// Those that this version knows.
    pub const KNOWN: Self = Self { min: Level::FIRST, max: Level::NEWEST };
    /// Those of a version that says nothing of levels.
    pub const UNSAID: Self = Self { min: Level::FIRST, max: Level::FIRST };

    /// These, but none above.
    #[must_use]
    pub fn up_to(self, max: Level) -> Self {
        Self { max: self.max.min(max), ..self }
    }

    /// Whether a state of that level can be carried out.
    #[must_use]
    pub fn include(self, level: Level) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}
