//! Profile look-ups: from memory where this process is the one that writes the space, else coalesced: many requests,
//! one statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use sqlx::postgres::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::QueryError;
use crate::domain::{IdKey, SpaceNo};
use crate::read_cache::{self, Found, LEASE_LEFT_MIN, ReadCache};
use crate::store::profiles;
use crate::store::{StoreError, walled};

/// Questions one statement answers at most.
const COALESCE_MAX: usize = 512;
/// Questions waiting at most.
const QUEUE_MAX: usize = 8_192;

/// An encoded profile and the version of the space's configuration it was read under.
type Answered = (Bytes, i64);
type Answer = Result<Option<Answered>, Arc<StoreError>>;

#[derive(Debug)]
struct Question {
    space: SpaceNo,
    key: IdKey,
    answer: oneshot::Sender<Answer>,
}

/// The asking side.
#[derive(Debug, Clone)]
pub struct Lookup {
    questions: mpsc::Sender<Question>,
    cache: ReadCache,
}

/// The answering side: run it on as many tasks as statements should overlap.
#[derive(Debug, Clone)]
pub struct LookupTask {
    questions: Arc<Mutex<mpsc::Receiver<Question>>>,
    pool: PgPool,
    cache: ReadCache,
}

/// Makes the two sides.
pub fn lookup(pool: PgPool, cache: ReadCache) -> (Lookup, LookupTask) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let asking = Lookup { questions: sender, cache: cache.clone() };
    (asking, LookupTask { questions: Arc::new(Mutex::new(receiver)), pool, cache })
}

impl Lookup {
    /// The profile that has or had the identifier, and the version of the space's configuration.
    pub(super) async fn find(&self, space: SpaceNo, key: IdKey) -> Result<Option<Answered>, QueryError> {
        if let Some(known) = self.cache.get(space, key, Instant::now()) {
            return Ok(Some(known));
        }
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { space, key, answer }).await.map_err(|_| QueryError::Stopping)?;
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

impl LookupTask {
    /// Answers until every [`Lookup`] is gone.
    pub async fn run(self) {
        loop {
            let questions = self.gather().await;
            if questions.is_empty() {
                return;
            }
            let mut spaces: BTreeMap<SpaceNo, Vec<Question>> = BTreeMap::new();
            for question in questions {
                spaces.entry(question.space).or_default().push(question);
            }
            for (space, questions) in spaces {
                self.answer(space, questions).await;
            }
        }
    }

    async fn gather(&self) -> Vec<Question> {
        let mut queue = self.questions.lock().await;
        let mut questions = Vec::new();
        queue.recv_many(&mut questions, COALESCE_MAX).await;
        questions
    }

    async fn answer(&self, space: SpaceNo, questions: Vec<Question>) {
        let mut keys: Vec<IdKey> = questions.iter().map(|q| q.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let found = self.ask(space, &keys).await.map_err(Arc::new);
        for question in questions {
            let answer = match &found {
                Ok(profiles) => Ok(profiles.get(&question.key).cloned()),
                Err(error) => Err(Arc::clone(error)),
            };
            // Whoever asked may be gone.
            let _gone = question.answer.send(answer);
        }
    }

    async fn ask(&self, space: SpaceNo, keys: &[IdKey]) -> Result<HashMap<IdKey, Answered>, StoreError> {
        // Before the statement: what it finds is good from now on.
        let look = self.cache.look(space, Instant::now());
        let found = profiles::find_by_keys(&walled(&self.pool, space), space, keys, LEASE_LEFT_MIN).await?;
        if let (Some(look), Some(first)) = (look, found.first()) {
            let standing = read_cache::Standing {
                version: first.version,
                epoch: first.epoch,
                is_leased: first.is_leased,
            };
            let keep = |f: &profiles::FoundProfile| Found { key: f.key, no: f.no, state: f.state.clone() };
            look.keep(standing, found.iter().map(keep));
        }
        Ok(found.into_iter().map(|f| (f.key, (f.state, f.version))).collect())
    }
}
