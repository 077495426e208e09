//! Members on hosts and disks of their own: a leader that cannot hear, or cannot write, is replaced.

use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::{LocalEnsemble, Place};
use pharos_e2e::netns::{Network, isolated};
use pharos_e2e::volume::Volume;
use pharos_e2e::wire::Wire;

use crate::members::create;

const PATIENCE: Duration = Duration::from_secs(30);
const MEMBERS: usize = 3;

/// Waits until someone else leads.
fn replaced(ensemble: &LocalEnsemble, leader: usize) -> anyhow::Result<usize> {
    wait_until("another leader", PATIENCE, || {
        let mut others = (0..MEMBERS).filter(|index| *index != leader);
        Ok(others.find(|index| ensemble.role(*index).is_ok_and(|role| role == "leader")))
    })
}

#[test]
fn a_leader_that_hears_nobody_or_whose_disk_hangs_is_replaced_and_serves_again() {
    let told = isolated(|| {
        let directory = tempfile::tempdir()?;
        let network = Network::new(MEMBERS)?;
        let volumes = (0..MEMBERS).map(|index| Volume::make(directory.path(), &format!("disk{index}"), 1024));
        let volumes = volumes.collect::<anyhow::Result<Vec<_>>>()?;
        let places = network
            .hosts()
            .iter()
            .zip(&volumes)
            .map(|(host, volume)| Place { host: host.clone(), volume: Some(volume.path().to_owned()) });
        let ensemble = LocalEnsemble::found_on(places.collect())?;

        let deaf = ensemble.leader()?;
        (0..MEMBERS).filter(|other| *other != deaf).try_for_each(|other| network.cut(other, deaf))?;
        let next = replaced(&ensemble, deaf)?;
        network.heal()?;
        ensemble.wait_serving(deaf)?;

        let hung = volumes[next].hang()?;
        // A disk is not missed until something is to be written. What the old leader took with it the client asks again.
        wait_until("a write", PATIENCE, || {
            let written = Wire::open(ensemble.address(deaf)?).and_then(|mut wire| create(&mut wire, 0));
            Ok(written.ok())
        })?;
        replaced(&ensemble, next)?;
        drop(hung);
        ensemble.wait_serving(next)
    });
    told.unwrap();
}
