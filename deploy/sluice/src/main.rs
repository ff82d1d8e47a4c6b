//! The `sluice` command.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use sluice::demo;
use sluice::dev::{self, Dev};
use sluice::folder::{self, Folder};
use sluice::hardening;
use sluice::inbox_args::InboxArgs;
use sluice_control_plane::{Certificate, Database};
use sluice_core::address::UrlPolicy;
use sluice_data_plane::Admission;
use sluice_tls::Files;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An open integration gateway: triggers in, templated HTTPS calls out, configured over gRPC.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the main job as it happens, and end.
    Demo {
        /// Leave everything running afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// Run both planes in one process on a data folder.
    Dev(DevArgs),
    /// Run a control plane.
    ControlPlane(ControlPlaneArgs),
    /// Run a data plane.
    DataPlane(DataPlaneArgs),
    /// Move a control plane from the file in its data folder to PostgreSQL, as it is: data planes notice nothing.
    ///
    /// Stop the control plane, move it, and start it again with --database and the same data folder, whose keys it goes on using.
    /// Everything is copied, compared and then kept, or nothing is. The file is left as it was; start no control plane on it again:
    /// data planes would meet two stores of one name.
    Migrate(MigrateArgs),
    /// Print a fresh master key as a line for the ring. Whoever has it opens every secret: write it to a file of mode 0600.
    ///
    /// To change the master key, append the line to the ring of every plane (`sluice master-key 2026-11 >> master.key`), then move it to
    /// the top in the ring of the control plane, which takes it up within 10 seconds. ListMasterKeys shows when the old one can go.
    MasterKey {
        /// What it is called: letters, digits, `_`, `-`, `.`; at most 64.
        #[arg(default_value = "first")]
        id: String,
    },
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Where everything is kept; made with mode 0700.
    #[arg(long, default_value = "./sluice-data", env = "SLUICE_DATA")]
    data: PathBuf,
    /// The control plane's gRPC.
    #[arg(long, default_value = "127.0.0.1:7070")]
    grpc: SocketAddr,
    /// The control plane's health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:9091")]
    control_health: SocketAddr,
    /// The data plane's triggers.
    #[arg(long, default_value = "127.0.0.1:8080")]
    ingress: SocketAddr,
    /// The data plane's health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:9090")]
    health: SocketAddr,
    #[command(flatten)]
    egress: EgressArgs,
}

#[derive(Debug, Args)]
struct ControlPlaneArgs {
    /// Where everything is kept; made with mode 0700. A master key is made when there is none.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATA")]
    data: PathBuf,
    /// A PostgreSQL database (13 or newer) in place of a file in the data folder, for example
    /// postgres://sluice@db.example/sluice?sslmode=verify-full. Of several control planes on one database one works and the others
    /// stand by. Give a password in the environment or in a .pgpass file: arguments can be seen by others.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:7070", env = "SLUICE_CONTROL_PLANE__GRPC")]
    grpc: SocketAddr,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// Speak TLS with a certificate that this control plane makes for itself. Its authority is written to `authority.pem` in the data
    /// folder, for callers to trust.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__TLS", conflicts_with = "tls_certificate")]
    tls: bool,
    /// A name or address for that certificate, beside control-plane.sluice.internal. Repeatable.
    #[arg(long = "tls-name", conflicts_with = "tls_certificate")]
    tls_names: Vec<String>,
    /// Serve plaintext beyond this machine. API keys and secrets can be read on the way: only in a network that nobody else is in.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
    /// Health, readiness and metrics, without a key: for the operator's network alone.
    #[arg(long, default_value = "127.0.0.1:9091", env = "SLUICE_CONTROL_PLANE__HEALTH")]
    health: SocketAddr,
    /// How many days entries of the audit logs are kept. The newest of each log is kept for ever.
    #[arg(long, default_value = "400", env = "SLUICE_CONTROL_PLANE__AUDIT_RETENTION_DAYS")]
    audit_retention_days: u32,
    /// How many published versions of each resource are kept, the newest ones and the one in force.
    #[arg(long, default_value = "1000", env = "SLUICE_CONTROL_PLANE__VERSIONS_KEPT")]
    versions_kept: NonZeroU32,
    /// A port that integrations may call, beside 443 and 8443. Repeatable.
    #[arg(long = "allow-port")]
    allow_ports: Vec<u16>,
    /// A host name under which triggers are reached from outside: no integration may call it. Repeatable.
    #[arg(long = "own-name")]
    own_names: Vec<String>,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The data folder of a control plane that does not run.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATA")]
    data: PathBuf,
    /// An empty PostgreSQL database, 13 or newer. Give a password in the environment or in a .pgpass file: arguments can be seen by
    /// others.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATABASE", hide_env_values = true)]
    database: String,
}

