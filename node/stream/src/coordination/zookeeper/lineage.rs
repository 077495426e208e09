//! Which znodes the documents of a Pipeline go on in.
//!
//! Owns: the record of a run's lineage, version 1: where its state is, and which document wrote it last.
//! Must not know: what a checkpoint holds.
//! Invariant: the record names a document only once a checkpoint of that one counts. A document that was
//! followed by another one goes on again only in a process that was started after that.
//!
//! A lineage is named after the document that it began with. The next document goes on in the same znodes,
//! so that one generation fences them all, and one `latest` is never ahead of the other. A run that is done,
//! or whose state is not wanted, is left behind, and another lineage begins.

use serde::{Deserialize, Serialize};
use zookeeper_client::Error;

use super::{CoordinationError, Try, Write, Znodes};
use crate::coordination::{Paths, Upgrade};
use crate::plant;

/// The version of the record that this build writes and reads.
const VERSION: u32 = 1;

/// A run of a document, as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The znode below which Pipelines have theirs.
    pub root: String,
    /// The UID of the Pipeline.
    pub uid: String,
    /// The hash of the document.
    pub document: String,
    /// Which run.
    pub run_id: i64,
    /// What it goes on from, if another document came before it.
    pub upgrade: Upgrade,
}

impl Submission {
    fn parent(&self) -> String {
        format!("{}/{}", self.root, self.uid)
    }

    fn record(&self) -> String {
        format!("{}/lineage-{}", self.parent(), self.run_id)
    }

    /// The name of a lineage that begins with it.
    fn first_name(&self) -> String {
        format!("{}-{}", self.document, self.run_id)
    }
}

/// Where a document goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    name: String,
    record: String,
    document: String,
    /// The version of the record when this process came.
    since: i32,
    /// Whether the lineage began with this document.
    first: bool,
}

impl Lineage {
    /// Its name, for where checkpoints are kept: the hash of the document that it began with is cut short.
    #[must_use]
    pub fn short_name(&self) -> String {
        let hash: String = self.name.chars().take_while(|letter| *letter != '-').collect();
        let short: String = hash.chars().take(16).collect();
        format!("{short}{}", &self.name[hash.len()..])
    }

    /// The name of the document's part of it, for what it has in the making: generations begin anew with a
    /// lineage, so a document that comes back in another one has another name.
    #[must_use]
    pub fn part(&self, submission: &Submission) -> String {
        let short: String = self.document.chars().take(16).collect();
        let again = self.name.splitn(3, '-').nth(2).map(|number| format!("-{number}")).unwrap_or_default();
        format!("{short}-{}{again}", submission.run_id)
    }

    /// Its znodes.
    #[must_use]
    pub fn paths(&self, submission: &Submission) -> Paths {
        Paths { run: format!("{}/{}", submission.parent(), self.name) }
    }

    /// Where the plan of its document is, of its znodes.
    pub(super) fn plan(&self, paths: &Paths) -> String {
        format!("{}/plan-{}", paths.run(), self.document)
    }

