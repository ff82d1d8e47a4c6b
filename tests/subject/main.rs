//! Both planes in a process that a test may kill. Its one argument is a `Setup` as JSON.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use sluice::dev::{self, Dev, RunningControlPlane, RunningDataPlane};
use sluice::folder::Folder;
use sluice_control_plane::Database;
use sluice_core::address::UrlPolicy;
use sluice_core::seal::Secret;
use sluice_data_plane::Admission;
use sluice_data_plane::inbox::{Durability, InboxSettings, RedisSettings};
use sluice_data_plane::settings::WorkerSettings;
use sluice_tests::subject::{READY, Setup};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("the setup is missing")?;
    let setup: Setup = serde_json::from_str(&argument)?;
    if !setup.log.is_empty() {
        tracing_subscriber::fmt().with_env_filter(&setup.log).with_writer(std::io::stderr).with_ansi(false).init();
    }
    let running = start(&setup).await?;
    let stop = told_to_stop()?;
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    running.run_until(stop).await?;
    Ok(())
}

/// What runs.
enum Running {
    Both(Dev),
    ControlPlane(RunningControlPlane),
    DataPlane(RunningDataPlane),
}

impl Running {
    async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), dev::Error> {
        match self {
            Self::Both(dev) => dev.run_until(stop).await,
            Self::ControlPlane(plane) => plane.run_until(stop).await,
            Self::DataPlane(plane) => plane.run_until(stop).await,
        }
    }
}

async fn start(setup: &Setup) -> Result<Running, Box<dyn Error>> {
    let folder = Folder::open(&setup.folder)?;
    let egress = sluice_egress::Settings {
        extra_networks: vec!["127.0.0.0/8".parse()?],
        static_addresses: setup.static_addresses.clone(),
        extra_ca_pem: Some(setup.ca_pem.clone().into_bytes()).filter(|pem| !pem.is_empty()).into_iter().collect(),
        user_agent: setup.user_agent.clone(),
        ..sluice_egress::Settings::default()
    };
    let Some(joined) = &setup.joins else { return with_control_plane(setup, &folder, egress).await };
    let mut settings = folder.data_plane(&setup.id, joined.url.clone(), egress);
    let theirs = Folder::open(&joined.folder)?;
    settings.admission = Admission::Key(theirs.data_plane_key_file());
    settings.master_key_file = theirs.master_key_file();
    Ok(Running::DataPlane(data_plane(settings, setup).await?))
}

async fn with_control_plane(
    setup: &Setup,
    folder: &Folder,
    egress: sluice_egress::Settings,
) -> Result<Running, Box<dyn Error>> {
    folder.ensure_master_key()?;
    let mut settings = folder.control_plane(UrlPolicy::default());
    // Nobody waits for a changed ring of master keys to be looked at.
    settings.ring_read_every = Duration::from_millis(50);
    if let Some(url) = &setup.database {
        settings.database = Database::Postgres(url.clone().into());
    }
    if let Some(events) = setup.events_per_second {
        settings.limits.events_per_second = events;
    }
    let settings = with_crash(settings, setup)?;
    if setup.control_plane_alone {
        return Ok(Running::ControlPlane(dev::run_control_plane(settings, setup.grpc, setup.health).await?));
    }
    let control_plane = dev::run_control_plane(settings, setup.grpc, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let settings = folder.data_plane(&setup.id, control_plane.url(), egress);
    let data_plane = data_plane(settings, setup).await?;
    Ok(Running::Both(Dev { control_plane, data_plane }))
}

async fn data_plane(
    mut settings: sluice_data_plane::Settings,
    setup: &Setup,
) -> Result<RunningDataPlane, Box<dyn Error>> {
    if let Some(url) = &setup.redis {
        settings.inbox = InboxSettings::Redis(RedisSettings {
            memory: Some(settings.data_dir.join("inbox-store.json")),
            lease: setup.lease,
            durability: if setup.fast { Durability::Fast } else { Durability::Strict },
            ..RedisSettings::new(Secret::new(url), &settings.data_plane_id)
        });
    }
    settings.lame_duck = setup.lame_duck;
    if let InboxSettings::Embedded(inbox) = &mut settings.inbox {
        inbox.lease = setup.lease;
    }
    if let Some([realtime, bulk]) = setup.workers {
        settings.workers = WorkerSettings { realtime, bulk };
    }
    let settings = with_fault(settings, setup)?;
    Ok(dev::run_data_plane(settings, setup.ingress, setup.health).await?)
}

#[cfg(feature = "fault-injection")]
fn with_fault(
    mut settings: sluice_data_plane::Settings,
    setup: &Setup,
) -> Result<sluice_data_plane::Settings, Box<dyn Error>> {
    use sluice_data_plane::Moment;
    use sluice_data_plane::inbox;
    use sluice_tests::subject::{Fault, PlaneMoment};
    *settings.inbox.fault_mut() = setup.fault.map(|fault| match fault {
        Fault::KeyBeforeJobs => inbox::Fault::KeyBeforeJobs,
        Fault::AnswerBeforeCommit => inbox::Fault::AnswerBeforeCommit,
        Fault::EndAt(moment) => inbox::Fault::EndAt(match moment {
            PlaneMoment::Received => Moment::Received,
            PlaneMoment::Keeping => Moment::Keeping,
            PlaneMoment::Kept => Moment::Kept,
            PlaneMoment::Leased => Moment::Leased,
            PlaneMoment::Begun => Moment::Begun,
            PlaneMoment::Heard => Moment::Heard,
            PlaneMoment::Recording => Moment::Recording,
            PlaneMoment::Recorded => Moment::Recorded,
            PlaneMoment::Applying => Moment::Applying,
        }),
    });
    Ok(settings)
}

#[cfg(not(feature = "fault-injection"))]
fn with_fault(
    settings: sluice_data_plane::Settings,
    setup: &Setup,
) -> Result<sluice_data_plane::Settings, Box<dyn Error>> {
    match setup.fault {
        None => Ok(settings),
        Some(fault) => Err(format!("{fault:?} needs a build with the feature fault-injection").into()),
    }
}

#[cfg(feature = "fault-injection")]
fn with_crash(
    mut settings: sluice_control_plane::Settings,
    setup: &Setup,
) -> Result<sluice_control_plane::Settings, Box<dyn Error>> {
    use sluice_control_plane::Moment as At;
    use sluice_tests::subject::Moment;
    settings.crash = setup.crash.as_ref().map(|crash| sluice_control_plane::Crash {
        at: match crash.at {
            Moment::ChangeWritten => At::ChangeWritten,
            Moment::ChangeCommitted => At::ChangeCommitted,
            Moment::RefusalWritten => At::RefusalWritten,
            Moment::ReportWritten => At::ReportWritten,
            Moment::ReportCommitted => At::ReportCommitted,
        },
        method: crash.method.clone(),
    });
    Ok(settings)
}

#[cfg(not(feature = "fault-injection"))]
fn with_crash(
    settings: sluice_control_plane::Settings,
    setup: &Setup,
) -> Result<sluice_control_plane::Settings, Box<dyn Error>> {
    match &setup.crash {
        None => Ok(settings),
        Some(crash) => Err(format!("{crash:?} needs a build with the feature fault-injection").into()),
    }
}

/// Resolves at SIGTERM, and when standard input ends. SIGTERM is heard from now on.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (ended, end) = oneshot::channel();
    // A thread of its own: a read that goes on would hold the runtime's end up.
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        let _ = ended.send(());
    });
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = end => {}
        }
    })
}
