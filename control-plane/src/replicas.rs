//! Several control planes on one PostgreSQL database, all at work. Hides how each knows of the data planes of the others, how a command
//! gets to a data plane that is connected elsewhere, and how they wake each other.
//!
//! They speak through the database alone, so there is nothing else to configure, to listen on or to trust. One task makes one round after
//! the other, each a transaction: it says that it is there, tells what is new of its data planes, sends commands and answers, and reads
//! what the others did. A NOTIFY only begins a round earlier; one a second comes anyway, so none is waited for. What is told is of the
//! moment: whoever is forgotten tells everything again.

mod post;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prost::Message as _;
use sluice_core::seal::Secret;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::data_planes::{Part, Told};
use crate::error::{Error, chain};
use crate::secrets::Secrets;
use crate::shared::Shared;
use crate::store::{LetterRow, Listener, PartRow, Store, StoreError, Transaction};
use crate::wakes::Topic;
use post::{Outgoing, Post};

/// How often a round is made when nothing wakes.
const EVERY: Duration = Duration::from_secs(1);
/// A control plane that said nothing for so long is gone, in seconds. One that stops says so.
const SILENT: i64 = 15;
/// Letters that nobody has fetched for so long are thrown away, in seconds.
const LETTER_KEPT: i64 = 30;
/// Parts of data planes that are told in one round; further ones are told in the next.
const PARTS_MAX: usize = 2000;

/// The other control planes of the database.
pub(crate) enum Replicas {
    /// There can be none. Numbers of streams are counted here.
    None(AtomicI64),
    /// There can be some.
    Some(Arc<Post>),
}

impl Default for Replicas {
    fn default() -> Self {
        Self::None(AtomicI64::new(0))
    }
}

impl Replicas {
    /// Joins those that work on the database already, and knows what they know when it returns. It goes on in a task until the control
    /// plane stops.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn join(shared: &mut Shared, url: Secret) -> Result<(), Error> {
        let post = Arc::new(Post::new(shared.data_planes.clone(), shared.wakes.clone()));
        let mut exchange = Exchange {
            post: post.clone(),
            store: shared.store.clone(),
            secrets: shared.secrets.clone(),
            id: String::new(),
            change: 0,
            heard: BTreeMap::new(),
            left: Vec::new(),
        };
        exchange.round().await?;
        tokio::spawn(exchange.run(shared.stop.clone()));
        tokio::spawn(listen(post.clone(), url, shared.stop.clone()));
        shared.replicas = Self::Some(post);
        Ok(())
    }

    /// A number greater than those of all streams that data planes have begun, here or elsewhere.
    pub(crate) async fn session_number(&self, store: &Store) -> Result<i64, StoreError> {
        match self {
            Self::None(last) => Ok(last.fetch_add(1, Ordering::SeqCst) + 1),
            Self::Some(_) => {
                let mut tx = store.write_aside().await?;
                let number = tx.session_number().await?;
                tx.commit().await?;
                Ok(number)
            }
        }
    }

    /// Waits until what is new here was told, and what was new elsewhere was heard; or could not be.
    pub(crate) async fn fresh(&self) {
        match self {
            Self::None(_) => {}
            Self::Some(post) => post.wakes.replicas.fresh().await,
        }
    }

    /// Wakes the others.
    pub(crate) fn tell(&self, topic: Topic) {
        match self {
            Self::None(_) => {}
            Self::Some(post) => post.tell(topic),
        }
    }

    /// When the control plane stops: waits until the others know.
    pub(crate) async fn left(&self) {
        match self {
            Self::None(_) => {}
            Self::Some(post) => post.wakes.replicas.ended().await,
        }
    }
}

/// The task.
struct Exchange {
    post: Arc<Post>,
    store: Store,
    secrets: Arc<Secrets>,
    /// As the others know it; another one when they have forgotten it.
    id: String,
    /// The last of its changes.
    change: i64,
    /// The last change that was read of each of the others.
    heard: BTreeMap<String, i64>,
    /// Data planes that have gone elsewhere, with the number of their stream there.
    left: Vec<(String, i64)>,
}

/// What the others did.
#[derive(Default)]
struct Heard {
    parts: Vec<(String, Vec<PartRow>)>,
    letters: Vec<LetterRow>,
}

