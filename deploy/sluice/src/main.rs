//! The `sluice` command.

use std::io::IsTerminal as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use sluice::args::{ControlPlaneArgs, DataPlaneArgs, EgressArgs};
use sluice::demo;
use sluice::dev::{self, Dev};
use sluice::folder::{self, Folder};
use sluice::hardening;
use sluice_control_plane::Database;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An open integration gateway: triggers in, templated HTTPS calls out, configured over gRPC.
#[derive(Debug, Parser)]
#[command(version)]
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
    /// Print a fresh API key for the file `admin.key` or `data-plane.key`, which control planes on one database must share.
    AccessKey,
    /// Ask a plane whether it is ready, for example 127.0.0.1:9090: ends with 0 when it is, for health checks where there is no curl.
    Ready {
        /// Where it tells its health.
        health: SocketAddr,
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
struct MigrateArgs {
    /// The data folder of a control plane that does not run.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATA")]
    data: PathBuf,
    /// An empty PostgreSQL database, 13 or newer. Give a password in the environment or in a .pgpass file: arguments can be seen by
    /// others.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATABASE", hide_env_values = true)]
    database: String,
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
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(run(cli.command, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

/// With as many threads as the plane was given, otherwise one for each core that the process may use.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let threads = match command {
        Command::ControlPlane(args) => args.worker_threads(),
        Command::DataPlane(args) => args.worker_threads(),
        Command::Demo { .. }
        | Command::Dev(_)
        | Command::Migrate(_)
        | Command::MasterKey { .. }
        | Command::AccessKey
        | Command::Ready { .. } => None,
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().build()
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
        Command::AccessKey => {
            say(&folder::access_key().map_err(|error| format!("access-key: {error}"))?);
            Ok(())
        }
        Command::Ready { health } => ready(health),
        Command::Dev(args) => run_dev(args).await,
        Command::ControlPlane(args) => {
            let folder = Folder::open(&args.data).map_err(|error| told(&error))?;
            let settings = args.settings(&folder).map_err(|error| told(&error))?;
            let admin_key = settings.admin_key_file.clone();
            let running = dev::run_control_plane(settings, args.grpc, args.health).await;
            let running = running.map_err(|error| told(&error))?;
            say(&format!(
                "control plane: gRPC on {}, health on {}, admin key in {}",
                running.grpc,
                running.health,
                admin_key.display()
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
            let settings = args.settings(&folder)?;
            let running =
                dev::run_data_plane(settings, args.ingress, args.health).await.map_err(|error| told(&error))?;
            say(&format!("data plane {}: triggers on {}, health on {}", args.id, running.ingress, running.health));
            running.run_until(interrupted()).await.map_err(|error| told(&error))
        }
    }
}

/// How long a plane may take to say whether it is ready.
const READY_WITHIN: Duration = Duration::from_secs(2);

#[allow(clippy::disallowed_methods)] // the operator asks a plane of its own
fn ready(health: SocketAddr) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut plane = TcpStream::connect_timeout(&health, READY_WITHIN)?;
        plane.set_read_timeout(Some(READY_WITHIN))?;
        plane.set_write_timeout(Some(READY_WITHIN))?;
        write!(plane, "GET /readyz HTTP/1.1\r\nhost: {health}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        plane.take(4_096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{health}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(format!("{health}: {}", answer.rsplit("\r\n").find(|line| !line.is_empty()).unwrap_or("no answer").trim()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_has_the_threads_it_was_given_and_otherwise_one_for_each_core() {
        let needed = [
            "sluice",
            "data-plane",
            "--data",
            "x",
            "--id",
            "one",
            "--control-plane",
            "http://a",
            "--master-key-file",
            "m",
        ];
        let threads = |more: &[&str]| {
            let cli = Cli::try_parse_from([&needed[..], more].concat()).map_err(|error| error.to_string())?;
            Ok(runtime(&cli.command).unwrap().metrics().num_workers())
        };
        assert_eq!(threads(&["--worker-threads", "3"]), Ok(3));
        assert_eq!(threads(&[]), Ok(std::thread::available_parallelism().unwrap().get()));
        let refused: Result<usize, String> = threads(&["--worker-threads", "0"]);
        let refused = refused.unwrap_err();
        assert!(refused.contains("--worker-threads") && refused.contains("1..=1024"), "{refused}");
        let control = ["sluice", "control-plane", "--data", "x", "--worker-threads", "5"];
        let control = Cli::try_parse_from(control).unwrap();
        assert_eq!(runtime(&control.command).unwrap().metrics().num_workers(), 5);
    }
}
