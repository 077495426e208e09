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
    /// The stamp of a leader's prefix is written before the prefix is (ZOOKEEPER-4643: the epoch before the history).
    StampBeforePrefix stamp_before_prefix
    /// What a sync cuts from the log in memory stays in the log on the disk (ZOOKEEPER-5094: a TRUNC that is not
    /// carried out).
    CutNotWritten cut_not_written
    /// A follower's log is taken for a prefix as long as it is not longer (ZOOKEEPER-2846: a DIFF that lacks
    /// transactions).
    SyncTrustsLength sync_trusts_length
    /// A Promise that comes late counts as an acknowledgement of all that its sender has.
    LatePromiseMatches late_promise_matches
    /// A candidate believes what a single promiser says to be chosen, whatever its own log holds there.
    CommitFromPromise commit_from_promise
    /// A leader takes another change of the voters while one is under way.
    TwoSeals two_seals
    /// Half of an even number of voters is a majority.
    HalfIsEnough half_is_enough
    /// A confirmed read index is answered before the leader's own EpochStart is chosen.
    ReadBeforeEpochStart read_before_epoch_start
    /// A Promise waits for the oldest write under way, not for all: as if promises had a file of their own.
    PromiseOvertakes promise_overtakes
    /// At a start every seal in the log counts as chosen.
    SealAtRestart seal_at_restart
    /// The longest log is adopted, whatever ballots it has accepted.
    LongestLogWins longest_log_wins
}
