//! `pharos-node backup` and `pharos-node restore`.
//!
//! Owns the way between members, or a data directory, and the place where backups are kept. Must not know what is in one.
//!
//! Invariant: a backup has its manifest only when it is whole.

use crate::admin_client::read_token;
use crate::cli::{BackupArgs, RestoreArgs};
use crate::ensemble_members::Ensemble;
use crate::failure::Failure;
use anyhow::{Context, Result, anyhow};
use pharos_connect::open_blobs;
use pharos_ensemble::{BackupError, BackupManifest, BackupStream, Restore, Restored, ServerError};
use std::path::{Path, PathBuf};

/// Copies the leader's state.
pub(crate) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    copy(args).map_err(Failure::users)
}

fn copy(args: &BackupArgs) -> Result<()> {
    let ensemble = Ensemble::new(&args.ensemble, args.timeout_s)?;
    let token = read_token(&args.admin_token_file)?;
    let stream = ensemble.wait(|| ensemble.leader()?.0.stream("/v1/backup", &token))?;
    let (mut stream, mut manifest) = BackupStream::open(stream)?;
    let place = format!("{}/{}", args.to.trim_end_matches('/'), manifest.title());
    let blobs = open_blobs(&place, &here()?)?;
    while let Some(part) = stream.part()? {
        let name = manifest.add(&part);
        blobs.put(&name, &part)?;
    }
    let text = serde_json::to_vec_pretty(&manifest)?;
    blobs.put(BackupManifest::NAME, &text)?;
    let bytes: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
    println!("{place}: {bytes} bytes, slot {} of generation {}", manifest.slot, manifest.generation);
    Ok(())
}

/// Puts a backup on a data directory.
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let users = |error: anyhow::Error| Failure::users(error);
    let blobs = here().and_then(|here| Ok(open_blobs(&args.from, &here)?)).map_err(users)?;
    let get = |name: &str| match blobs.get(name) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(anyhow!("{}: there is no {name}, so there is no whole backup", args.from)),
        Err(error) => Err(anyhow!("{}: {error}", args.from)),
    };
    let text = get(BackupManifest::NAME).map_err(users)?;
    let manifest = BackupManifest::parse(&text).map_err(ServerError::from)?;
    let to = Restore {
        generation: args.generation,
        host: args.host.clone(),
        peer_port: args.peer_port,
        client_port: args.client_port,
    };
    let before = if args.unless_restored { to.done(&args.data_dir, &manifest)? } else { None };
    let restored = match before {
        Some(restored) => restored,
        None => to.to(&args.data_dir, &manifest, |number| {
            let name = &manifest.parts[number].name;
            get(name)
                .map(Into::into)
                .map_err(|error| BackupError::Part { name: name.clone(), what: error.to_string() }.into())
        })?,
    };
    if let Some(file) = &args.report_file {
        report(&restored, file).map_err(users)?;
    }
    println!(
        "{}: member {} of generation {}, alone, with {} znodes up to zxid 0x{:x}; it is ready to be started",
        args.data_dir.display(),
        restored.member.member_id,
        restored.generation,
        restored.znodes,
        restored.zxid
    );
    Ok(())
}

/// For a program that reads it: the operator.
fn report(restored: &Restored, file: &Path) -> Result<()> {
    let text = serde_json::to_vec(restored)?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn here() -> Result<PathBuf> {
    std::env::current_dir().context("cannot tell the working directory")
}
