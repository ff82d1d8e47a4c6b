//! Commands to data planes of other control planes, and what came of them. To who gives a command, the way there looks like that to a
//! stream of his own: [`crate::commands`] knows no difference.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{Command, CommandResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::commands::{Order, Orders, WAITING_MAX};
use crate::data_planes::{Line, Registry};
use crate::store::LetterRow;
use crate::wakes::{Topic, Wakes};

/// How long a command of another control plane is waited for: longer than any caller does.
const DONE_WITHIN: Duration = Duration::from_secs(60);
/// Letters that are sent in one round.
const LETTERS_MAX: usize = 200;

/// What a letter is sealed for, so that it is read as nothing else.
pub(super) fn bound(letter: &LetterRow) -> String {
    let LetterRow { receiver, sender, number, data_plane, session, body: _ } = letter;
    format!("letter {number} of {sender} to {receiver} for {session} {data_plane}")
}

/// What goes out in one round.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Of an answer, the data plane is empty. Not sealed yet, and without their sender.
    pub(super) letters: Vec<LetterRow>,
    pub(super) topics: BTreeSet<Topic>,
}

/// What waits to go out, and who waits for an answer.
pub(crate) struct Post {
    pub(super) registry: Registry,
    pub(super) wakes: Wakes,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    /// As the others know this control plane.
    id: String,
    is_closed: bool,
    letters: VecDeque<LetterRow>,
    topics: BTreeSet<Topic>,
    asked: HashMap<i64, Asked>,
    last: i64,
    /// The last command that was taken of each of the others.
    taken: HashMap<String, i64>,
}

/// Who waits for an answer.
struct Asked {
    data_plane: String,
    session: i64,
    reply: oneshot::Sender<Outcome>,
    /// Among the commands that are on their way to this data plane.
    _place: OwnedSemaphorePermit,
}

