//! Known bugs, planted on demand, so that the simulator can prove that it would see them.
//!
//! Owns: the switch, one for each thread of a test. Outside this crate's tests every question is the
//! constant `false`.
//! Must not know: what the questions are asked for.
//! Invariant: no schedule knows which bug it looks for.

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident $question:ident)*) => {
        /// A known bug.
        #[cfg(test)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Plant {
            $($(#[$doc])* $name,)*
        }

        #[cfg(test)]
        impl Plant {
            /// Every bug.
            pub(crate) const ALL: &[Plant] = &[$(Plant::$name,)*];
        }

        $(
            #[cfg(test)]
            pub(crate) fn $question() -> bool {
                PLANTED.get() == Some(Plant::$name)
            }
            #[cfg(not(test))]
            #[inline(always)]
            pub(crate) const fn $question() -> bool {
                false
            }
        )*
    };
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or none.
#[cfg(test)]
pub(crate) fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}

plants! {
    /// A coordinator that was deposed publishes and completes: the generation is not checked.
    IgnoresGeneration ignores_generation
    /// A transaction whose answer was lost counts as done.
    UnclearIsDone unclear_is_done
    /// A new coordinator reads which checkpoint counts before it raises the generation.
    ReadsBeforeFence reads_before_fence
    /// A new coordinator reads without `sync` which checkpoint counts.
    ReadsWithoutSync reads_without_sync
    /// A grouping keeps its state at a barrier before it takes in what came ahead of the barrier.
    BarrierBeforeData barrier_before_data
    /// The offset that is kept is that of a round which the state does not hold.
    OffsetAheadOfState offset_ahead_of_state
    /// At the end of the input outputs become visible without a last checkpoint.
    NoFinalEpoch no_final_epoch
    /// Who takes over a run whose input has ended notes that it is done, and leaves the outputs.
    NotesWithoutCommit notes_without_commit
    /// A thread takes up the state of key groups that another owns.
    GroupsOwnedTwice groups_owned_twice
    /// What the checkpoint before needed is deleted, though this one needs it too.
    CleansLive cleans_live
    /// A split without a row yet does not hold time back.
    IdleEndsTime idle_ends_time
    /// What ended before a barrier is not in the checkpoint.
    ForgetsEnded forgets_ended
    /// A barrier is placed when the first worker holds its sources.
    PlacesEarly places_early
    /// State files are named without the generation.
    SharesNames shares_names
    /// A table that did not change since the last checkpoint is left out of the next.
    DropsUnchanged drops_unchanged
    /// Of a table that was updated only the updates are in a checkpoint.
    ForgetsBase forgets_base
    /// What an update holds of a key is added to what was there before.
    AddsUpdates adds_updates
    /// A key whose windows are over since the base is not said to be gone.
    ForgetsGone forgets_gone
    /// A part of a table ends among the entries of a key group, which the next part is said to hold.
    DividesKeyGroups divides_key_groups
    /// What was taken out of a queue is not told to its sender.
    KeepsCredit keeps_credit
}
