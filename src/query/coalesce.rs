//! Many questions, one statement: while one is under way, the questions that arrive gather for the next.
//!
//! A question is answered by a statement that was sent after it was asked, so whoever asks sees what was acknowledged
//! before. Nothing is kept.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::QueryError;
use crate::domain::SpaceNo;
use crate::store::StoreError;

/// Questions one statement answers at most.
const TOGETHER_MAX: usize = 512;
/// Questions waiting at most.
const QUEUE_MAX: usize = 8_192;

/// How questions of one kind are answered.
pub(super) trait Ask: Clone + Send + Sync + 'static {
    /// What is asked for, within a space.
    type Key: Ord + Hash + Clone + Send + Sync;
    /// What there is under it.
    type Answer: Clone + Send + Sync;

    /// Answers those there is something under.
    fn ask(
        &self,
        space: SpaceNo,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Answer>, StoreError>> + Send;
}

type Answer<A> = Result<Option<A>, Arc<StoreError>>;

struct Question<A: Ask> {
    space: SpaceNo,
    key: A::Key,
    answer: oneshot::Sender<Answer<A::Answer>>,
}

/// The asking side.
pub(super) struct Asking<A: Ask>(mpsc::Sender<Question<A>>);

impl<A: Ask> Clone for Asking<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Ask> std::fmt::Debug for Asking<A> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Asking")
    }
}

/// The answering side: run it on as many tasks as statements should overlap.
pub(super) struct Answering<A: Ask> {
    questions: Arc<Mutex<mpsc::Receiver<Question<A>>>>,
    asks: A,
}

impl<A: Ask> Clone for Answering<A> {
    fn clone(&self) -> Self {
        Self { questions: Arc::clone(&self.questions), asks: self.asks.clone() }
    }
}

/// Makes the two sides.
pub(super) fn coalesce<A: Ask>(asks: A) -> (Asking<A>, Answering<A>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Asking(sender), Answering { questions: Arc::new(Mutex::new(receiver)), asks })
}

impl<A: Ask> Asking<A> {
    /// What there is under a key.
    pub(super) async fn find(&self, space: SpaceNo, key: A::Key) -> Result<Option<A::Answer>, QueryError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { space, key, answer }).await.map_err(|_| QueryError::Stopping)?;
        let answer = answered.await.map_err(|_| QueryError::Stopping)?;
        answer.map_err(|error| match Arc::try_unwrap(error) {
            Ok(error) => QueryError::Store(error),
            Err(shared) if shared.is_temporary() => {
                QueryError::Store(StoreError::Unavailable(sqlx::Error::PoolTimedOut))
            }
            Err(shared) => QueryError::Store(StoreError::Damaged(shared.to_string())),
        })
    }
}

impl<A: Ask> Answering<A> {
    /// Answers until every [`Asking`] is gone.
    pub(super) async fn run(self) {
        loop {
            let questions = self.gather().await;
            if questions.is_empty() {
                return;
            }
            let mut spaces: BTreeMap<SpaceNo, Vec<Question<A>>> = BTreeMap::new();
            for question in questions {
                spaces.entry(question.space).or_default().push(question);
            }
            for (space, questions) in spaces {
                self.answer(space, questions).await;
            }
        }
    }

    async fn gather(&self) -> Vec<Question<A>> {
        let mut queue = self.questions.lock().await;
        let mut questions = Vec::new();
        queue.recv_many(&mut questions, TOGETHER_MAX).await;
        questions
    }

    async fn answer(&self, space: SpaceNo, questions: Vec<Question<A>>) {
        let mut keys: Vec<A::Key> = questions.iter().map(|question| question.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let found = self.asks.ask(space, &keys).await.map_err(Arc::new);
        for question in questions {
            let answer = match &found {
                Ok(found) => Ok(found.get(&question.key).cloned()),
                Err(error) => Err(Arc::clone(error)),
            };
            // Whoever asked may be gone.
            let _gone = question.answer.send(answer);
        }
    }
}
