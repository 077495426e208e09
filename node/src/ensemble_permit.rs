//! `pharos-node permit`: founds an Ensemble without Kubernetes.
//!
//! Owns asking blank members who they are. Must not know what a founder does with its permit.
//!
//! Invariant: a permit is written only when every founder has answered that it is blank.

use crate::admin_client::{Admin, write_permit};
use crate::cli::PermitArgs;
use crate::failure::Failure;
use anyhow::{Context, Result, bail};
use pharos_ensemble::{Id128, Permit, PermitFounder};
use std::fs::File;
use std::io::Read;

/// Asks the founders and writes the permit.
pub(crate) fn run(args: &PermitArgs) -> Result<(), Failure> {
    found(args).map_err(Failure::users)
}

fn found(args: &PermitArgs) -> Result<()> {
    let mut founders = Vec::new();
    for (url, member_id) in args.founders.iter().zip(1..) {
        let admin = Admin::new(url)?;
        let identity = admin.identity().with_context(|| format!("founder {url}"))?;
        if identity.state != "blank" {
            bail!("founder {url} is not blank but {}: it belongs to an ensemble already", identity.state);
        }
        founders.push(PermitFounder {
            member_id,
            volume: identity.volume,
            host: admin.host().to_owned(),
            peer_port: identity.peer_port,
            client_port: identity.client_port,
        });
    }
    let permit = Permit::new(random()?, random()?, founders);
    write_permit(&permit, &args.out)?;
    println!("{}: permit for the ensemble {}", args.out.display(), permit.cluster_id.0);
    Ok(())
}

fn random() -> Result<Id128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes))?;
    Ok(Id128(bytes))
}
