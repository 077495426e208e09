//! How a command fails: whose fault, and what is said.
//!
//! Owns exit codes. Must not know commands.

use anyhow::Error;
use pharos_ensemble::ServerError;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    fault: Fault,
    error: Error,
}

/// Who can put it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Users,
    Ours,
}

impl Failure {
    /// Flags, files, addresses, the disk: exit code 2.
    pub(crate) fn users(error: impl Into<Error>) -> Self {
        Self { fault: Fault::Users, error: error.into() }
    }

    /// Everything else: exit code 1.
    pub(crate) fn ours(error: impl Into<Error>) -> Self {
        Self { fault: Fault::Ours, error: error.into() }
    }

    /// Says what was wrong, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // The chain of causes in one line, as far as they do not repeat themselves.
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        eprintln!("pharos-node: {text}");
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self.fault {
            Fault::Users => 2,
            Fault::Ours => 1,
        }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        if error.is_users_fault() { Self::users(error) } else { Self::ours(error) }
    }
}
