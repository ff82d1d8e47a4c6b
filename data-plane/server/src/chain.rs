//! What starts a delivery, and what its end starts in turn (D01): a response event may start workflows that ask for it.
//!
//! Hides how a job tells which of the two started it, and how the jobs that an event starts are made: in the lane of the delivery
//! that told it, one hop further, under ids that follow from the event, so that making them twice makes them once.

use bytes::Bytes;
use prost::Message as _;
use sluice_core::cause::{Cause, EventEnvelope};
use sluice_core::envelope::Envelope;
use sluice_core::model::Workflow;
use sluice_core::response_event::{Customer, ResponseEvent};
use sluice_proto::sync::v1::Job;
use uuid::Uuid;

use crate::inbox::{Lane, NewJob};
use crate::runtime::{Wanting, Workspace};

/// What a job's templates look at.
#[derive(Debug)]
pub enum Started {
    /// By a request.
    Request(Envelope),
    /// By an event that a delivery told or a caller submitted.
    Event(EventEnvelope),
}

impl Started {
    /// Reads it from a job; `None` when it cannot be read.
    pub fn read(job: &Job) -> Option<Self> {
        if job.event.is_empty() {
            Envelope::from_kept(&job.envelope).ok().map(Self::Request)
        } else {
            EventEnvelope::from_json(&job.event).ok().map(Self::Event)
        }
    }

    /// For filters and templates.
    pub fn cause(&self) -> Cause<'_> {
        match self {
            Self::Request(envelope) => Cause::Request(envelope),
            Self::Event(event) => Cause::Event(event),
        }
    }

    /// Whose delivery it is, for the response event (F24).
    pub fn profile(&self) -> Customer<'_> {
        match self {
            Self::Request(_) => Customer::default(),
            Self::Event(event) => event.profile(),
        }
    }
}

/// Bytes of what a job's templates look at.
pub fn started_bytes(job: &Job) -> usize {
    job.envelope.len() + job.event.len()
}

/// One job for each step of each workflow that asks for this event. How far a chain may go is decided where the next call is
/// sent.
pub fn jobs(workspace: &Workspace, event: &ResponseEvent, before: &Job, lane: Lane) -> Vec<NewJob> {
    let listening = workspace.listening(&event.action);
    let Ok(event_id) = Uuid::parse_str(&event.id) else { return Vec::new() };
    if listening.is_empty() {
        return Vec::new();
    }
    let envelope = EventEnvelope::of(event);
    let wants = |workflow: &Workflow| {
        let mut triggers = workflow.triggers.iter().filter(|trigger| trigger.is_response_event(&event.action));
        triggers.any(|trigger| trigger.filter.as_ref().is_none_or(|filter| filter.matches(&envelope)))
    };
    let encoded = Bytes::from(envelope.to_json());
    let mut jobs = Vec::new();
    for Wanting { workflow, flows } in listening.iter().filter(|wanting| wants(&wanting.workflow)) {
        for (step, flow) in workflow.steps.iter().zip(flows) {
            let job = Job {
                workspace: workspace.name.clone(),
                workflow: workflow.name.clone(),
                step_id: step.id.clone(),
                trigger_id: event.id.clone(),
                revision: workspace.revision,
                event: encoded.clone(),
                hops: before.hops.saturating_add(1),
                trace: before.trace.clone(),
                ..Job::default()
            };
            let id = Uuid::new_v5(&event_id, format!("{}/steps/{}", workflow.name, step.id).as_bytes());
            jobs.push(NewJob { id, lane, flow: flow.clone(), payload: job.encode_to_vec().into() });
        }
    }
    jobs
}
