//! The operator's command line. Owns flags and start-up order. Must not know what a controller does.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::Client;
use pharos_crds::{PullPolicy, names, schema};
use pharos_operator::admin::AdminClient;
use pharos_operator::context::Context;
use pharos_operator::controller::{self, Scope};
use pharos_operator::election::{Elector, Leadership};
use pharos_operator::health;
use pharos_operator::pods::Image;
use tokio_util::sync::CancellationToken;

/// Runs Pharos on Kubernetes.
#[derive(Parser)]
#[command(name = "pharos-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controllers.
    Run(RunArgs),
    /// Print the CRDs as YAML, for `kubectl apply --server-side -f -` or a GitOps repository.
    Crd,
    /// Print the rules of the operator's role, as the chart has them.
    #[command(hide = true)]
    Rbac,
    /// Ask an operator whether it is ready; exit code 1 if it is not. For `helm test`.
    Probe {
        /// Host and port of the operator.
        address: String,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Image of nodes whose resource names none.
    #[arg(long, env = "PHAROS_NODE_IMAGE")]
    node_image: String,
    /// When the kubelet pulls that image.
    #[arg(long, env = "PHAROS_NODE_IMAGE_PULL_POLICY", default_value = "if-not-present")]
    node_image_pull_policy: Pull,
    /// Namespaces to look in, separated by commas. All, if empty.
    #[arg(long, env = "PHAROS_WATCH_NAMESPACES", default_value = "", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "PHAROS_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the lease.
    #[arg(long, env = "PHAROS_LEASE_NAME", default_value = "pharos-operator")]
    lease_name: String,
    /// Name of this process among those that ask for the lease.
    #[arg(long, env = "POD_NAME", default_value = "pharos-operator")]
    identity: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pull {
    #[value(alias = "Always")]
    Always,
    #[value(alias = "IfNotPresent")]
    IfNotPresent,
    #[value(alias = "Never")]
    Never,
}

impl From<Pull> for PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::Always => Self::Always,
            Pull::IfNotPresent => Self::IfNotPresent,
            Pull::Never => Self::Never,
        }
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Crd => {
            let documents: Vec<String> = schema::files().into_iter().map(|(_, text)| text).collect();
            write(&documents.concat())
        }
        Command::Rbac => write(&pharos_operator::rbac::yaml()),
        Command::Probe { address } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(probe(&address))
        }
        Command::Run(arguments) => {
            tracing_subscriber::fmt()
                .with_ansi(std::io::stdout().is_terminal())
                .with_env_filter(
                    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
                )
                .init();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run(arguments))
        }
    }
}

fn write(text: &str) -> Result<()> {
    use std::io::Write as _;
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}

async fn probe(address: &str) -> Result<()> {
    let (host, port) = address.rsplit_once(':').context("an address is host:port")?;
    let port = port.parse().with_context(|| format!("{port} is not a port"))?;
    let answer = AdminClient::new(port, Duration::from_secs(5)).ready(host).await?;
    write(&answer)
}

async fn run(arguments: RunArgs) -> Result<()> {
    let client = Client::try_default().await.context("no cluster is configured")?;
    let leadership = Leadership::default();
    let context = Arc::new(Context::new(
        client.clone(),
        AdminClient::new(names::PORT_ADMIN, Duration::from_secs(2)),
        Image::default_of(&arguments.node_image, arguments.node_image_pull_policy.into()),
        leadership.clone(),
        arguments.identity.clone(),
    ));
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{}: cannot listen", arguments.listen))?;
    tokio::spawn(serve(listener, context.clone(), stop.clone()));
    let version = client.apiserver_version().await.context("the API server does not answer")?;
    tracing::info!(version = version.git_version, "connected");
    context.progress.set_ready();
    tokio::spawn(stop_on_signal(stop.clone()));

    let me = format!("{}_{}", arguments.identity, pharos_operator::random::hex(4));
    let mut elector =
        Elector::new(client, &arguments.lease_namespace, &arguments.lease_name, &me, leadership);
    tokio::select! {
        () = elector.acquire() => {}
        () = stop.cancelled() => return Ok(()),
    }
    context.metrics.leads();
    lead(&context, &arguments.watch_namespaces, &mut elector, stop).await
}

async fn lead(
    context: &Arc<Context>,
    namespaces: &[String],
    elector: &mut Elector,
    stop: CancellationToken,
) -> Result<()> {
    let mut controllers = tokio::task::JoinSet::new();
    for scope in scopes(namespaces) {
        controllers.spawn(controller::ensembles(context.clone(), scope.clone(), stop.clone()));
        controllers.spawn(controller::pipelines(context.clone(), scope, stop.clone()));
    }
    tokio::select! {
        // Another process may already act: nothing is finished first.
        () = elector.keep() => anyhow::bail!("the lease is lost"),
        () = stop.cancelled() => {}
    }
    let drained = async { while controllers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(20), drained).await.is_ok() {
        elector.release().await;
    }
    Ok(())
}

fn scopes(namespaces: &[String]) -> Vec<Scope> {
    let named: Vec<Scope> = namespaces
        .iter()
        .filter(|name| !name.is_empty())
        .map(|name| Scope::Namespace(name.clone()))
        .collect();
    if named.is_empty() { vec![Scope::All] } else { named }
}

async fn serve(listener: tokio::net::TcpListener, context: Arc<Context>, stop: CancellationToken) {
    if let Err(error) = axum::serve(listener, health::routes(context)).await {
        tracing::error!(%error, "the operator's own port failed");
        stop.cancel();
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to stop");
    stop.cancel();
}
