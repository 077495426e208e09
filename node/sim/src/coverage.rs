//! What a run has met. A run that never met a fault proves nothing about it, so it fails.

use std::fmt;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Coverage {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// What never happened.
            #[must_use]
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$name == 0 { missing.push(stringify!($name)); })*
                missing
            }
        }

        impl fmt::Display for Coverage {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:<24} {}", stringify!($name).replace('_', " "), self.$name)?;)*
                Ok(())
            }
        }
    };
}

coverage! {
    /// Events of the simulation.
    events,
    /// Operations that a client saw succeed or fail with a definite answer.
    acknowledged,
    /// Operations whose fate their client does not know.
    unknown,
    /// Frames lost.
    lost_frames,
    /// Frames delivered twice.
    duplicated_frames,
    /// Frames that overtook an earlier one.
    reordered_frames,
    /// Connections between members that broke.
    broken_links,
    /// Directions in which everything came late for a while, in order.
    clogged_links,
    /// Partitions in both directions.
    partitions,
    /// Partitions in one direction.
    one_way_partitions,
    /// Members that stopped at any moment.
    crashes,
    /// Crashes in the middle of a disk operation.
    crashes_in_io,
    /// Crashes that lost something written and not synced.
    lost_unsynced_tails,
    /// Crashes that tore a sector.
    torn_sectors,
    /// Starts from a disk with a history.
    restarts,
    /// Starts from a cut in the store, not from the log's beginning.
    restarts_from_store,
    /// States that a member took over, because it lacked what was trimmed.
    installed_states,
    /// States that were sent in several parts.
    states_cut,
    /// Wall clocks that were set.
    clock_jumps,
    /// Volumes that were lost with all they held.
    lost_volumes,
    /// Starts on an empty disk, which must not vote.
    blank_starts,
    /// Processes that did not run for a while and went on.
    pauses,
    /// Ballots that came to lead.
    leaders,
    /// Sessions resumed on another connection.
    sessions_resumed,
    /// Sessions that ran out.
    sessions_expired,
    /// Watch events that reached a client.
    watch_events,
    /// Syncs that were answered.
    syncs,
    /// Reads that waited for room in their client's output, and got it.
    reads_held_back,
    /// Values that were read from the store, since they were not in memory.
    cold_reads,
    /// Those among them whose node was written before the store was read.
    cold_reads_overtaken,
    /// Starts from a store with more values than there is memory for.
    restarts_with_cold_values,
    /// Blank machines that came to be members.
    learners_joined,
    /// Learners that were removed again.
    learners_dismissed,
    /// Seals that a leader took.
    seals_proposed,
    /// Configurations that ended.
    voters_switched,
    /// More voters than before.
    ensembles_grown,
    /// Fewer voters than before.
    ensembles_shrunk,
    /// Fewer than a majority of the old voters stayed.
    majorities_replaced,
    /// No old voter stayed.
    all_replaced,
    /// Configurations that ended without a vote for the leader that ended them.
    leaders_left,
    /// Ensembles that went on from one volume when all others were lost.
    generations,
    /// Stops in the middle of beginning to.
    generations_interrupted,
    /// Voters without their volume that gave their place to others.
    lost_members_replaced,
    /// Members that learned that they were removed.
    removed_told,
    /// Removed members that were switched off.
    members_switched_off,
    /// Sets of voters that came about as they were wanted.
    wishes_granted,
    /// Requests for other members or voters that were refused.
    requests_refused,
    /// Ends of sessions of which a turn left a part to the next.
    endings_in_slices,
    /// Connections that had to wait for one.
    reads_fenced,
    /// Cuts for the store of which a turn left a part to the next.
    cuts_in_slices,
    /// States that went on after a broken connection where they stood.
    transfers_resumed,
    /// Parts of states that had to wait for the rate.
    transfers_held_back,
    /// States that a blank machine took over.
    states_of_joiners,
    /// Blank machines that stopped after they had promised and before they had a state.
    joiners_crashed_before_state,
    /// Starts with a state in the store that the log has not been cut to yet.
    restarts_ahead_of_log,
    /// Answers to clients of a member without a vote.
    learners_answered,
    /// Seals that a leader took and that were never chosen, or by another leader.
    seals_voided,
    /// Leaders that stopped with a seal of which it was not known whether it is chosen.
    leaders_crashed_with_seal,
    /// Starts of a version that knows of the first feature level alone.
    early_starts,
    /// Versions that were installed over an earlier one.
    upgrades,
    /// And over a later one.
    downgrades,
    /// Levels that a leader raised.
    levels_raised,
    /// Links that did not come about since one side cannot carry out what the other holds.
    links_refused_by_level,
    /// Machines that were not registered, for the same reason.
    joiners_refused,
    /// Members that went back to an earlier version and found that they cannot.
    members_beyond,
    /// Nodes with a time to live.
    ttl_nodes,
    /// Those that were refused, since the level was not raised yet.
    ttl_nodes_refused,
    /// Nodes whose time to live was over, and that were deleted.
    nodes_swept,
    /// Crashes within a group on a disk that writes sector by sector, of which some got there.
    torn_between_sectors,
    /// The same on a disk that writes blocks of 4 KiB.
    torn_between_blocks,
    /// Bits of a log that turned over long after they were written.
    flipped_blocks,
    /// Blocks of a log that were never written although the disk said so.
    lost_blocks,
    /// Blocks of a log that were written over others.
    misdirected_blocks,
    /// Rows of a store that changed by themselves.
    changed_rows,
    /// Rows of a store that were not there any more.
    lost_rows,
    /// Writes to the log that failed, and ended the process.
    failed_writes,
    /// Syncs of the log that failed, and ended the process.
    failed_syncs,
    /// Spare segments for which there was no room.
    spares_refused,
    /// Processes that ended since the log had no segment left and the disk no room for one.
    logs_without_room,
    /// Disks that completed nothing for seconds.
    hung_disks,
    /// Logs that went on after damage, since the store had what was damaged.
    logs_mended,
    /// Stores that were made anew from the log.
    stores_mended,
    /// Volumes that were damaged and became another member's.
    identities_given_up,
    /// Links that came about only once the other side knew who asked.
    turned_away,
}
