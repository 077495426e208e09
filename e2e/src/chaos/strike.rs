//! How each fault is done, and healed.
//!
//! Owns the members, the network between them and their disks. Must not know the order of faults. Invariant: a volume is lost,
//! damaged or given up only while all other members serve, which they do with all that was acknowledged; so a correct
//! ensemble keeps everything.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::damage;
use super::faults::{Fault, Needs};
use crate::command::{output, wait_until};
use crate::local::{LocalEnsemble, PATIENCE, Place};
use crate::netns::Network;
use crate::volume::Volume;
use pharos_crowd::Rng;

/// How long a member may take to notice that its disk is full: it flushes every second.
const NOTICES: Duration = Duration::from_secs(10);

/// The log's bound, its spare segments, the reserve, and some room for the store.
const DISK_MIB: u64 = 352;

/// See the module. The members end before their disks go.
pub(super) struct Field {
    pub(super) ensemble: LocalEnsemble,
    network: Network,
    disks: Vec<Volume>,
    members: usize,
    _images: TempDir,
}

impl Field {
    /// Founds an ensemble, with a host and a disk for one member more. The thread has to be isolated.
    pub(super) fn found(members: usize) -> anyhow::Result<Self> {
        let images = tempfile::tempdir().context("cannot make a directory")?;
        let network = Network::new(members + 1)?;
        let make = |member| Volume::make(images.path(), &format!("disk{member}"), DISK_MIB);
        let disks = (0..=members).map(make).collect::<anyhow::Result<Vec<_>>>()?;
        let places = (0..members).map(|member| place(&network, &disks, member)).collect();
        let ensemble = LocalEnsemble::found_on(places)?;
        Ok(Self { ensemble, network, disks, members, _images: images })
    }

    /// Those of the faults that can be done here.
    pub(super) fn can(&self, faults: &[Fault]) -> Vec<Fault> {
        let possible = |fault: &Fault| match fault.needs() {
            Needs::Nothing => true,
            Needs::Freezing => self.disks.iter().all(Volume::hangs),
            Needs::Five => self.members >= 5,
        };
        faults.iter().copied().filter(possible).collect()
    }

    pub(super) fn all_serve(&self) -> anyhow::Result<()> {
        (0..self.members).try_for_each(|member| self.ensemble.wait_serving(member))
    }

    /// Does it, and heals it.
    pub(super) fn strike(&mut self, fault: Fault, rng: &mut Rng) -> anyhow::Result<()> {
        let any = rng.index(self.members);
        let leader = self.ensemble.leader()?;
        let other = (leader + 1 + rng.index(self.members - 1)) % self.members;
        match fault {
            Fault::Kill => self.restart(&[any], rng),
            Fault::KillLeader => self.restart(&[leader], rng),
            Fault::KillAll => self.restart(&(0..self.members).collect::<Vec<_>>(), rng),
            Fault::Pause => self.stop(any, rng),
            Fault::PauseLeader => self.stop(leader, rng),
            Fault::RollingRestart => (0..self.members).try_for_each(|member| {
                self.restart(&[member], rng)?;
                self.ensemble.wait_serving(member)
            }),
            Fault::Replace => self.ensemble.replace(any),
            Fault::Exchange => self.exchange(any),
            Fault::SlowDisk => self.slow(any, rng),
            Fault::HungLeaderDisk => self.hang(&[leader], rng),
            Fault::HungDisk => self.hang(&[other], rng),
            Fault::HungDisks => self.hang(&(0..self.members).collect::<Vec<_>>(), rng),
            Fault::FullDisk => self.fill(&[other], rng),
            Fault::FullLeaderDisk => self.fill(&[leader], rng),
            Fault::FullDisks => self.fill(&(0..self.members).collect::<Vec<_>>(), rng),
            Fault::CutLog | Fault::FlippedLog | Fault::CutStore | Fault::FlippedStore => {
                self.damage(any, fault, rng)
            }
            _ => self.partition(fault, leader, other, rng),
        }
    }

    fn restart(&mut self, members: &[usize], rng: &mut Rng) -> anyhow::Result<()> {
        members.iter().try_for_each(|member| self.ensemble.kill(*member))?;
        pause(rng, 0, 1_500);
        members.iter().try_for_each(|member| self.ensemble.start(*member))
    }

    fn stop(&self, member: usize, rng: &mut Rng) -> anyhow::Result<()> {
        let pid = self.ensemble.pid(member).context("the member does not run")?.to_string();
        output(Command::new("kill").args(["-STOP", &pid]))?;
        pause(rng, 100, 5_000);
        output(Command::new("kill").args(["-CONT", &pid])).map(drop)
    }

    /// A member comes and takes the vote of another; that one leaves, joins again and takes its vote back.
    fn exchange(&mut self, out: usize) -> anyhow::Result<()> {
        let guest = self.ensemble.add_on(place(&self.network, &self.disks, self.members))?;
        let without = |gone: usize| (0..=self.members).filter(|member| *member != gone).collect::<Vec<_>>();
        self.ensemble.switch(&without(out))?;
        self.ensemble.kill(out)?;
        self.ensemble.renew(out)?;
        self.ensemble.switch(&without(guest))?;
        let volume = self.ensemble.data_dir(guest)?;
        self.ensemble.retire(guest)?;
        std::fs::remove_dir_all(volume).context("cannot remove a volume")
    }

