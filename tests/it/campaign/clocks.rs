//! The clock of a data plane jumps under load (F39). Only in the long mode, and where `libfaketime` is.

use std::path::PathBuf;

use sluice_tests::long;
use tempfile::TempDir;

use super::Campaign;

/// Within every window and age; and right again at the end.
const HOURS: [&str; 5] = ["+1h", "-1h", "+1s", "-1s", "+0"];
/// Past the longest window, and past the age of a delivery.
const DAYS: [&str; 4] = ["+8d", "+0", "-8d", "+0"];

/// A clock that whole processes believe.
struct FakeClock {
    library: PathBuf,
    folder: TempDir,
}

impl FakeClock {
    #[allow(clippy::print_stderr, reason = "whoever runs the tests is told what was not run")]
    fn find() -> Option<Self> {
        if !long::is_long() {
            return None;
        }
        let libraries = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
        let found =
            libraries.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        if found.is_none() {
            eprintln!("NOT RUN: libfaketime is missing; install the package `faketime` and run this test again");
        }
        let clock = Self { library: found?, folder: tempfile::tempdir().unwrap() };
        clock.set("+0");
        Some(clock)
    }

    fn set(&self, offset: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, offset).unwrap();
        std::fs::rename(next, self.folder.path().join("now")).unwrap();
    }

    fn under(&self) -> Vec<String> {
        let library = format!("LD_PRELOAD={}", self.library.display());
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.folder.path().join("now").display());
        let always = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"].map(str::to_owned);
        [vec!["env".to_owned(), library, file], always.to_vec()].concat()
    }
}

/// Loads while the clock jumps.
async fn jump(campaign: &mut Campaign, clock: &FakeClock, offsets: &[&str]) {
    campaign
        .under_load(async |campaign| {
            for offset in offsets {
                clock.set(offset);
                campaign.paused();
                campaign.answers(200).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f39_whatever_the_clock_of_a_plane_does_nothing_is_lost() {
    let Some(clock) = FakeClock::find() else { return };
    let mut campaign = Campaign::start(|setup| setup.under = clock.under()).await;
    jump(&mut campaign, &clock, &HOURS).await;
    campaign.holds().await;
    // Keys may end too early (I2); what waits becomes too old, and says so.
    jump(&mut campaign, &clock, &DAYS).await;
    let mut breaches = campaign.ledger().await.breaches();
    let is_too_old = |breach: &&String| breach.contains("given up as too old");
    let is_missing =
        |breach: &&String| breach.contains("never delivered") || breach.contains("no earlier one was delivered");
    let (too_old, missing) = (breaches.iter().filter(is_too_old).count(), breaches.iter().filter(is_missing).count());
    assert!(missing <= too_old, "{missing} were not delivered, and {too_old} were too old");
    breaches.retain(|breach| !is_too_old(&breach) && !is_missing(&breach) && !breach.contains("(I2)"));
    assert_eq!(breaches, Vec::<String>::new());
    campaign.end().await;
}
