//! Bugs to have, so that crash tests can show they would notice.

use std::time::Duration;

use super::super::super::{Accept, Accepted, Fault};
use super::super::ask::Answer;
use super::{Ask, Call, Link, Script, Shard, Trouble};
use crate::crash::Moment;

/// How long a fault holds its window open.
const FAULT_DELAY: Duration = Duration::from_millis(500);

impl Shard {
    /// Before a step.
    pub(super) async fn misbehave(&mut self, link: &mut Link, calls: &mut [Call]) -> Result<(), Trouble> {
        let held_open = match self.settings.fault {
            Some(Fault::AnswerBeforeCommit) => answer_all(calls),
            Some(Fault::KeyBeforeJobs) => self.keep_keys(link, calls).await?,
            Some(Fault::EndAt(_) | Fault::HangAt(_)) | None => false,
        };
        if held_open {
            tokio::time::sleep(FAULT_DELAY).await;
        }
        Ok(())
    }

    /// Records the keys of what is new in a step of their own.
    async fn keep_keys(&mut self, link: &mut Link, calls: &mut [Call]) -> Result<bool, Trouble> {
        let mut kept = false;
        for call in calls {
            let Ask::Accept(accept) = &mut call.ask else { continue };
            if accept.claim.is_none() || accept.jobs.is_empty() {
                continue;
            }
            let key = Ask::Accept(Accept { jobs: Vec::new(), ..accept.clone() });
            let done = self.ask(link, Script::Step, &[Call::new(key, None)]).await?;
            if done.answers == [::redis::Value::Int(1)] {
                accept.claim = None;
                kept = true;
            }
        }
        Ok(kept)
    }

    /// After a step, before anybody here knows of it.
    pub(super) fn end_if_asked(&self, calls: &[Call]) {
        let moment = |call: &Call| match &call.ask {
            Ask::Accept(accept) if !accept.jobs.is_empty() => Some(Moment::Keeping),
            Ask::Finish { .. } => Some(Moment::Recording),
            _ => None,
        };
        if calls.iter().filter_map(moment).any(|moment| self.settings.fault == Some(Fault::EndAt(moment))) {
            std::process::abort();
        }
    }
}

/// Answers requests without a key before they are kept.
fn answer_all(calls: &mut [Call]) -> bool {
    let mut answered = false;
    for call in calls {
        if matches!(&call.ask, Ask::Accept(accept) if accept.claim.is_none())
            && let Some(reply) = call.reply.take()
        {
            let _nobody_waits = reply.send(Answer::Accepted(Accepted::Accepted));
            answered = true;
        }
    }
    answered
}
