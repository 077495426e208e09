//! `pharos-node members`: who belongs to an Ensemble, without Kubernetes.
//!
//! Owns the steps that the operator takes in Kubernetes: register, permit, wait, switch. Must not know how the members
//! carry them out.
//!
//! Invariant: every step can be repeated: what has happened already is not asked for again.

use crate::admin_client::{Admin, Status, read_token, write_permit};
use crate::cli::{MembersArgs, MembersCommand};
use crate::failure::Failure;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Carries out one of the subcommands.
pub(crate) fn run(args: &MembersArgs) -> Result<(), Failure> {
    carry_out(args).map_err(Failure::users)
}

fn carry_out(args: &MembersArgs) -> Result<()> {
    let ensemble = Ensemble::new(&args.ensemble, args.timeout_s)?;
    let token = || {
        let file = args.admin_token_file.as_deref();
        read_token(file.context("this needs --admin-token-file")?)
    };
    match &args.command {
        MembersCommand::List => ensemble.list(),
        MembersCommand::Add { joiner, out } => ensemble.add(&Admin::new(joiner)?, out, &token()?),
        MembersCommand::Switch { voters } => ensemble.switch(voters, &token()?),
        MembersCommand::Remove { member } => ensemble.remove(*member, &token()?),
    }
}

/// Members that are asked until a moment.
pub(crate) struct Ensemble {
    urls: Vec<Admin>,
    deadline: Instant,
}

impl Ensemble {
    pub(crate) fn new(urls: &[String], timeout_s: u32) -> Result<Self> {
        let urls = urls.iter().map(|url| Admin::new(url)).collect::<Result<Vec<_>>>()?;
        Ok(Self { urls, deadline: Instant::now() + Duration::from_secs(timeout_s.into()) })
    }

    /// Tries until there is something or the time is up; the last error says why not.
    pub(crate) fn wait<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match attempt() {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() >= self.deadline => return Err(error),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    pub(crate) fn leader(&self) -> Result<(&Admin, Status)> {
        let mut last = None;
        for url in &self.urls {
            match url.status() {
                Ok(status) if status.role == "leader" => return Ok((url, status)),
                Ok(_) => {}
                Err(error) => last = Some(error.context(format!("{url:?}"))),
            }
        }
        match last {
            Some(error) => Err(error.context("none of the members that answer leads")),
            None => bail!("none of the members leads"),
        }
    }

    fn list(&self) -> Result<()> {
        let (_, status) = self.wait(|| self.leader())?;
        let members = status.membership.context("the leader does not say who belongs to the ensemble")?;
        println!("configuration {}", members.config);
        println!("{:>6}  {:<8}  {:<9}  address", "member", "role", "state");
        for one in &members.members {
            let id = one.member.member_id;
            let seen = status.peers.iter().find(|peer| peer.member_id == id);
            let state = match seen {
                _ if id == status.member_id => "leads",
                Some(peer) if peer.caught_up => "caught up",
                Some(peer) if peer.connected => "behind",
                _ => "away",
            };
            let role = if one.voter { "voter" } else { "learner" };
            println!("{id:>6}  {role:<8}  {state:<9}  {}:{}", one.member.host, one.member.client_port);
        }
        Ok(())
    }

    fn add(&self, joiner: &Admin, out: &Path, token: &str) -> Result<()> {
        let joins = self.wait(|| joiner.identity())?;
        if joins.state != "blank" && joins.state != "joining" {
            bail!("the joiner is not blank but {}: it belongs to an ensemble already", joins.state);
        }
        let mut body = json!({
            "volume": joins.volume, "host": joiner.host(),
            "peerPort": joins.peer_port, "clientPort": joins.client_port,
        });
        let (permit, id) = self.wait(|| {
            let (leader, status) = self.leader()?;
            let members = status.membership.context("the leader does not say who belongs to the ensemble")?;
            let registered = members.members.iter().find(|one| one.member.volume == joins.volume);
            let Some(registered) = registered else {
                // One whose version knows of no levels takes no field of that name.
                if status.feature_level.is_some() {
                    body["featureLevels"] = json!(joins.feature_levels);
                }
                leader.command("POST /v1/members", token, &body.to_string())?;
                bail!("the leader has not registered the joiner yet");
            };
            Ok((members.permit(&leader.identity()?)?, registered.member.member_id))
        })?;
        write_permit(&permit, out)?;
        println!("{}: permit for member {id} to join the ensemble {}", out.display(), permit.cluster_id.0);
        Ok(())
    }

    fn switch(&self, voters: &[u32], token: &str) -> Result<()> {
        let mut wanted = voters.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let config = self.wait(|| {
            let (leader, status) = self.leader()?;
            let members = status.membership.context("the leader does not say who belongs to the ensemble")?;
            if members.voters() == wanted {
                return Ok(members.config);
            }
            let body = json!({ "voters": wanted, "config": members.config });
            leader.command("POST /v1/voters", token, &body.to_string())?;
            bail!("configuration {} has not ended yet", members.config)
        })?;
        println!("configuration {config}: the voters are {wanted:?}");
        Ok(())
    }

    fn remove(&self, member: u32, token: &str) -> Result<()> {
        self.wait(|| {
            let (leader, status) = self.leader()?;
            let mut members = status.membership.iter().flat_map(|list| &list.members);
            if !members.any(|one| one.member.member_id == member) {
                return Ok(());
            }
            leader.command(&format!("DELETE /v1/members/{member}"), token, "")?;
            bail!("member {member} is still registered")
        })?;
        println!("member {member} is not registered");
        Ok(())
    }
}
