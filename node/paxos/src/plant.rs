//! Known bugs, planted on demand, so that the checkers can prove that they would see them.
//!
//! Owns the switch and nothing else. With the feature `planted-bugs` off the type has one value and every
//! question below is the constant `false`.

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident $question:ident)*) => {
        /// Which known bug this core has.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Plant {
            /// None: the protocol as it is meant.
            #[default]
            None,
            $($(#[$doc])* #[cfg(feature = "planted-bugs")] $name,)*
        }

        impl Plant {
            /// Every bug that this build can plant.
            pub const ALL: &[Plant] = &[$(#[cfg(feature = "planted-bugs")] Plant::$name,)*];

            $(
                #[cfg(feature = "planted-bugs")]
                pub(crate) fn $question(self) -> bool {
                    self == Plant::$name
                }
                #[cfg(not(feature = "planted-bugs"))]
                pub(crate) fn $question(self) -> bool {
                    false
                }
            )*
        }
    };
}

plants! {
    /// Entries are acknowledged, and counted by the leader itself, when their write is issued.
    AckBeforeFsync ack_before_fsync
    /// The accepted ballot is restamped at the first chunk of a sync, when most of the prefix is missing.
    EarlyRestamp early_restamp
    /// The completion of a write is credited to the ballot that is current when it arrives, not to the one
    /// it was issued under: after a Promise and the new leader's sync, an old write's completion
    /// acknowledges the new leader's entries, which are still under way. (To acknowledge the old leader's
    /// would be harmless: the Promise went out after, and reported, every write issued before it.)
    LateCompletion late_completion
    /// Prepare goes out before the candidate's own promise is durable: that is written only with the adopted
    /// prefix. After a crash in between the same round is taken again, with other entries.
    BallotReuse ballot_reuse
    /// Acknowledgements are counted instead of the members that sent them.
    DoubleCount double_count
    /// A follower cuts its log where a sync says, however old that sync is.
    TruncateCommitted truncate_committed
    /// A Promise is sent before it is durable, and forgotten by a crash.
    PromiseForgets promise_forgets
    /// A read index is answered by whoever believes to lead, without asking a quorum.
    ReadIndexUnconfirmed read_index_unconfirmed
    /// A seal that is cut from the log stays the one that its configuration ends with.
    SealOutlivesCut seal_outlives_cut
    /// A seal is taken for chosen when the old voters hold it, whatever the new ones do.
    SealOfOldMajority seal_of_old_majority
    /// The leader counts learners.
    LearnerCounted learner_counted
}