impl Post {
    pub(super) fn new(registry: Registry, wakes: Wakes) -> Self {
        Self { registry, wakes, desk: Mutex::default() }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The others know this control plane by this id now.
    pub(super) fn named(&self, id: &str) {
        id.clone_into(&mut self.desk().id);
    }

    /// The others are to be woken.
    pub(super) fn tell(&self, topic: Topic) {
        self.desk().topics.insert(topic);
        self.wakes.replicas.wake();
    }

    /// Somebody woke.
    pub(super) fn hear(&self, word: &str) {
        let Some((topic, sender)) = word.split_once(' ') else { return };
        if let Some(topic) = Topic::of_word(topic).filter(|_| sender != self.desk().id) {
            self.wakes.wake(topic);
        }
    }

    pub(super) fn outgoing(&self) -> Outgoing {
        let mut desk = self.desk();
        let count = desk.letters.len().min(LETTERS_MAX);
        let letters = desk.letters.drain(..count).collect();
        if !desk.letters.is_empty() {
            self.wakes.replicas.wake();
        }
        Outgoing { letters, topics: std::mem::take(&mut desk.topics) }
    }

    /// What could not be sent.
    pub(super) fn keep(&self, outgoing: Outgoing) {
        let mut desk = self.desk();
        for letter in outgoing.letters.into_iter().rev() {
            // Nobody waits for it any more.
            if letter.data_plane.is_empty() || desk.asked.contains_key(&letter.number) {
                desk.letters.push_front(letter);
            }
        }
        desk.topics.extend(outgoing.topics);
    }

    /// Nothing comes or goes any more.
    pub(super) fn close(&self) {
        let mut desk = self.desk();
        desk.is_closed = true;
        desk.asked.clear();
    }

    fn ask(&self, line: &Line, order: Order, place: OwnedSemaphorePermit) {
        let mut desk = self.desk();
        if desk.is_closed {
            return;
        }
        desk.last += 1;
        let number = desk.last;
        let command = Command { id: number.unsigned_abs(), kind: Some(*order.kind) };
        let (data_plane, session) = (line.data_plane.clone(), line.session);
        desk.letters.push_back(LetterRow {
            receiver: line.replica.clone(),
            sender: String::new(),
            number,
            data_plane: data_plane.clone(),
            session,
            body: command.encode_to_vec(),
        });
        desk.asked.insert(number, Asked { data_plane, session, reply: order.reply, _place: place });
        drop(desk);
        self.wakes.replicas.wake();
    }

    /// A letter has come: a command is carried out, and an answer given to who waits for it.
    pub(super) fn receive(self: Arc<Self>, letter: LetterRow) {
        if letter.data_plane.is_empty() {
            let asked = self.desk().asked.remove(&letter.number);
            let outcome = CommandResult::decode(letter.body.as_slice()).ok().and_then(|result| result.outcome);
            if let (Some(asked), Some(outcome)) = (asked, outcome) {
                // Who gave up waiting is gone.
                let _ = asked.reply.send(outcome);
            }
            return;
        }
        if !self.desk().is_new(&letter) {
            return;
        }
        let kind = Command::decode(letter.body.as_slice()).ok().and_then(|command| command.kind);
        let orders = self.registry.orders_here(&letter.data_plane, letter.session);
        tokio::spawn(async move {
            let drains = match &kind {
                Some(Kind::Drain(wanted)) => Some(!wanted.resume),
                Some(_) | None => None,
            };
            let outcome = match (orders, kind) {
                (Some(orders), Some(kind)) => carry_out(orders, kind).await,
                _ => None,
            };
            // Whoever asked knows it; everybody else hears it from here.
            if let (Some(draining), Some(Outcome::Drained(_))) = (drains, &outcome) {
                self.registry.set_draining(&letter.data_plane, draining);
            }
            let result = CommandResult { id: letter.number.unsigned_abs(), outcome };
            let answer = LetterRow {
                receiver: letter.sender,
                sender: String::new(),
                number: letter.number,
                data_plane: String::new(),
                session: letter.session,
                body: result.encode_to_vec(),
            };
            self.desk().letters.push_back(answer);
            self.wakes.replicas.wake();
        });
    }

    /// Ends the waiting of those whose data plane is not there any more, and forgets those who wait no more, and the others that are not
    /// among these.
    pub(super) fn give_up(&self, others: &BTreeSet<String>) {
        let mut desk = self.desk();
        desk.taken.retain(|sender, _| others.contains(sender));
        desk.asked.retain(|_, asked| {
            !asked.reply.is_closed() && self.registry.is_elsewhere(&asked.data_plane, asked.session)
        });
    }
}

impl Desk {
    /// Whether a command is not one that was taken already. Whoever does not hear whether a round was kept, as the database was gone in
    /// that moment, sends its letters again; a command is done once all the same. Each of the others numbers its own, in their order.
    fn is_new(&mut self, letter: &LetterRow) -> bool {
        let last = self.taken.entry(letter.sender.clone()).or_default();
        let is_new = letter.number > *last;
        *last = letter.number.max(*last);
        is_new
    }
}

/// `None`: the stream has ended, or nothing came.
async fn carry_out(orders: Orders, kind: Kind) -> Option<Outcome> {
    let (reply, answer) = oneshot::channel();
    let outcome = async {
        orders.send(Order { kind: Box::new(kind), reply }).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(DONE_WITHIN, outcome).await.ok().flatten()
}

/// Takes the commands for one data plane that is connected elsewhere, as many at once as its stream does.
pub(super) async fn forward(post: Arc<Post>, mut line: Line) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Some(order) = line.orders.recv().await else { return };
        post.ask(&line, order, place);
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::sync::v1::{DrainPlane, Hello};

    use super::*;
    use crate::enrolment::Scope;
    use crate::rounds::Rounds;

    /// Whoever waits for a data plane whose control plane is gone is told at once, and nobody else.
    #[tokio::test]
    async fn nobody_waits_for_what_is_gone() {
        let there = Registry::telling(Rounds::default());
        let hello = Hello { data_plane_id: "a".to_owned(), takes_commands: true, ..Hello::default() };
        let _stream = there.register(&hello, &Scope::All, 1, 1).unwrap();
        let post = Arc::new(Post::new(Registry::default(), Wakes::new(Rounds::default())));
        let others = BTreeSet::from(["there".to_owned()]);
        let line = post.registry.hear("there", there.news(10).into_iter()).lines.remove(0);
        tokio::spawn(forward(post.clone(), line));
        let (reply, mut answer) = oneshot::channel();
        let order = Order { kind: Box::new(Kind::Drain(DrainPlane::default())), reply };
        post.registry.orders("a").unwrap().send(order).await.unwrap();
        while post.outgoing().letters.is_empty() {
            tokio::task::yield_now().await;
        }
        post.give_up(&others);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        post.registry.keep_replicas(&BTreeSet::new());
        post.give_up(&BTreeSet::new());
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn what_others_say_wakes_and_what_it_says_itself_does_not() {
        let post = Post::new(Registry::default(), Wakes::new(Rounds::default()));
        post.named("here");
        let (outcomes, captures) = (post.wakes.outcomes(), post.wakes.captures());
        for nothing in ["outcomes here", "outcomes", "captures here", "of a newer there"] {
            post.hear(nothing);
        }
        assert!(!outcomes.has_changed().unwrap() && !captures.has_changed().unwrap());
        post.hear("outcomes there");
        assert!(outcomes.has_changed().unwrap() && !captures.has_changed().unwrap());
    }

    #[test]
    fn a_command_that_is_sent_again_is_not_done_again() {
        let mut desk = Desk::default();
        let letter = |sender: &str, number| LetterRow {
            receiver: "here".to_owned(),
            sender: sender.to_owned(),
            number,
            data_plane: "dp-1".to_owned(),
            session: 1,
            body: Vec::new(),
        };
        let new = [("a", 1), ("a", 2), ("b", 1), ("a", 1), ("a", 2), ("a", 3), ("b", 2), ("b", 2)];
        let new: Vec<bool> = new.into_iter().map(|(sender, number)| desk.is_new(&letter(sender, number))).collect();
        assert_eq!(new, [true, true, true, false, false, true, true, false]);
    }
}
