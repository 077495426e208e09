//! Known bugs, planted on demand, so that the checkers can prove that they would see them.
//!
//! Owns the switch for bugs of the composition; those of the core are its own. Without the feature
//! `planted-bugs` the type has one value and every question is the constant `false`.

/// Which known bug this member has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// A bug of the consensus core.
    #[cfg(feature = "planted-bugs")]
    Core(pharos_paxos::Plant),
    /// Clients are answered although no leader has heard of this member for long.
    #[cfg(feature = "planted-bugs")]
    AnswersWhenCutOff,
    /// Clients with commands at a lost leader keep their connections, and what they ask next is sent.
    #[cfg(feature = "planted-bugs")]
    KeepsInFlight,
    /// A watch event leaves after the answer that shows the new state.
    #[cfg(feature = "planted-bugs")]
    EventAfterAnswer,
    /// A member whose volume was lost takes its permit a second time and votes from the empty disk.
    #[cfg(feature = "planted-bugs")]
    VotesFromEmptyDisk,
}

#[cfg(feature = "planted-bugs")]
impl Plant {
    pub(crate) fn core(self) -> pharos_paxos::Plant {
        if let Self::Core(plant) = self { plant } else { pharos_paxos::Plant::None }
    }

    pub(crate) fn answers_when_cut_off(self) -> bool {
        self == Self::AnswersWhenCutOff
    }

    pub(crate) fn keeps_in_flight(self) -> bool {
        self == Self::KeepsInFlight
    }

    pub(crate) fn event_after_answer(self) -> bool {
        self == Self::EventAfterAnswer
    }

    /// Asked by whoever founds members.
    #[must_use]
    pub fn votes_from_empty_disk(self) -> bool {
        self == Self::VotesFromEmptyDisk
    }
}

#[cfg(not(feature = "planted-bugs"))]
#[expect(clippy::unused_self, reason = "the planted twins read it")]
impl Plant {
    pub(crate) fn core(self) -> pharos_paxos::Plant {
        pharos_paxos::Plant::None
    }

    pub(crate) fn answers_when_cut_off(self) -> bool {
        false
    }

    pub(crate) fn keeps_in_flight(self) -> bool {
        false
    }

    pub(crate) fn event_after_answer(self) -> bool {
        false
    }

    /// Asked by whoever founds members.
    #[must_use]
    pub fn votes_from_empty_disk(self) -> bool {
        false
    }
}
