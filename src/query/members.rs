//! Audiences looked at as wholes: every member as of one instant, many memberships at once, overlaps, identifiers, and
//! sizes over time.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{Stream, stream};
use hashbrown::HashMap;
use sqlx::{Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use super::{Directory, Person, QueryError, Reader, Selector};
use crate::domain::{Collection, ComputationNo, IdKey, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::store::audiences::{self, SizePoint};
use crate::store::profiles;

/// Members read at a time for a stream.
const READ_AT_A_TIME: i64 = 1_000;

/// A member with all there is of it.
#[derive(Debug)]
pub struct FullMember {
    /// The profile.
    pub person: Person,
    /// Since when it is a member.
    pub entered_at: Timestamp,
}

/// How many members have an identifier of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeCount {
    /// Name of the type.
    pub id_type: String,
    /// Members that have one or more.
    pub members: i64,
}

/// A stream of members on its way.
struct Export {
    space: SpaceNo,
    computation: ComputationNo,
    directory: Arc<Directory>,
    tx: Transaction<'static, Postgres>,
    after: ProfileNo,
    read: VecDeque<FullMember>,
    is_over: bool,
    /// Few at a time: each holds a connection.
    _permit: OwnedSemaphorePermit,
}

impl Export {
    async fn next(mut self) -> Result<Option<(FullMember, Self)>, QueryError> {
        if self.read.is_empty() && !self.is_over {
            let limit = READ_AT_A_TIME;
            let rows =
                audiences::list_member_states(&mut self.tx, self.space, self.computation, self.after, limit)
                    .await?;
            self.is_over = (rows.len() as i64) < limit;
            self.after = rows.last().map_or(self.after, |last| last.no);
            for row in rows {
                let person =
                    Person { profile: Profile::decode(&row.state)?, directory: Arc::clone(&self.directory) };
                self.read.push_back(FullMember { person, entered_at: row.entered_at });
            }
        }
        Ok(self.read.pop_front().map(|member| (member, self)))
    }
}

impl Reader {
    /// All members of an audience as of now, oldest profile first, read as they are asked for.
    pub async fn stream_members(
        &self,
        space: SpaceNo,
        definition: i32,
    ) -> Result<impl Stream<Item = Result<FullMember, QueryError>> + Send + 'static, QueryError> {
        let permit = Arc::clone(&self.exports).acquire_owned().await.map_err(|_| QueryError::Stopping)?;
        let mut tx = audiences::begin_snapshot(&self.door(space)).await?;
        let serving = audiences::find_serving(&mut tx, space, definition).await?;
        let export = Export {
            space,
            computation: serving.unwrap_or_default(),
            directory: self.directory(space, None).await?,
            tx,
            after: ProfileNo(0),
            read: VecDeque::new(),
            is_over: serving.is_none(),
            _permit: permit,
        };
        Ok(stream::try_unfold(export, Export::next))
    }

    /// The profiles that have or had these identifiers or ids, each in its place: two statements at most.
    pub async fn find_profiles(
        &self,
        space: SpaceNo,
        collection: Collection,
        selectors: &[Selector],
    ) -> Result<Vec<Option<Person>>, QueryError> {
        let (mut keys, mut ids) = (Vec::new(), Vec::new());
        for selector in selectors {
            match selector {
                Selector::Id(id) => ids.push(*id),
                Selector::Identifier { id_type, value } => {
                    keys.extend(self.key_of(space, collection, id_type, value).await?.map(|(key, _)| key));
                }
            }
        }
        let by_key =
            profiles::find_by_keys(&self.door(space), space, &keys, std::time::Duration::ZERO).await?;
        let by_key: HashMap<IdKey, _> = by_key.into_iter().map(|found| (found.key, found.state)).collect();
        let by_id = profiles::find_by_ids(&self.door(space), space, &ids).await?;
        let by_id: HashMap<_, _> = by_id.into_iter().map(|(id, _, state)| (id, state)).collect();
        // As new as what was read.
        let directory = self.directory(space, None).await?;
        let mut found = Vec::with_capacity(selectors.len());
        for selector in selectors {
            let state = match selector {
                Selector::Id(id) => by_id.get(id),
                Selector::Identifier { id_type, value } => {
                    let key = self.key_of(space, collection, id_type, value).await?;
                    key.and_then(|(key, _)| by_key.get(&key))
                }
            };
            let profile = state.map(Profile::decode).transpose()?.filter(|p| p.collection == collection);
            found.push(profile.map(|profile| Person { profile, directory: Arc::clone(&directory) }));
        }
        Ok(found)
    }

    /// Members of two audiences and of both, as of one instant.
    pub async fn overlap(&self, space: SpaceNo, one: i32, other: i32) -> Result<[i64; 3], QueryError> {
        Ok(audiences::count_overlap(&self.door(space), space, one, other).await?)
    }

    /// The size of an audience and how many members have an identifier of each type, most frequent first.
    pub async fn identifier_breakdown(
        &self,
        space: SpaceNo,
        definition: i32,
    ) -> Result<(i64, Vec<TypeCount>), QueryError> {
        let (size, counts) = audiences::count_identifiers(&self.door(space), space, definition).await?;
        let directory = self.directory(space, None).await?;
        let count = |(no, members)| TypeCount { id_type: directory.type_name(no).to_owned(), members };
        let mut types: Vec<TypeCount> = counts.into_iter().map(count).collect();
        types.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.id_type.cmp(&b.id_type)));
        Ok((size, types))
    }

    /// The changes of an audience's size in a span of time, oldest first, the last one before it included: each the size
    /// at the end of its minute.
    pub async fn size_points(
        &self,
        space: SpaceNo,
        definition: i32,
        span: (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Vec<SizePoint>, QueryError> {
        Ok(audiences::list_size_points(&self.door(space), space, definition, span, limit as i64).await?)
    }
}
