//! `pharos-node recover`: an Ensemble goes on from one survivor, without Kubernetes.
//!
//! Owns what the user is told before and after. Must not know how a generation begins.
//!
//! Invariant: nothing is changed without the flag that accepts the loss.

use crate::cli::RecoverArgs;
use crate::failure::Failure;
use pharos_ensemble::AtRest;

/// Shows what the data directory holds, and goes on from it if that is wanted.
pub(crate) fn run(args: &RecoverArgs) -> Result<(), Failure> {
    let mut volume = AtRest::open(&args.data_dir)?;
    let holdings = volume.holdings()?;
    let (member, generation) = (volume.member(), holdings.founding.generation);
    println!("member {member} of the ensemble {}, generation {generation}", volume.cluster());
    println!("accepted ballot {}, last slot {}", holdings.accepted, holdings.end);
    println!(
        "slots not known to be chosen: {}; zxid of the state, without the last slots: 0x{:x}",
        holdings.end.0.saturating_sub(holdings.committed.0),
        volume.zxid(),
    );
    if let Some(damage) = volume.damage() {
        println!("this is what can be read of its log: {damage}");
    }
    for other in holdings.registry.members().iter().filter(|other| other.id != member) {
        let role = if holdings.registry.membership().has(other.id) { "voter" } else { "learner" };
        println!("without it: {role} {} at {}:{}", other.id, other.host, other.peer_port);
    }
    if !args.accept_lost_writes {
        println!(
            "nothing was changed. Of several survivors, go on from the one with the highest accepted ballot,"
        );
        println!("and of those from the one with the highest last slot, with --accept-lost-writes");
        return Ok(());
    }
    let begun = volume.begin_generation(args.generation)?;
    println!(
        "generation {begun} begins with member {member} alone; its data directory is ready to be started"
    );
    Ok(())
}
