//! Both planes in a process that a test may kill. Its one argument is a `Setup` as JSON.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use sluice::dev::{self, Dev};
use sluice::folder::Folder;
use sluice_core::address::UrlPolicy;
use sluice_tests::subject::{READY, Setup};
use tokio::io::AsyncReadExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("the setup is missing")?;
    let setup: Setup = serde_json::from_str(&argument)?;
    if !setup.log.is_empty() {
        tracing_subscriber::fmt().with_env_filter(&setup.log).with_writer(std::io::stderr).with_ansi(false).init();
    }
    let dev = start(&setup).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    dev.run_until(stdin_ended()).await?;
    Ok(())
}

async fn start(setup: &Setup) -> Result<Dev, Box<dyn Error>> {
    let folder = Folder::open(&setup.folder)?;
    let egress = sluice_egress::Settings {
        extra_networks: vec!["127.0.0.0/8".parse()?],
        static_addresses: setup.static_addresses.clone(),
        extra_ca_pem: Some(setup.ca_pem.clone().into_bytes()).filter(|pem| !pem.is_empty()).into_iter().collect(),
        user_agent: setup.user_agent.clone(),
        ..sluice_egress::Settings::default()
    };
    folder.ensure_master_key()?;
    let mut settings = folder.control_plane(UrlPolicy::default());
    // Nobody waits for a changed ring of master keys to be looked at.
    settings.ring_read_every = Duration::from_millis(50);
    let settings = with_crash(settings, setup)?;
    let control_plane = dev::run_control_plane(settings, setup.grpc, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let settings = folder.data_plane("subject", control_plane.url(), egress);
    let settings = with_fault(settings, setup)?;
    let data_plane = dev::run_data_plane(settings, setup.ingress, setup.health).await?;
    Ok(Dev { control_plane, data_plane })
}

#[cfg(feature = "fault-injection")]
fn with_fault(
    mut settings: sluice_data_plane::Settings,
    setup: &Setup,
) -> Result<sluice_data_plane::Settings, Box<dyn Error>> {
    use sluice_data_plane::inbox;
    use sluice_tests::subject::Fault;
    settings.inbox.fault = setup.fault.map(|fault| match fault {
        Fault::KeyBeforeJobs => inbox::Fault::KeyBeforeJobs,
        Fault::AnswerBeforeCommit => inbox::Fault::AnswerBeforeCommit,
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

async fn stdin_ended() {
    let mut ignored = [0; 64];
    while matches!(tokio::io::stdin().read(&mut ignored).await, Ok(1..)) {}
}
