//! The disk of a data plane with an inbox in a file is full (F35) or fails (F36), under load. Its control plane has another one.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use sluice_tests::{RawHttp, Request, long};

use super::{Campaign, SENDERS, SHORT_LEASE};

/// A data plane of its own, which alone is asked.
async fn start(under: impl FnOnce(&str) -> Vec<String>) -> Campaign {
    let mut campaign = Campaign::start(|_| {}).await;
    campaign
        .join(|setup| {
            setup.under = under(&setup.folder.display().to_string());
            setup.lease = SHORT_LEASE;
        })
        .await;
    campaign.load.doors.remove(0);
    campaign.load.may_refuse = true;
    campaign
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// A folder of its own, in memory, that can be mounted without being root.
const MOUNTED: &str = "mkdir -p \"$0\" && mount -t tmpfs -o size=4m,mode=700 tmpfs \"$0\" && exec \"$@\"";
const UNSHARED: [&str; 6] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];

#[allow(clippy::print_stderr, reason = "whoever runs the tests is told what was not run")]
fn may_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let tried = Command::new(UNSHARED[0]).args(&UNSHARED[1..]).arg(MOUNTED).arg(folder.path()).arg("true").status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("NOT RUN: a disk that is full; this machine lets nobody mount a folder in a name space of his own");
    }
    may
}

#[tokio::test(flavor = "multi_thread")]
async fn f35_a_full_disk_refuses_and_when_there_is_room_all_goes_on() {
    if !may_mount() {
        return;
    }
    let mut campaign = start(|folder| [words(&UNSHARED), words(&[MOUNTED, folder])].concat()).await;
    let joiner = &campaign.joiners[0];
    let process = joiner.subject.as_ref().unwrap().id().unwrap();
    let seen_from_here =
        PathBuf::from(format!("/proc/{process}/root")).join(joiner.setup.folder.strip_prefix("/").unwrap());
    let (health, filler) = (joiner.setup.health, seen_from_here.join("filler"));
    for _ in 0..long::either(1, 30) {
        campaign
            .under_load(async |campaign| {
                campaign.answers(100).await;
                let mut filling = std::fs::File::create(&filler).unwrap();
                while filling.write_all(&[0; 4096]).is_ok() {}
                campaign.refusals(SENDERS).await;
                let alive = RawHttp::connect(health).await.exchange(&Request::new("GET", "/healthz")).await;
                assert_eq!(alive.status, 200);
                std::fs::remove_file(&filler).unwrap();
                drop(filling);
                campaign.answers(100).await;
            })
            .await;
        super::clean(&campaign.logs().await);
    }
    campaign.holds().await;
    campaign.end().await;
}

/// Files become no larger than so many KiB: then a write fails, and not for want of room.
fn failing(kib: u32) -> Vec<String> {
    words(&["bash", "-c", &format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$@\""), "bash"])
}

#[tokio::test(flavor = "multi_thread")]
async fn f36_a_disk_that_fails_ends_the_process_and_nothing_is_promised_that_is_not_kept() {
    let mut campaign = start(|_| failing(1_500)).await;
    for _ in 0..long::either(1, 10) {
        campaign
            .under_load(async |campaign| {
                let ended = campaign.joiners[0].subject.take().unwrap().ended().await.unwrap();
                assert!(ended.code().is_some_and(|code| code != 0), "it says that it failed: {ended}");
                campaign.kills += 1;
                campaign.joiners[0].setup.under.clear();
                campaign.joiner_lives_again(0).await;
                campaign.answers(100).await;
            })
            .await;
        campaign.holds().await;
        campaign.joiners[0].setup.under = failing(1_500);
    }
    campaign.end().await;
}
