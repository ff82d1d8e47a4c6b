//! What is left out of a workspace that cannot be served whole and never was (R06 of sync): with nothing to fall back to, all is served but
//! bad resources and what depends on them. Hides what may be left out, and what is held up while it is missing, so that nothing that was
//! accepted is lost: endpoints that lead to it answer 503, deliveries of it wait, and so do those whose event would start it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use prost::Message as _;
use sluice_core::model::{Authorization, TokenSource};
use sluice_proto::admin::v1::Problem;
use sluice_proto::sync::v1::{Resource, resource::Document};

use super::compile::{PROBLEMS_MAX, faults_together, problem};
use super::table::Table;
use super::{Compiled, Parsed, Source, Workspace};
use crate::objection::CRASHED_APPLYING;

/// Why a resource is left out, or an endpoint held up, that is good itself.
pub(super) const QUARANTINED_WITH: &str = "QUARANTINED_WITH";

/// What is to be done with a revision that cannot be served whole.
#[derive(Clone, Copy, Debug)]
pub enum Faulty<'a> {
    /// Nothing of it is served.
    Refuse,
    /// What is good is served, where nothing that works is lost by it. These have ended the process and are not even tried.
    LeaveOut(&'a BTreeSet<String>),
}

impl Faulty<'_> {
    /// This resource is not tried.
    pub(super) fn skips(&self, resource: &str) -> bool {
        match self {
            Self::Refuse => false,
            Self::LeaveOut(deadly) => deadly.contains(resource),
        }
    }
}

/// Leaving out what is faulty would take away what works, or is not wanted.
#[derive(Debug)]
pub(super) struct SomethingLost;

/// What is left out of a workspace; nothing of one that is whole.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Resources.
    names: BTreeSet<String>,
    /// Why; those that are at fault first.
    problems: Vec<Problem>,
    /// Ids of endpoints that answer 503.
    endpoints: HashSet<String>,
    /// Actions of response events that a workflow asks for which is left out.
    actions: HashSet<String>,
}

impl LeftOut {
    /// Leaves out of `compiled` what is at fault by itself and what depends on it.
    ///
    /// # Errors
    /// Something that works would be lost.
    pub(super) fn of(
        source: &Source,
        compiled: &mut BTreeMap<Arc<str>, Compiled>,
        faults: Vec<Problem>,
        previous: Option<&Workspace>,
        faulty: Faulty<'_>,
    ) -> Result<Self, SomethingLost> {
        let Faulty::LeaveOut(deadly) = faulty else { return Err(SomethingLost) };
        let message =
            "this data plane has died more than once while it worked on this resource; another build of it tries again";
        let died = deadly.iter().filter(|name| source.resources.contains_key(*name));
        let died = died.map(|name| problem(name, "", CRASHED_APPLYING, message));
        let mut found: Vec<Problem> = died.chain(faults).collect();
        let mut left_out = Self::default();
        loop {
            for fault in &found {
                compiled.remove(fault.resource.as_str());
                left_out.names.insert(fault.resource.clone());
            }
            left_out.problems.append(&mut found);
            found = faults_together(compiled, &left_out.names);
            if found.is_empty() {
                break;
            }
        }
        let nothing_is_lost = previous.is_none_or(|previous| previous.left_out.has_all(&left_out.names));
        if nothing_is_lost { Ok(left_out) } else { Err(SomethingLost) }
    }

    /// Holds up the endpoints that lead to what is left out.
    pub(super) fn hold(&mut self, source: &Source, compiled: &Table<Compiled>) {
        let mut started: HashMap<String, &str> = HashMap::new();
        let mut no_login = false;
        for name in &self.names {
            let resource = source.resources.get(name).and_then(|encoded| Resource::decode(encoded.clone()).ok());
            match resource.and_then(|resource| resource.document) {
                Some(Document::IncomingIntegration(incoming)) => {
                    self.endpoints.insert(incoming.endpoint_id);
                }
                Some(Document::Workflow(workflow)) => {
                    for trigger in workflow.triggers {
                        started.insert(trigger.incoming_integration, name);
                        self.actions.extend(trigger.response_event.map(|event| event.action));
                    }
                }
                Some(Document::LoginKey(_) | Document::TokenKeys(_)) => no_login = true,
                Some(_) | None => {}
            }
        }
        for entry in compiled.iter() {
            let Parsed::Incoming(incoming) = &entry.document else { continue };
            let by_key = matches!(&incoming.authorization, Authorization::Jwt(TokenSource::ApiKey(_)));
            let needs = started.get(&*incoming.name).copied().or((no_login && by_key).then_some("its API key"));
            if let Some(needs) = needs {
                let message = format!("`{needs}`, which its requests need, is left out");
                self.problems.push(problem(&incoming.name, "", QUARANTINED_WITH, &message));
                self.endpoints.insert(incoming.endpoint_id.to_string());
            }
        }
        self.problems.truncate(PROBLEMS_MAX);
    }

    /// It is whole.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many resources.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Why, at most 100.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether this resource is left out.
    pub fn has(&self, resource: &str) -> bool {
        self.names.contains(resource)
    }

    /// Whether all of these are left out.
    pub fn has_all(&self, resources: &BTreeSet<String>) -> bool {
        resources.is_subset(&self.names)
    }

    /// The ids of the endpoints that answer 503.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    /// Whether the endpoint with this id answers 503.
    pub fn holds_up(&self, id: &str) -> bool {
        self.endpoints.contains(id)
    }

    /// The names of the resources.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether a workflow that is left out asks for response events with this action.
    pub fn asks_for(&self, action: &str) -> bool {
        self.actions.contains(action)
    }
}