    fn partition(&self, fault: Fault, leader: usize, other: usize, rng: &mut Rng) -> anyhow::Result<()> {
        let all = 0..self.members;
        let apart = |own: &dyn Fn(usize) -> bool| {
            let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
            pairs.filter(|(from, to)| own(*from) != own(*to)).collect::<Vec<_>>()
        };
        let minority =
            |member: usize| (member + self.members - leader) % self.members < self.members.div_ceil(2) - 1;
        // In a row that begins with the leader.
        let row = |member: usize| (member + self.members - leader) % self.members;
        let pairs = |keep: &dyn Fn(usize, usize) -> bool| {
            let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
            pairs.filter(|(from, to)| from != to && !keep(*from, *to)).collect::<Vec<_>>()
        };
        let only = |pairs: Vec<(usize, usize)>, keep: &dyn Fn(&(usize, usize)) -> bool| {
            pairs.into_iter().filter(keep).collect::<Vec<_>>()
        };
        let cuts = match fault {
            Fault::Isolate => apart(&|member| member == other),
            Fault::IsolateLeader => apart(&|member| member == leader),
            Fault::Halves => apart(&minority),
            Fault::Deaf => only(apart(&|member| member == other), &|(_, to)| *to == other),
            Fault::DeafLeader => only(apart(&|member| member == leader), &|(_, to)| *to == leader),
            Fault::Mute => only(apart(&|member| member == other), &|(from, _)| *from == other),
            Fault::MuteLeader => only(apart(&|member| member == leader), &|(from, _)| *from == leader),
            Fault::CutLink => vec![(leader, other), (other, leader)],
            Fault::CutOneWay => vec![(leader, other)],
            Fault::Chain => pairs(&|from, to| row(from).abs_diff(row(to)) == 1),
            Fault::QuorumLoss => pairs(&|from, to| from == other || to == other),
            _ => Vec::new(),
        };
        ensure!(!cuts.is_empty(), "{fault} is no partition");
        cuts.iter().try_for_each(|(from, to)| self.network.cut(*from, *to))?;
        pause(rng, 1_000, 6_000);
        self.network.heal()
    }

    fn hang(&self, members: &[usize], rng: &mut Rng) -> anyhow::Result<()> {
        let hung =
            members.iter().map(|member| self.disks[*member].hang()).collect::<anyhow::Result<Vec<_>>>()?;
        pause(rng, 500, 4_500);
        drop(hung);
        Ok(())
    }

    /// A disk that does a little between long pauses.
    fn slow(&self, member: usize, rng: &mut Rng) -> anyhow::Result<()> {
        for _ in 0..12 {
            let hung = self.disks[member].hang()?;
            pause(rng, 30, 330);
            drop(hung);
        }
        Ok(())
    }

    fn fill(&self, members: &[usize], rng: &mut Rng) -> anyhow::Result<()> {
        let fill = |member: &usize| self.disks[*member].fill();
        let filled = members.iter().map(fill).collect::<anyhow::Result<Vec<_>>>()?;
        let full = |full: bool| {
            wait_until("the members to say whether their disks are full", NOTICES, || {
                let is = |member: &usize| Ok(self.ensemble.status(*member)?["diskFull"] == full);
                let all = members.iter().map(is).collect::<anyhow::Result<Vec<bool>>>()?;
                Ok(all.into_iter().all(|it| it).then_some(()))
            })
        };
        let noticed = full(true);
        pause(rng, 500, 3_000);
        drop(filled);
        noticed?;
        full(false)
    }

    /// Changes a file of a member that does not run. It comes back with all that it had acknowledged, or it says why it does
    /// not: then it has given its identity up and takes its own place as a new member, or it has ended and a member with a
    /// new volume takes its place.
    fn damage(&mut self, member: usize, fault: Fault, rng: &mut Rng) -> anyhow::Result<()> {
        let id = self.ensemble.id(member)?;
        self.ensemble.kill(member)?;
        let volume: PathBuf = self.ensemble.data_dir(member)?;
        let (file, what) = damage::damage(&volume, fault, rng)?;
        self.ensemble.start(member)?;
        let came = wait_until("a damaged member to serve, to come back as new or to end", PATIENCE, || {
            came_back(&mut self.ensemble, member)
        })
        .with_context(|| what.clone())?;
        let why = match &came {
            Return::Serves => return Ok(()),
            Return::GaveUp(why) => why.clone(),
            Return::Ended => self.ensemble.log_of(member)?.lines().last().unwrap_or_default().to_owned(),
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let named = why.contains(&*name) || why.contains(&*volume.to_string_lossy());
        ensure!(named, "{what}: the member does not say where it is damaged: {why}");
        match came {
            Return::GaveUp(_) => self.ensemble.return_as_new(member, id),
            _ => self.ensemble.replace_stopped(member, id),
        }
        .with_context(|| what)
    }
}

/// What became of a member with a damaged volume.
enum Return {
    /// It has lost nothing.
    Serves,
    /// It is blank, for this reason, and waits to be registered.
    GaveUp(String),
    /// It refuses to start.
    Ended,
}

/// None while that is open.
fn came_back(ensemble: &mut LocalEnsemble, member: usize) -> anyhow::Result<Option<Return>> {
    if ensemble.has_ended(member)? {
        return Ok(Some(Return::Ended));
    }
    if ensemble.serves(member) {
        return Ok(Some(Return::Serves));
    }
    let identity = ensemble.identity(member).unwrap_or_default();
    let gave_up = identity["gaveUp"]["why"].as_str().filter(|_| identity["state"] == "blank");
    Ok(gave_up.map(|why| Return::GaveUp(why.to_owned())))
}

fn place(network: &Network, disks: &[Volume], member: usize) -> Place {
    Place { host: network.hosts()[member].clone(), volume: Some(disks[member].path().to_owned()) }
}

/// The length of a fault, or of the peace before it.
pub(super) fn pause(rng: &mut Rng, least_ms: usize, most_ms: usize) {
    std::thread::sleep(Duration::from_millis((least_ms + rng.index(most_ms - least_ms)) as u64));
}