/// The certificate of a listener, in PEM form. Both files are read again when they change.
#[derive(Debug, Args)]
struct CertificateArgs {
    /// A file with the certificate and those that lead to its root: the listener speaks TLS, nothing else.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// A file with its private key.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

impl CertificateArgs {
    fn files(self) -> Option<Files> {
        self.tls_certificate.zip(self.tls_key).map(|(certificate, key)| Files::new(certificate, key))
    }
}

#[derive(Debug, Args)]
struct DataPlaneArgs {
    /// Where the inbox and the last good configuration are kept; made with mode 0700.
    #[arg(long, env = "SLUICE_DATA_PLANE__DATA")]
    data: PathBuf,
    /// A stable id, shown by ListDataPlanes.
    #[arg(long, env = "SLUICE_DATA_PLANE__ID")]
    id: String,
    /// The control plane's gRPC, for example http://127.0.0.1:7070 or https://control.example:7070.
    #[arg(long, env = "SLUICE_DATA_PLANE__CONTROL_PLANE")]
    control_plane: String,
    /// A file with a join token, for an https control plane: needed once, when the data plane joins.
    #[arg(long, env = "SLUICE_DATA_PLANE__JOIN_TOKEN_FILE", conflicts_with = "key_file")]
    join_token_file: Option<PathBuf>,
    /// On the control plane's own machine, with http: the data-plane key that it made.
    #[arg(long, env = "SLUICE_DATA_PLANE__KEY_FILE")]
    key_file: Option<PathBuf>,
    /// The master keys, the same as the control plane's.
    #[arg(long, env = "SLUICE_DATA_PLANE__MASTER_KEY_FILE")]
    master_key_file: PathBuf,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// A network of proxies before the triggers, for example 10.0.0.0/8: their X-Forwarded-For says who sends. Repeatable.
    #[arg(long = "trusted-proxy")]
    trusted_proxies: Vec<IpNet>,
    /// Triggers.
    #[arg(long, default_value = "0.0.0.0:8080", env = "SLUICE_DATA_PLANE__INGRESS")]
    ingress: SocketAddr,
    /// Health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:9090", env = "SLUICE_DATA_PLANE__HEALTH")]
    health: SocketAddr,
    #[command(flatten)]
    inbox: InboxArgs,
    #[command(flatten)]
    egress: EgressArgs,
}

/// The operator's settings of the way out (D20). None of them can be set over the API.
#[derive(Debug, Args)]
struct EgressArgs {
    /// A network that may be called although it is not public, for example 10.1.0.0/16. Repeatable.
    #[arg(long = "allow-network")]
    allow_networks: Vec<IpNet>,
    /// A port that may be called, beside 443 and 8443. Repeatable.
    #[arg(long = "allow-port")]
    allow_ports: Vec<u16>,
    /// An answer for a name, in place of DNS, for example crm.example=127.0.0.1. Repeatable.
    #[arg(long = "resolve", value_parser = parse_static_address)]
    resolve: Vec<(String, IpAddr)>,
    /// A name server to ask in place of those of /etc/resolv.conf, for example 10.0.0.10 or 10.0.0.10:5353. Repeatable.
    #[arg(long = "nameserver", value_parser = parse_nameserver)]
    nameservers: Vec<SocketAddr>,
    /// A host name under which triggers are reached from outside: no integration may call it. Repeatable.
    #[arg(long = "own-name")]
    own_names: Vec<String>,
    /// A file with certificates (PEM) to trust beside the public ones. Repeatable.
    #[arg(long = "extra-ca")]
    extra_cas: Vec<PathBuf>,
}

fn parse_static_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("must be name=address")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    Ok((name.to_ascii_lowercase(), address))
}

fn parse_nameserver(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    let bare = text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS));
    bare.or_else(|_| text.parse()).map_err(|_| "must be an IP address, with or without a port".to_owned())
}

