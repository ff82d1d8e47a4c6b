//! Events and members of audiences, which callers of the control plane submit: kept by a data plane before they are answered.

use std::time::{Duration, Instant};

use sluice_client::admin;
use sluice_tests::resources;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bare::NAME;
use crate::building::{Building, Wanted};
use crate::table::{Measured, Round, Table};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(1200);
const CALLERS: usize = 64;
const ACTION: &str = "order.paid";

pub(crate) async fn run(table: &mut Table, body: &str) {
    let (mut events, mut members) = (Measured::default(), Measured::default());
    for _ in 0..ROUNDS {
        let building = Building::start(&[], Wanted { events_per_second: Some(1_000_000), ..Wanted::default() }).await;
        let request = resources::post(&format!("https://{NAME}/in"), r#"{"order": "{{ event.params.orderId }}"}"#);
        let event = Some(admin::EventTrigger { action: ACTION.to_owned() });
        let workflow = admin::Workflow {
            display_name: ACTION.to_owned(),
            triggers: vec![
                admin::Trigger { event, ..Default::default() },
                admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..Default::default() },
            ],
            steps: vec![resources::custom_webhook("Send", request)],
            ..Default::default()
        };
        let name = building.acme.workflow("submitted", workflow).await.name;
        building.acme.ready().await;
        events.add(one_by_one(&building, body).await);
        members.add(in_one_stream(&building, &name, body).await);
        building.stop().await;
    }
    table.rate(&format!("events, {CALLERS} callers"), &mut events);
    table.rate("members of an audience, one stream", &mut members);
}

/// Each in a call of its own.
async fn one_by_one(building: &Building, body: &str) -> Round {
    let (begun, cpu) = (Instant::now(), building.watched().cpu());
    let mut all = JoinSet::new();
    for _ in 0..CALLERS {
        let request = admin::SubmitEventRequest {
            parent: building.acme.name.clone(),
            action: ACTION.to_owned(),
            params: body.to_owned(),
            ..Default::default()
        };
        let mut client = building.acme.client.events();
        all.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < ROUND {
                let asked = Instant::now();
                client.submit_event(request.clone()).await.expect("an answer");
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies: Vec<Duration> = all.join_all().await.into_iter().flatten().collect();
    let (time, cpu) = (begun.elapsed(), building.watched().cpu() - cpu);
    Round { count: latencies.len(), time, latencies, cpu, resident: building.watched().resident() }
}

/// 100 to a message.
async fn in_one_stream(building: &Building, name: &str, body: &str) -> Round {
    let (begun, cpu) = (Instant::now(), building.watched().cpu());
    let body = body.to_owned();
    let messages = futures::stream::unfold(name.to_owned(), move |name| {
        let item = |_| admin::BatchItem { id: Uuid::now_v7().to_string(), params: body.clone(), ..Default::default() };
        let items = (0..100).map(item).collect();
        let message = admin::SubmitBatchRequest { name, items, ..Default::default() };
        std::future::ready((begun.elapsed() < ROUND).then_some((message, String::new())))
    });
    let answers = building.acme.client.events().submit_batch(messages).await.expect("a stream");
    let (mut answers, mut count) = (answers.into_inner(), 0);
    while let Some(answer) = answers.message().await.expect("answers") {
        count += answer.results.len();
    }
    let (time, cpu) = (begun.elapsed(), building.watched().cpu() - cpu);
    Round { count, time, latencies: Vec::new(), cpu, resident: building.watched().resident() }
}
