//! `pharos-node ensemble`: one member, until a signal or a failure ends it.
//!
//! Owns the way from flags to a server, and the signals. Must not know what a server does.

use crate::cli::{EnsembleArgs, TuningArgs};
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use pharos_ensemble::{Admission, Server, ServerConfig, ServerHandle, Tuning};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How soon the end of the server is noticed.
const WATCH: Duration = Duration::from_millis(50);

/// Runs a member.
pub(crate) fn run(args: EnsembleArgs) -> Result<(), Failure> {
    let tuning = tuning(&args.tuning)?;
    let server = Server::start(ServerConfig {
        data_dir: args.data_dir,
        client_addr: args.client_addr,
        peer_addr: args.peer_addr,
        admin_addr: args.admin_addr,
        metrics_addr: Some(args.metrics_addr),
        admission: args.permit_file.map_or(Admission::MemberOnly, Admission::PermitFile),
        token_file: args.admin_token_file,
        peers_file: args.peers_file,
        tuning,
    })?;
    let addresses = server.addresses();
    tracing::info!(
        clients = %addresses.client, peers = %addresses.peer, admin = %addresses.admin, "listening"
    );
    wait(&server)?;
    server.shutdown();
    Ok(server.join()?)
}

fn tuning(args: &TuningArgs) -> Result<Tuning, Failure> {
    if args.election_ms < 4 * args.heartbeat_ms {
        let (election, heartbeat) = (args.election_ms, args.heartbeat_ms);
        let error = anyhow!("--election-ms {election} is less than 4 times --heartbeat-ms {heartbeat}");
        return Err(Failure::users(error));
    }
    Ok(Tuning {
        tick_ms: args.tick_ms,
        heartbeat: Duration::from_millis(args.heartbeat_ms.into()),
        election: Duration::from_millis(args.election_ms.into()),
        max_frame: args.max_frame_bytes as usize,
        max_per_ip: args.max_connections_per_ip,
        max_connections: args.max_connections,
        max_feature_level: args.max_feature_level,
        transfer_bytes_per_s: u64::from(args.transfer_mib_per_s) << 20,
        value_bytes: args.value_memory_mib.map(|mib| u64::from(mib) << 20),
        ..Tuning::default()
    })
}

/// Waits for a signal to end, or for the server's own end.
fn wait(server: &ServerHandle) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals").map_err(Failure::ours)?;
    let waited = runtime.block_on(async {
        tokio::select! {
            signalled = signalled() => signalled,
            () = ended(server) => Ok(()),
        }
    });
    waited.context("cannot wait for signals").map_err(Failure::ours)
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn signalled() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
    }
    Ok(())
}

async fn ended(server: &ServerHandle) {
    while !server.has_ended() {
        tokio::time::sleep(WATCH).await;
    }
}