impl EgressArgs {
    fn settings(&self) -> Result<sluice_egress::Settings, String> {
        let mut settings = sluice_egress::Settings::default();
        settings.extra_networks.extend(&self.allow_networks);
        settings.ports.extend(&self.allow_ports);
        settings.nameservers.extend(&self.nameservers);
        settings.own_names.extend_from_slice(&self.own_names);
        for (name, address) in &self.resolve {
            // Port 0: the port of the URL.
            settings.static_addresses.entry(name.clone()).or_default().push(SocketAddr::new(*address, 0));
        }
        for path in &self.extra_cas {
            let pem = std::fs::read(path).map_err(|error| format!("--extra-ca {}: {error}", path.display()))?;
            settings.extra_ca_pem.push(pem);
        }
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    let quiet = if matches!(cli.command, Command::Demo { .. }) { "error" } else { "info" };
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_unset| EnvFilter::new(quiet));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    if let Err(error) = hardening::forbid_dumps() {
        tracing::warn!(%error, "a crash of this process may leave secrets in a core dump");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(run(cli.command, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

#[allow(clippy::print_stderr)] // the last word of a command belongs to its user
fn fail(problem: &str) -> ExitCode {
    eprintln!("sluice: {problem}");
    ExitCode::FAILURE
}

/// An error with what led to it, as far as it does not say so itself.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let why = source.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        next = source.source();
    }
    text
}

#[allow(clippy::print_stdout)] // what a command says to its user
fn say(line: &str) {
    println!("{line}");
}

async fn run(command: Command, started: Instant) -> Result<(), String> {
    match command {
        Command::Demo { keep } => {
            let interrupted = keep.then(|| Box::pin(interrupted()));
            demo::run(started, interrupted, &mut |line| say(&line)).await.map_err(|error| format!("demo: {error}"))
        }
        Command::MasterKey { id } => {
            say(&folder::master_key_line(&id).map_err(|error| format!("master-key {id}: {error}"))?);
            Ok(())
        }
        Command::Dev(args) => run_dev(args).await,
        Command::ControlPlane(args) => {
            let folder = Folder::open(&args.data).map_err(|error| told(&error))?;
            let mut urls = UrlPolicy::default();
            urls.ports.extend(args.allow_ports);
            urls.own_names = args.own_names;
            folder.ensure_master_key().map_err(|error| told(&error))?;
            let tls = match args.certificate.files() {
                Some(files) => Some(Certificate::Files(files)),
                None => (args.tls || !args.tls_names.is_empty()).then_some(Certificate::Own(args.tls_names)),
            };
            let mut settings = sluice_control_plane::Settings {
                tls,
                allow_plaintext: args.allow_plaintext,
                audit_retention: Duration::from_secs(u64::from(args.audit_retention_days) * 24 * 3600),
                versions_kept: args.versions_kept,
                ..folder.control_plane(urls)
            };
            if let Some(url) = args.database {
                settings.database = Database::Postgres(url.into());
            }
            let running = dev::run_control_plane(settings, args.grpc, args.health).await;
            let running = running.map_err(|error| told(&error))?;
            say(&format!(
                "control plane: gRPC on {}, health on {}, admin key in {}",
                running.grpc,
                running.health,
                folder.admin_key_file().display()
            ));
            running.run_until(interrupted()).await.map_err(|error| told(&error))
        }
        Command::Migrate(args) => {
            let file = Database::file_in(&args.data);
            let moved =
                sluice_control_plane::migrate(&file, &args.database.into()).await.map_err(|error| told(&error))?;
            say(&format!("{} tables with {} rows were copied and compared", moved.tables, moved.rows));
            say("start the control plane with --database now, and never again without it");
            Ok(())
        }
        Command::DataPlane(args) => {
            let folder = Folder::open(&args.data).map_err(|error| told(&error))?;
            let mut settings = folder.data_plane(&args.id, args.control_plane, args.egress.settings()?);
            settings.admission = match args.key_file {
                Some(file) => Admission::Key(file),
                None => Admission::Certificate { join_token_file: args.join_token_file },
            };
            settings.master_key_file = args.master_key_file;
            settings.ingress.tls = args.certificate.files();
            settings.ingress.proxies = args.trusted_proxies;
            settings.inbox = args.inbox.settings(&args.id, &folder, settings.inbox)?;
            let running =
                dev::run_data_plane(settings, args.ingress, args.health).await.map_err(|error| told(&error))?;
            say(&format!("data plane {}: triggers on {}, health on {}", args.id, running.ingress, running.health));
            running.run_until(interrupted()).await.map_err(|error| told(&error))
        }
    }
}

async fn run_dev(args: DevArgs) -> Result<(), String> {
    let folder = Folder::open(&args.data).map_err(|error| told(&error))?;
    let options = dev::Options {
        folder: folder.clone(),
        grpc: args.grpc,
        control_health: args.control_health,
        ingress: args.ingress,
        health: args.health,
        egress: args.egress.settings()?,
    };
    let dev = dev::start(options).await.map_err(|error| told(&error))?;
    for line in welcome(&dev, &folder) {
        say(&line);
    }
    dev.run_until(interrupted()).await.map_err(|error| told(&error))
}

fn welcome(dev: &Dev, folder: &Folder) -> Vec<String> {
    let key_file = folder.admin_key_file();
    let mut lines = vec![
        format!("control plane   gRPC     {}", dev.control_plane.grpc),
        format!("                health   http://{}/readyz", dev.control_plane.health),
        format!("data plane      triggers http://{}", dev.data_plane.ingress),
        format!("                health   http://{}/readyz", dev.data_plane.health),
        format!("data folder     {}", folder.path().display()),
        format!("admin key       {}", key_file.display()),
        String::new(),
    ];
    lines.extend(demo::commands(dev, &key_file));
    lines.push("Ctrl-C stops; everything that was accepted is there again at the next start.".to_owned());
    lines
}

/// Resolves at SIGINT or SIGTERM; a second one ends the process at once.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be watched; end the process by kill");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping; once more ends at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
}