impl Exchange {
    async fn run(mut self, stop: CancellationToken) {
        let rounds = self.post.wakes.replicas.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = rounds.woken() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            let round = rounds.begin();
            if let Err(error) = self.round().await {
                tracing::warn!(error = %chain(&error), "cannot exchange with other control planes; trying again");
            }
            rounds.done(round);
        }
        self.post.close();
        if let Err(error) = self.leave().await {
            tracing::info!(error = %chain(&error), "the other control planes find out by themselves that this one has ended");
        }
        rounds.end();
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut tx = self.store.write_aside().await?;
        tx.replica_delete(&self.id).await?;
        tx.notify(&word(Topic::Replicas, &self.id)).await?;
        tx.commit().await
    }

    /// One round; what could not be told is told in the next.
    async fn round(&mut self) -> Result<(), Error> {
        let told = self.post.registry.news(PARTS_MAX);
        let outgoing = self.post.outgoing();
        match self.exchange(&told, &outgoing).await {
            Ok(heard) => {
                if told.len() == PARTS_MAX {
                    self.post.wakes.replicas.wake();
                }
                self.take(heard);
                Ok(())
            }
            Err(error) => {
                self.post.registry.keep(&told);
                self.post.keep(outgoing);
                Err(error)
            }
        }
    }

    /// The transaction of a round.
    async fn exchange(&mut self, told: &[Told], outgoing: &Outgoing) -> Result<Heard, Error> {
        let mut tx = self.store.write_aside().await?;
        if self.id.is_empty() || !tx.replica_seen(&self.id).await? {
            self.id = Uuid::new_v4().to_string();
            tx.replica_put(&self.id).await?;
            self.post.named(&self.id);
            self.post.registry.tell_again();
        }
        // Never used again, whatever becomes of this round.
        self.change += 1;
        self.tell(&mut tx, told).await?;
        for letter in &outgoing.letters {
            let mut letter = LetterRow { sender: self.id.clone(), ..letter.clone() };
            letter.body = self.secrets.seal_own(&mut tx, &post::bound(&letter), &letter.body).await?;
            tx.letter_put(&letter).await?;
        }
        let news = !told.is_empty() || !outgoing.letters.is_empty();
        for topic in outgoing.topics.iter().copied().chain(news.then_some(Topic::Replicas)) {
            tx.notify(&word(topic, &self.id)).await?;
        }
        let others = tx.replicas_but(&self.id, SILENT, LETTER_KEPT).await?;
        let mut heard = Heard::default();
        for other in others {
            let after = self.heard.get(&other).copied().unwrap_or(0);
            let parts = tx.parts_after(&other, after).await?;
            heard.parts.push((other, parts));
        }
        for row in tx.letters_take(&self.id).await? {
            heard.letters.extend(self.open(&mut tx, row).await);
        }
        tx.commit().await?;
        self.left.clear();
        Ok(heard)
    }

    async fn tell(&self, tx: &mut Transaction, told: &[Told]) -> Result<(), StoreError> {
        let begun = told.iter().filter(|told| told.is_stream()).map(|told| (&told.data_plane, told.session));
        for (data_plane, session) in begun.chain(self.left.iter().map(|(id, session)| (id, *session))) {
            tx.parts_delete(&self.id, data_plane, session).await?;
        }
        let row = |told: &Told| PartRow {
            data_plane: told.data_plane.clone(),
            part: told.part.clone(),
            session: told.session,
            change: self.change,
            body: told.body.encode_to_vec(),
        };
        tx.parts_put(&self.id, &told.iter().map(row).collect::<Vec<_>>()).await
    }

    /// A letter that can be read; another one is nobody's.
    async fn open(&self, tx: &mut Transaction, mut letter: LetterRow) -> Option<LetterRow> {
        let sealed = std::mem::take(&mut letter.body);
        match self.secrets.open_own(tx, &post::bound(&letter), sealed).await {
            Ok(body) => Some(LetterRow { body: body.to_vec(), ..letter }),
            Err(error) => {
                tracing::error!(error = %chain(&error), "a letter of another control plane cannot be read");
                None
            }
        }
    }

    /// Takes over what was heard.
    fn take(&mut self, heard: Heard) {
        let there: BTreeSet<String> = heard.parts.iter().map(|(replica, _)| replica.clone()).collect();
        for (replica, rows) in heard.parts {
            let Some(last) = rows.iter().map(|row| row.change).max() else { continue };
            let told = rows.into_iter().filter_map(|row| {
                let body = Part::decode(row.body.as_slice()).ok()?;
                Some(Told { data_plane: row.data_plane, part: row.part, session: row.session, body })
            });
            let taken = self.post.registry.hear(&replica, told);
            self.left.extend(taken.left);
            taken.lines.into_iter().for_each(|line| drop(tokio::spawn(post::forward(self.post.clone(), line))));
            self.heard.insert(replica, last);
        }
        self.heard.retain(|replica, _| there.contains(replica));
        self.post.registry.keep_replicas(&there);
        for letter in heard.letters {
            self.post.clone().receive(letter);
        }
        self.post.give_up(&there);
    }
}

fn word(topic: Topic, id: &str) -> String {
    format!("{} {id}", topic.word())
}

/// Wakes who waits here when others say that something has changed, or when nobody knows what they said.
async fn listen(post: Arc<Post>, url: Secret, stop: CancellationToken) {
    let listening = async {
        loop {
            match Listener::start(&url).await {
                Ok(mut listener) => {
                    post.wakes.wake_all();
                    while let Ok(said) = listener.heard().await {
                        match said {
                            Some(word) => post.hear(&word),
                            None => post.wakes.wake_all(),
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot listen to other control planes; trying again")
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listening => {}
    }
}
