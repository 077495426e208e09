//! Known bugs are found: `cargo test -p pharos-sim --features planted-bugs`.

use pharos_sim::{Bounds, CorePlant, Plant, run};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds within which a bug must show. Those of the core that are rarer here are left to its own checkers.
const SEEDS: u64 = 6000;

/// The first seed at which a run ends in a violation or a failed assertion.
fn found_at(plant: Plant) -> Option<u64> {
    let bounds = Bounds { plant, ..Bounds::default() };
    (1..=SEEDS).find(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| run(*seed, bounds)));
        !matches!(run, Ok(Ok(_)))
    })
}

macro_rules! planted {
    ($($name:ident: $plant:expr,)*) => {
        /// The bugs that are tried here.
        pub(crate) const TRIED: &[Plant] = &[$($plant,)*];

        $(#[test]
        fn $name() {
            let seed = found_at($plant);
            assert!(seed.is_some(), "{:?} was not found in {SEEDS} seeds", $plant);
            println!("{:?}: seed {}", $plant, seed.unwrap_or_default());
        })*
    };
}

planted! {
    an_ack_before_the_fsync_is_found: Plant::Core(CorePlant::AckBeforeFsync),
    an_early_restamp_is_found: Plant::Core(CorePlant::EarlyRestamp),
    a_late_completion_after_a_promise_is_found: Plant::Core(CorePlant::LateCompletion),
    a_double_count_is_found: Plant::Core(CorePlant::DoubleCount),
    a_truncation_of_committed_entries_is_found: Plant::Core(CorePlant::TruncateCommitted),
    a_forgotten_promise_is_found: Plant::Core(CorePlant::PromiseForgets),
    an_unconfirmed_read_index_is_found: Plant::Core(CorePlant::ReadIndexUnconfirmed),
    answers_of_a_cut_off_member_are_found: Plant::AnswersWhenCutOff,
    clients_kept_after_their_commands_were_lost_are_found: Plant::KeepsInFlight,
    a_vote_from_an_empty_disk_is_found: Plant::VotesFromEmptyDisk,
    an_event_after_its_answer_is_found: Plant::EventAfterAnswer,
    a_seal_chosen_by_the_old_alone_is_found: Plant::Core(CorePlant::SealOfOldMajority),
    a_learner_that_counts_is_found: Plant::Core(CorePlant::LearnerCounted),
    a_seal_that_outlives_its_cut_is_found: Plant::Core(CorePlant::SealOutlivesCut),
    a_list_of_members_that_stays_when_the_state_is_replaced_is_found: Plant::RegistryNotInState,
    a_state_that_the_store_does_not_tell_from_its_own_is_found: Plant::StateWithoutMark,
    a_removed_member_that_serves_is_found: Plant::RemovedKeepsServing,
    voters_that_are_changed_over_the_members_are_found: Plant::VotersOverMembers,
    a_store_ahead_of_the_log_is_found: Plant::PersistsAheadOfLog,
    a_log_that_forgets_what_is_not_flushed_is_found: Plant::TrimsUnflushed,
    sessions_that_end_by_the_wall_clock_are_found: Plant::ExpiresByWallClock,
    commands_of_a_session_that_moved_are_found: Plant::IgnoresAttach,
    a_state_made_of_two_is_found: Plant::MixesStates,
    a_state_older_than_what_is_applied_is_found: Plant::TakesOldState,
    a_state_that_is_read_half_way_is_found: Plant::ReadsHalfWay,
    a_value_that_is_cold_before_it_is_durable_is_found: Plant::CoolsUnflushed,
    a_cut_that_overtakes_the_reads_of_what_it_overwrites_is_found: Plant::OvertakesColdReads,
    an_id_that_is_given_twice_is_found: Plant::ReusesIds,
    a_level_that_rises_before_all_can_do_it_is_found: Plant::RaisesTooEarly,
    a_level_that_is_a_members_own_flag_is_found: Plant::LevelFromLocalFlag,
    a_damaged_member_that_votes_on_is_found: Plant::DamagedKeepsVoting,
    a_damaged_store_that_is_emptied_is_found: Plant::EmptiesDamagedStore,
}
