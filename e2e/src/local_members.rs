//! Members of a local Ensemble that come and go, as a user makes them without Kubernetes.
//!
//! Must not know how members agree on it: all goes through `pharos-node members`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::command::{output, wait_until};
use crate::local::{LocalEnsemble, Member, PATIENCE, Place};

impl LocalEnsemble {
    /// A new member, which has no vote yet; it serves when this returns.
    ///
    /// # Errors
    /// If it does not get that far.
    pub fn add(&mut self) -> anyhow::Result<usize> {
        self.add_on(Place::loopback())
    }

    /// The same at this place.
    ///
    /// # Errors
    /// If it does not get that far.
    pub fn add_on(&mut self, place: Place) -> anyhow::Result<usize> {
        let index = self.size();
        self.members.push(Member::new(place, &self.program)?);
        self.start(index)?;
        self.admit(index)?;
        Ok(index)
    }

    /// A member loses its volume and is replaced by a new one at its place; it serves when this returns.
    ///
    /// # Errors
    /// If the others do not serve, or do not take it in.
    pub fn replace(&mut self, index: usize) -> anyhow::Result<()> {
        let lost = self.id(index)?;
        self.kill(index)?;
        self.replace_stopped(index, lost)
    }

    /// The same of one that does not run, and had this id.
    ///
    /// # Errors
    /// If the others do not serve, or do not take it in.
    pub fn replace_stopped(&mut self, index: usize, lost: u64) -> anyhow::Result<()> {
        self.lose(index)?;
        self.start(index)?;
        self.return_as_new(index, lost)
    }

    /// A member that gave its identity up takes the place of the one that it was; it serves when this returns.
    ///
    /// # Errors
    /// If the others do not serve, or do not take it in.
    pub fn return_as_new(&mut self, index: usize, was: u64) -> anyhow::Result<()> {
        self.admit(index)?;
        let mut voters = self.voters()?;
        voters.retain(|voter| *voter != was);
        voters.push(self.id(index)?);
        self.members_command("switch", |command| command.args(voters.iter().map(ToString::to_string)))?;
        self.wait_serving(index)
    }

