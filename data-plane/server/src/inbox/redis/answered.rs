//! Questions to a task, and their answers: none is left without one, not even when the task ends in that moment.

use tokio::sync::{mpsc, oneshot};

use super::super::Unavailable;

/// Waits for the answer of whoever takes questions from `line`. A question that was put there in the moment in which it closed is
/// never looked at, and nothing drops it while somebody else may still put questions there.
pub(super) async fn answered<Q, A>(line: &mpsc::Sender<Q>, mut answer: oneshot::Receiver<A>) -> Result<A, Unavailable> {
    tokio::select! {
        biased;
        answer = &mut answer => answer.map_err(|_| Unavailable),
        () = line.closed() => answer.try_recv().map_err(|_| Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_question_that_comes_while_the_line_closes_is_answered() {
        let (line, taken) = mpsc::channel(1);
        let place = line.reserve().await.unwrap();
        drop(taken);
        let (reply, answer) = oneshot::channel::<()>();
        place.send(reply);
        assert_eq!(answered(&line, answer).now_or_never(), Some(Err(Unavailable)));
    }

    #[tokio::test]
    async fn an_answer_counts_although_the_line_is_closed_since() {
        let (line, taken) = mpsc::channel::<()>(1);
        let (reply, answer) = oneshot::channel();
        reply.send(7).unwrap();
        drop(taken);
        assert_eq!(answered(&line, answer).now_or_never(), Some(Ok(7)));
    }
}
