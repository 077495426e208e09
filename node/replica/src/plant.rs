//! Known bugs, planted on demand, so that the checkers can prove that they would see them.
//!
//! Owns the switch for bugs of the composition; those of the core are its own. Without the feature
//! `planted-bugs` the type has one value and every question is the constant `false`.

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident $(#[$asked:meta])* $vis:vis $question:ident)*) => {
        /// Which known bug this member has.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Plant {
            /// None.
            #[default]
            None,
            /// A bug of the consensus core.
            #[cfg(feature = "planted-bugs")]
            Core(pharos_paxos::Plant),
            $($(#[$doc])* #[cfg(feature = "planted-bugs")] $name,)*
        }

        impl Plant {
            /// Every bug of the composition that this build can plant.
            pub const OWN: &[Plant] = &[$(#[cfg(feature = "planted-bugs")] Plant::$name,)*];

            $(
                $(#[$asked])*
                #[cfg(feature = "planted-bugs")]
                $vis fn $question(self) -> bool {
                    self == Self::$name
                }
                $(#[$asked])*
                #[cfg(not(feature = "planted-bugs"))]
                $vis fn $question(self) -> bool {
                    false
                }
            )*
        }
    };
}

plants! {
    /// Clients are answered although no leader has heard of this member for long.
    AnswersWhenCutOff pub(crate) answers_when_cut_off
    /// Clients with commands at a lost leader keep their connections, and what they ask next is sent.
    KeepsInFlight pub(crate) keeps_in_flight
    /// A watch event leaves after the answer that shows the new state.
    EventAfterAnswer pub(crate) event_after_answer
    /// A member whose volume was lost takes its permit a second time and votes from the empty disk.
    VotesFromEmptyDisk
    /// Asked by whoever founds members.
    #[must_use]
    pub votes_from_empty_disk
    /// A state that was taken over leaves the list of members as it was.
    RegistryNotInState pub(crate) registry_not_in_state
    /// The store does not note that its state is one that was sent.
    StateWithoutMark pub(crate) state_without_mark
    /// Clients of a member that knows that it was removed are served on.
    RemovedKeepsServing pub(crate) removed_keeps_serving
    /// The voters are changed although the list of members is about to change.
    VotersOverMembers pub(crate) voters_over_members
    /// The store is given what is not durable in this member's log (ZOOKEEPER-4882: memory ahead of the log).
    PersistsAheadOfLog pub(crate) persists_ahead_of_log
    /// The log forgets what the store has not flushed.
    TrimsUnflushed pub(crate) trims_unflushed
    /// Sessions end by the wall clock.
    ExpiresByWallClock pub(crate) expires_by_wall_clock
    /// Commands of a session that has moved to another member are carried out.
    IgnoresAttach pub(crate) ignores_attach
    /// Parts of two states make one (etcd 18055: a snapshot while a newer one is arriving).
    MixesStates pub(crate) mixes_states
    /// A state that came is taken however old it is.
    TakesOldState pub(crate) takes_old_state
    /// Clients are answered from a state in which the end of a session is half-way.
    ReadsHalfWay pub(crate) reads_half_way
    /// A value is left to the store before the cut that has it is durable.
    CoolsUnflushed pub(crate) cools_unflushed
    /// A cut is given to the store while reads of what it overwrites are under way.
    OvertakesColdReads pub(crate) overtakes_cold_reads
    /// The id of a member that is gone is given again.
    ReusesIds pub(crate) reuses_ids
    /// The level rises when a majority can carry the new one out.
    RaisesTooEarly pub(crate) raises_too_early
    /// Commands are carried out by the highest level that the member can do.
    LevelFromLocalFlag pub(crate) level_from_local_flag
    /// The last group of a log is cut where it is damaged, and the member votes on as if it had never acknowledged it.
    DamagedKeepsVoting
    #[cfg_attr(not(feature = "planted-bugs"), allow(dead_code, reason = "the log has this bug only with the feature"))]
    pub(crate) damaged_keeps_voting
    /// A damaged store is emptied, although the log does not hold all that it held.
    EmptiesDamagedStore pub(crate) empties_damaged_store
}

impl Plant {
    /// Whether it is a bug of the feature levels: others are looked for as they were before there were any.
    #[must_use]
    pub fn is_of_levels(self) -> bool {
        self.raises_too_early() || self.level_from_local_flag()
    }

    /// The log is read with the bug of its own that this one comes to.
    pub(crate) fn log(self) -> pharos_log::Plant {
        #[cfg(feature = "planted-bugs")]
        if self.damaged_keeps_voting() {
            return pharos_log::Plant::CutsCorruptTail;
        }
        pharos_log::Plant::None
    }

    pub(crate) fn core(self) -> pharos_paxos::Plant {
        match self {
            #[cfg(feature = "planted-bugs")]
            Self::Core(plant) => plant,
            _ => pharos_paxos::Plant::None,
        }
    }
}