    /// Turns one bit over in the log of a member that does not run: in the file's block of that number, of those that say
    /// something, counted from the end if it is negative.
    ///
    /// # Errors
    /// If there is no such block, or it cannot be written.
    pub fn rot(&self, index: usize, file: &str, block: isize) -> anyhow::Result<()> {
        const BLOCK: usize = 4096;
        let path = self.directory.path().join(index.to_string()).join("log").join(file);
        let mut bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let written =
            bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        let written: Vec<usize> = written.map(|(number, _)| number * BLOCK).collect();
        let at =
            if block < 0 { written.len().checked_add_signed(block) } else { usize::try_from(block).ok() };
        let at = at.and_then(|at| written.get(at)).context("there is no such block")?;
        let byte = bytes.get_mut(at + 100).context("a block is longer")?;
        *byte ^= 8;
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What a member says of its volume.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn identity(&self, index: usize) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get(index, "/v1/identity")?)?)
    }

    /// From here on these members vote, and no others.
    ///
    /// # Errors
    /// If the members do not get that far.
    pub fn switch(&self, voters: &[usize]) -> anyhow::Result<()> {
        let ids = voters.iter().map(|index| self.id(*index)).collect::<anyhow::Result<Vec<_>>>()?;
        self.members_command("switch", |command| command.args(ids.iter().map(ToString::to_string)))?;
        voters.iter().try_for_each(|index| self.wait_serving(*index))
    }

    /// Ends the process of a member for good.
    ///
    /// # Errors
    /// If it is not the last one, or does not run.
    pub fn retire(&mut self, index: usize) -> anyhow::Result<()> {
        ensure!(index + 1 == self.size(), "members retire from the end");
        self.kill(index)?;
        self.members.truncate(index);
        Ok(())
    }

    /// What a member says that it does: `leader`, `learner`, `removed` and so on.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn role(&self, index: usize) -> anyhow::Result<String> {
        self.status(index)?["role"].as_str().map(str::to_owned).context("a status has a role")
    }

    /// What a member says of itself at its admin port.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self, index: usize) -> anyhow::Result<Value> {
        serde_json::from_str(&self.get(index, "/v1/status")?).context("a status is JSON")
    }

    fn admit(&self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get(index).context("there is no such member")?;
        let joiner = member.url();
        let permit = self.directory.path().join("permit.json");
        self.members_command("add", |command| command.args(["--joiner", &joiner, "--out"]).arg(&permit))?;
        self.wait_serving(index)
    }

    /// Lets the Ensemble go on from one member's volume, without the others, as `pharos-node recover` does; gives what
    /// it says. No member may run.
    ///
    /// # Errors
    /// If that is refused.
    pub fn recover(&self, index: usize, with: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--log", "warn", "recover", "--data-dir"]);
        output(command.arg(self.data_dir(index)?).args(with))
    }

    /// Copies the state to a place below this directory, which is given.
    ///
    /// # Errors
    /// If no member leads, or it cannot be copied.
    pub fn backup(&self, to: &Path) -> anyhow::Result<PathBuf> {
        let mut command = Command::new(&self.program);
        command.args(["--log", "warn", "backup"]);
        for member in &self.members {
            command.args(["--ensemble", &member.url()]);
        }
        command.arg("--admin-token-file").arg(self.directory.path().join("token")).arg("--to").arg(to);
        let said = output(&mut command)?;
        Ok(said.split(": ").next().context("it says where the backup is")?.into())
    }

    /// Puts a backup on a member's volume; gives what is said.
    ///
    /// # Errors
    /// If that is refused.
    pub fn restore(&self, index: usize, from: &Path) -> anyhow::Result<String> {
        output(&mut self.restoring(index, from)?)
    }

    /// As the operator has it done, who may ask again: gives the report.
    ///
    /// # Errors
    /// If that is refused.
    pub fn restore_again(&self, index: usize, from: &Path) -> anyhow::Result<Value> {
        let report = self.directory.path().join("report.json");
        output(self.restoring(index, from)?.arg("--unless-restored").arg("--report-file").arg(&report))?;
        let text = std::fs::read(&report).context("it writes a report")?;
        serde_json::from_slice(&text).context("a report is JSON")
    }

    fn restoring(&self, index: usize, from: &Path) -> anyhow::Result<Command> {
        let member = self.members.get(index).context("there is no such member")?;
        let mut command = Command::new(&self.program);
        command.args(["--log", "warn", "restore", "--from"]).arg(from);
        command.arg("--data-dir").arg(self.data_dir(index)?);
        command.args(["--peer-port", &member.peer.to_string(), "--client-port", &member.client.to_string()]);
        Ok(command)
    }

    /// The volume of a member that does not run is lost.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn lose(&self, index: usize) -> anyhow::Result<()> {
        let volume = self.data_dir(index)?;
        std::fs::remove_dir_all(&volume).with_context(|| format!("cannot remove {}", volume.display()))
    }

    /// What a member wrote to its log.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn log_of(&self, index: usize) -> anyhow::Result<String> {
        let path = self.directory.path().join(format!("{index}.log"));
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A member loses its volume, whose place a new one takes; it serves, without a vote, when this returns.
    ///
    /// # Errors
    /// If the others do not take it in.
    pub fn renew(&mut self, index: usize) -> anyhow::Result<()> {
        self.lose(index)?;
        self.enlist(index)
    }

    /// A member without a volume gets a new one; it serves, without a vote, when this returns.
    ///
    /// # Errors
    /// If the others do not take it in.
    pub fn enlist(&mut self, index: usize) -> anyhow::Result<()> {
        self.start(index)?;
        self.admit(index)
    }

    /// A member's id, once it has one.
    ///
    /// # Errors
    /// If it does not get one in time.
    pub fn id(&self, index: usize) -> anyhow::Result<u64> {
        wait_until("a member's id", PATIENCE, || {
            let identity = self.identity(index).ok();
            Ok(identity.and_then(|identity| identity["memberId"].as_u64()))
        })
    }

    fn voters(&self) -> anyhow::Result<Vec<u64>> {
        let status = self.status(self.leader()?)?;
        let members = status["membership"]["members"].as_array().context("a leader knows the members")?;
        let voters = members.iter().filter(|member| member["voter"] == true);
        Ok(voters.filter_map(|member| member["memberId"].as_u64()).collect())
    }

    fn members_command(
        &self,
        name: &str,
        with: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--log", "warn", "members"]);
        for member in &self.members {
            command.args(["--ensemble", &member.url()]);
        }
        command.arg("--admin-token-file").arg(self.directory.path().join("token")).arg(name);
        output(with(&mut command))
    }
}
