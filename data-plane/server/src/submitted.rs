//! Events that callers submit, alone or as members of an audience (D01, R126): which workflows they start, and the one durable step
//! that keeps each (I1, I2). They come as commands of the control plane, many to a command; the inbox commits them together.

use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use sluice_core::cause::{EventEnvelope, Of, submission_key};
use sluice_core::model::{Trigger, Workflow};
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::taken_event::State;
use sluice_proto::sync::v1::{CommandError, Job, SubmitEvents, Submitted, SubmittedEvent, TakenEvent, TakenEvents};
use uuid::Uuid;

use crate::commands::refuse;
use crate::inbox::{Accept, Accepted, Claim, Lane, NewJob, Unavailable};
use crate::plane::Plane;
use crate::runtime::{Wanting, Workspace};

/// How long an id is remembered after the last event that carried it.
const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// Keeps each of the events, or says that it is kept already, or that there is no room for it.
///
/// # Errors
/// Nothing was kept: the workspace or the workflow is not served here, or the command cannot be read.
pub async fn take(plane: &Plane, asked: SubmitEvents) -> Result<TakenEvents, CommandError> {
    let runtime = plane.served.load();
    // Where a part of it is missing nobody can say which workflows want an event.
    let workspace = runtime.workspace(&asked.workspace).filter(|workspace| workspace.left_out.is_empty());
    let workspace =
        workspace.ok_or_else(|| refuse(Code::WorkspaceNotServed, "the workspace is not served here (yet)"))?;
    let audience = match asked.workflow.as_str() {
        "" => None,
        name => {
            let gone = || refuse(Code::StepRemoved, "the workflow is not published here (yet), or has no audience");
            Some(workspace.audience(name).ok_or_else(gone)?)
        }
    };
    let submissions = asked.events.into_iter().map(|event| Submission::read(workspace, audience, event));
    let submissions = submissions.collect::<Option<Vec<_>>>();
    let submissions = submissions.ok_or_else(|| refuse(Code::UnknownCommand, "this release cannot read the events"))?;
    let events = join_all(submissions.into_iter().map(|submission| submission.keep(plane))).await;
    Ok(TakenEvents { events })
}

/// One event on its way into the inbox.
struct Submission<'a> {
    workspace: &'a Workspace,
    /// The workflow of whose audience it is a member.
    audience: Option<&'a Wanting>,
    trigger_id: Uuid,
    submitted: Submitted,
    event: SubmittedEvent,
    envelope: EventEnvelope,
}

impl<'a> Submission<'a> {
    fn read(workspace: &'a Workspace, audience: Option<&'a Wanting>, mut event: SubmittedEvent) -> Option<Self> {
        let trigger_id = Uuid::try_parse(&event.trigger_id).ok()?;
        let envelope = EventEnvelope::from_json(&event.event).ok()?;
        let submitted = event.submitted.take()?;
        Some(Self { workspace, audience, trigger_id, submitted, event, envelope })
    }

    async fn keep(self, plane: &Plane) -> TakenEvent {
        let wanted = self.wanted();
        let jobs = self.jobs(&wanted);
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let (workflows, deliveries) = (number(wanted.len()), number(jobs.len()));
        let claim = Some(Claim { key: self.key(), window: WINDOW });
        let state = match plane.inbox.accept(Accept { request: self.trigger_id, claim, jobs }).await {
            Ok(Accepted::Accepted) => State::Accepted,
            Ok(Accepted::Duplicate) => State::Duplicate,
            Ok(Accepted::Full) => State::Full,
            Err(Unavailable) => State::Unavailable,
        };
        plane.metrics.submitted(code(state, workflows));
        match state {
            State::Accepted => TakenEvent { state: state.into(), workflows, deliveries },
            State::Unspecified | State::Duplicate | State::Full | State::Unavailable => {
                TakenEvent { state: state.into(), ..TakenEvent::default() }
            }
        }
    }

    fn key(&self) -> [u8; 32] {
        let of = match self.audience {
            Some(audience) => Of::Audience(&audience.workflow.name),
            None => Of::Action(&self.submitted.action),
        };
        submission_key(&self.workspace.name, of, &self.submitted.id)
    }

    /// The workflows that want it.
    fn wanted(&self) -> Vec<&'a Wanting> {
        let asking = match self.audience {
            Some(audience) => std::slice::from_ref(audience),
            None => self.workspace.submitted(&self.submitted.action),
        };
        let starts = |trigger: &&Trigger| match self.audience {
            Some(_) => trigger.is_audience(),
            None => trigger.is_event(&self.submitted.action),
        };
        let wants = |workflow: &Workflow| {
            let mut triggers = workflow.triggers.iter().filter(starts);
            triggers.any(|trigger| trigger.filter.as_ref().is_none_or(|filter| filter.matches(&self.envelope)))
        };
        asking.iter().filter(|wanting| wants(&wanting.workflow)).collect()
    }

    /// One job for each step of each of these workflows. Who waits for an event is served before what an audience starts (R125, R126).
    fn jobs(&self, wanted: &[&Wanting]) -> Vec<NewJob> {
        let lane = if self.audience.is_some() { Lane::Bulk } else { Lane::Realtime };
        let mut jobs = Vec::new();
        for Wanting { workflow, flows } in wanted {
            for (step, flow) in workflow.steps.iter().zip(flows) {
                let job = Job {
                    workspace: self.workspace.name.clone(),
                    workflow: workflow.name.clone(),
                    step_id: step.id.clone(),
                    trigger_id: self.event.trigger_id.clone(),
                    revision: self.workspace.revision,
                    body_bytes: self.event.body_bytes,
                    event: self.event.event.clone(),
                    submitted: Some(self.submitted.clone()),
                    ..Job::default()
                };
                jobs.push(NewJob { id: Uuid::now_v7(), lane, flow: flow.clone(), payload: job.encode_to_vec().into() });
            }
        }
        jobs
    }
}

/// As metrics name it.
fn code(state: State, workflows: i32) -> &'static str {
    match state {
        State::Accepted if workflows == 0 => "filtered_out",
        State::Accepted => "accepted",
        State::Duplicate => "duplicate",
        State::Full => "full",
        State::Unspecified | State::Unavailable => "unavailable",
    }
}