    /// What its workers work on together: those of another document do not.
    #[must_use]
    pub fn work(&self, submission: &Submission) -> String {
        let run = self.paths(submission).run;
        if self.first { run } else { format!("{run}#{}", submission.document) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The name of the lineage.
    lineage: String,
    /// The document that wrote its last checkpoint, or that it begins with.
    document: String,
}

impl Record {
    fn new(lineage: &str, document: &str) -> Self {
        Self { version: VERSION, lineage: lineage.to_owned(), document: document.to_owned() }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data becomes JSON")
    }

    fn parse(path: &str, bytes: &[u8]) -> Result<Self, CoordinationError> {
        let unreadable = |what: String| CoordinationError::Unreadable { path: path.to_owned(), what };
        let record: Self = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if record.version != VERSION {
            return Err(unreadable(format!("version {}, this build reads {VERSION}", record.version)));
        }
        Ok(record)
    }
}

/// Finds where a document goes on, or begins a lineage for it.
pub(super) async fn find(client: &impl Znodes, submission: &Submission) -> Try<Lineage> {
    let (parent, path) = (submission.parent(), submission.record());
    attempt!(client.ensure(&parent).await);
    let lineage = |name: String, since: i32| {
        let (record, document) = (path.clone(), submission.document.clone());
        let first = name.starts_with(&submission.first_name());
        Try::Done(Lineage { name, record, document, since, first })
    };
    // Another worker of the same document may be quicker each time; then its word is found.
    loop {
        attempt!(client.sync(&parent).await);
        let (bytes, version) = match client.get(&path).await {
            Ok(found) => found,
            Err(Error::NoNode) => {
                let record = Record::new(&submission.first_name(), &submission.document);
                match client.create(&path, &record.bytes()).await {
                    Ok(()) | Err(Error::NodeExists) => continue,
                    Err(error) => return error.into(),
                }
            }
            Err(error) => return error.into(),
        };
        let record = match Record::parse(&path, &bytes) {
            Ok(record) => record,
            Err(error) => return Try::Failed(error),
        };
        if record.document == submission.document {
            return lineage(record.lineage, version);
        }
        let run = Paths { run: format!("{parent}/{}", record.lineage) };
        let done = attempt!(client.exists(&run.completed()).await);
        if submission.upgrade == Upgrade::LastState && !done {
            return lineage(record.lineage, version);
        }
        let name = format!("{}-{}", submission.first_name(), version + 1);
        let record = Record::new(&name, &submission.document);
        match client.set(&path, &record.bytes(), Some(version)).await {
            Ok(_) | Err(Error::BadVersion) => {}
            Err(error) => return error.into(),
        }
    }
}

/// The record as a leader found it, which is to be the same when a checkpoint counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    path: String,
    version: i32,
    /// What is to be written with the next checkpoint: the one before it is of another document.
    succession: Option<Vec<u8>>,
}

impl Known {
    /// What is to be written together with the next checkpoint.
    pub(super) fn write(&self) -> Write {
        match &self.succession {
            None => Write::Check(self.path.clone(), self.version),
            Some(data) => Write::Set(self.path.clone(), data.clone(), self.version),
        }
    }

    /// The record once a checkpoint counts.
    pub(super) fn after_checkpoint(self) -> Self {
        let version = self.version + i32::from(self.succession.is_some());
        Self { version, succession: None, ..self }
    }
}

/// Whether the process may lead.
pub(super) async fn known(client: &impl Znodes, lineage: &Lineage) -> Try<Known> {
    if !plant::reads_without_sync() {
        attempt!(client.sync(&lineage.record).await);
    }
    let (bytes, version) = attempt!(client.get(&lineage.record).await);
    let record = match Record::parse(&lineage.record, &bytes) {
        Ok(record) => record,
        Err(error) => return Try::Failed(error),
    };
    let superseded = || CoordinationError::Superseded { document: record.document.clone() };
    if record.lineage != lineage.name {
        return Try::Failed(superseded());
    }
    let known = Known { path: lineage.record.clone(), version, succession: None };
    if record.document == lineage.document {
        return Try::Done(known);
    }
    // Whoever followed this document did so after this process had come.
    if version != lineage.since {
        return Try::Failed(superseded());
    }
    let succession = Some(Record::new(&lineage.name, &lineage.document).bytes());
    Try::Done(Known { succession, ..known })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_comes_back_in_another_lineage_has_another_name() {
        let submission = |document: &str| Submission {
            root: "/r".to_owned(),
            uid: "u".to_owned(),
            document: document.repeat(32),
            run_id: 2,
            upgrade: Upgrade::LastState,
        };
        let part = |name: &str, document: &str| {
            let submission = submission(document);
            let first = name.starts_with(&submission.first_name());
            let (name, document) = (name.to_owned(), submission.document.clone());
            let lineage = Lineage { name, record: submission.record(), document, since: 0, first };
            (lineage.part(&submission), lineage.short_name())
        };
        let (name, again) = (submission("ab").first_name(), format!("{}-7", submission("ab").first_name()));
        let of = |part: &str, lineage: &str| (part.to_owned(), lineage.to_owned());
        assert_eq!(part(&name, "ab"), of("abababababababab-2", "abababababababab-2"));
        assert_eq!(part(&name, "cd"), of("cdcdcdcdcdcdcdcd-2", "abababababababab-2"));
        assert_eq!(part(&again, "ab"), of("abababababababab-2-7", "abababababababab-2-7"));
        assert_eq!(part(&again, "cd"), of("cdcdcdcdcdcdcdcd-2-7", "abababababababab-2-7"));
    }
}
