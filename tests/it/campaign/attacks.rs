//! Senders that mean harm, while something else goes wrong: the corpus of attacks during crashes (F45), in little memory (F18), and as
//! many connections as there are file descriptors (F40).

use std::time::Duration;

use serde_json::Value;
use sluice_tests::{RawHttp, Request, Workspace, eventually, long, resources};

use super::{Campaign, Load, served};
use crate::attack_table::rows;

/// What both planes together may take, in KiB, whatever comes in. The debug build takes about 100 MiB.
const MEMORY_MAX: u64 = 256 << 10;
const FILES_MAX: usize = 128;

fn text(body: &Value) -> String {
    let part = |part: &Value| match part.as_array() {
        Some(pair) => pair[0].as_str().unwrap().repeat(usize::try_from(pair[1].as_u64().unwrap()).unwrap()),
        None => part.as_str().unwrap().to_owned(),
    };
    body.as_array().map_or_else(|| part(body), |parts| parts.iter().map(part).collect())
}

/// Every body of the corpus, and some that say more than they have.
fn corpus() -> Vec<Vec<u8>> {
    let cases = rows("tests/golden/data/attacks.jsonl");
    let bodies = cases.iter().filter(|case| !case["body"].is_null()).map(|case| text(&case["body"]).into_bytes());
    let mut all: Vec<Vec<u8>> = bodies.collect();
    all.extend([vec![b'['; 900_000], b"{\"a\":".repeat(150_000), vec![0xff; 1_000]]);
    assert!(all.len() > 50, "the corpus was read");
    all
}

/// A number of the process, in KiB, as the system tells it.
pub(crate) fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Sends each body once; answers what else than a refusal or an acceptance was answered.
async fn attack(load: Load, path: String, bodies: Vec<Vec<u8>>) -> Vec<u16> {
    let mut wrong = Vec::new();
    for (n, body) in bodies.into_iter().enumerate() {
        let Ok(mut connection) = RawHttp::try_connect(load.doors[n % load.doors.len()]).await else { continue };
        connection.send(&Request::post(&path, body).bytes()).await;
        let status = connection.answer_or_end().await.map(|answer| answer.status);
        wrong.extend(status.filter(|status| ![200, 204, 400, 413, 503].contains(status)));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn f45_attacks_during_crashes_are_refused_and_take_little_memory() {
    let mut campaign = Campaign::start_on_redis().await;
    campaign.join(|_| {}).await;
    let other = Workspace::create(&campaign.client, "other").await;
    let request = resources::post("https://api.example.com/attacked", r#"{"is": {{ request.body }} }"#);
    let attacked = other.flow("attacked", request).await.endpoint_path;
    served(&campaign.client, &other, 2).await;
    for _ in 0..long::either(1, 20) {
        campaign
            .under_load(async |campaign| {
                let attack = tokio::spawn(attack(campaign.load.clone(), attacked.clone(), corpus()));
                campaign.answers(50).await;
                campaign.redis.as_mut().unwrap().crash().await;
                campaign.kills += 1;
                campaign.answers(50).await;
                campaign.joiners[0].subject.take().unwrap().kill().await.unwrap();
                campaign.kills += 1;
                campaign.joiner_lives_again(0).await;
                assert_eq!(attack.await.unwrap(), Vec::<u16>::new());
                campaign.answers(50).await;
            })
            .await;
        let process = campaign.subject.as_ref().unwrap().id().unwrap();
        let most = memory(process, "VmHWM:");
        println!("{} MiB at most", most >> 10);
        assert!(most < MEMORY_MAX, "{most} KiB");
        campaign.holds().await;
    }
    campaign.end().await;
}

/// Clock ticks that the process has worked.
fn worked(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_without_file_descriptors_it_waits_and_goes_on_when_there_are_some() {
    let limited = format!("ulimit -n {FILES_MAX}; exec \"$@\"");
    let mut campaign =
        Campaign::start(|setup| setup.under = ["sh", "-c", &limited, "sh"].map(str::to_owned).to_vec()).await;
    let (door, health) = (campaign.load.setup.ingress, campaign.load.setup.health);
    let process = campaign.subject.as_ref().unwrap().id().unwrap();
    campaign.under_load(async |campaign| campaign.answers(100).await).await;
    let mut strangers = Vec::new();
    for n in 0..2 * FILES_MAX {
        strangers.push(RawHttp::connect([door, health][n % 2]).await);
    }
    eventually("all file descriptors to be taken", async || (files(process) >= FILES_MAX).then_some(())).await;
    let before = worked(process);
    // A measurement: it takes its time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ticks = worked(process) - before;
    println!("{ticks} hundredths of a second");
    assert!(ticks < 30, "it works {ticks} hundredths of a second while it can do nothing");
    drop(strangers);
    campaign.under_load(async |campaign| campaign.answers(100).await).await;
    campaign.holds().await;
    campaign.end().await;
}
