//! Many questions, one statement: while one is under way, the questions that arrive gather for the next.
//!
//! A question is answered by a statement that was sent after it was asked, so whoever asks sees what was acknowledged
//! before. Nothing is kept.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::QueryError;
use crate::domain::SpaceNo;
use crate::store::StoreError;

/// Questions one statement answers at most.
const TOGETHER_MAX: usize = 512;
/// Questions waiting at most.
const QUEUE_MAX: usize = 8_192;
/// Longest time for a statement. The database has limits of its own; this is for a connection that says nothing any more.
const ASK_LIMIT: Duration = Duration::from_secs(20);

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
            // One after the other: a task asks over one connection.
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
        let silent = |_| Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        let found = tokio::time::timeout(ASK_LIMIT, self.asks.ask(space, &keys)).await.unwrap_or_else(silent);
        let found = found.map_err(Arc::new);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    /// Answers even numbers with how many statements there were; each statement needs leave.
    #[derive(Clone)]
    struct Evens {
        sent: Arc<AtomicUsize>,
        leave: Arc<Semaphore>,
    }

    impl Ask for Evens {
        type Key = u32;
        type Answer = usize;

        async fn ask(&self, _: SpaceNo, keys: &[u32]) -> Result<HashMap<u32, usize>, StoreError> {
            let sent = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            self.leave.acquire().await.unwrap().forget();
            if keys.contains(&1_313) {
                return Err(StoreError::Damaged("thirteen".into()));
            }
            Ok(keys.iter().filter(|key| *key % 2 == 0).map(|key| (*key, sent)).collect())
        }
    }

    fn evens() -> (Evens, Asking<Evens>, JoinSet<()>) {
        let evens = Evens { sent: Arc::default(), leave: Arc::new(Semaphore::new(0)) };
        let (asking, answering) = coalesce(evens.clone());
        (evens, asking, JoinSet::from_iter([answering.run()]))
    }

    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_asked_while_a_statement_is_under_way_waits_for_the_next_and_goes_with_it() {
        let (evens, asking, _running) = evens();
        let ask = |key| {
            let asking = asking.clone();
            async move { (key, asking.find(SpaceNo(1), key).await.unwrap()) }
        };
        let mut first = JoinSet::from_iter([ask(2)]);
        until(|| evens.sent.load(Ordering::SeqCst) == 1).await;
        // The same key again: what is under way may have read before this was asked.
        let others: JoinSet<_> = (0..100).map(ask).collect();
        until(|| asking.0.capacity() == QUEUE_MAX - 100).await;
        evens.leave.add_permits(2);
        assert_eq!(first.join_next().await.unwrap().unwrap(), (2, Some(1)));
        for (key, answer) in others.join_all().await {
            assert_eq!(answer, (key % 2 == 0).then_some(2), "{key}");
        }
        assert_eq!(evens.sent.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_asked_with_it_and_ends_nothing() {
        let (evens, asking, _running) = evens();
        evens.leave.add_permits(2);
        let (odd, even) =
            tokio::join!(asking.find(SpaceNo(1), 1_313), async { asking.find(SpaceNo(1), 4).await });
        assert!(matches!(odd, Err(QueryError::Store(_))) && even.is_err(), "{odd:?} {even:?}");
        assert_eq!(asking.find(SpaceNo(1), 4).await.unwrap(), Some(2));
    }
}
