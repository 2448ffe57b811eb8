//! Destinations: made, changed, tried, paused and deleted. Nothing is stored that could not be opened.
//!
//! Secrets are shown when they are made and never again: what is read has `***` in their place, and what is sent back with
//! `***` stays as it is.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::spaces::check_name;
use super::{Manage, ManageError, Result};
use crate::deliver::kind::Item;
use crate::deliver::kinds::{self, Defaults, Spec, new_secret};
use crate::deliver::opener::OpenError;
use crate::domain::ids::public_id;
use crate::domain::sensitive::MASKED;
use crate::domain::{DestinationNo, Patch, ProfileNo, SpaceNo, Timestamp};
use crate::store::StoreError;
use crate::store::deliveries::book;
use crate::store::destinations::{self, subscriptions, syncs, worker};

pub use crate::deliver::kind::{Exchange, Sent, Verdict};
pub use crate::store::destinations::worker::Status;
pub use crate::store::destinations::{Destination, Limits};

/// Destinations of a space at most.
const DESTINATIONS_MAX: usize = 200;

/// A destination to be made.
#[derive(Debug, Clone)]
pub struct New {
    /// For people, and in what is sent.
    pub name: String,
    /// Which kind.
    pub kind: String,
    /// Settings of the kind, secrets among them.
    pub settings: Map<String, Value>,
    /// Limits; where nothing is said, the kind's own.
    pub limits: LimitChange,
}

/// Limits that are given.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitChange {
    /// Requests under way at the same time.
    pub concurrency: Option<i64>,
    /// Changes in a second; none: no limit.
    pub rate_per_second: Patch<i64>,
    /// Time for one request, in milliseconds.
    pub timeout_ms: Option<i64>,
    /// How old the oldest change of a batch gets before the batch is sent although it is not full, in seconds.
    pub linger_seconds: Option<i64>,
}

/// What is to be changed; `None` leaves as is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The name.
    pub name: Option<String>,
    /// Settings, one by one; null removes.
    pub settings: Option<Map<String, Value>>,
    /// Limits.
    pub limits: LimitChange,
}

/// A destination as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    /// It.
    pub destination: Destination,
    /// Its settings, secrets masked.
    pub settings: Map<String, Value>,
    /// How it stands.
    pub status: Status,
    /// Failed attempts by reason.
    pub failures: Vec<(String, i64)>,
}

impl Manage {
    /// The destinations of a space, by number.
    pub async fn list_destinations(&self, space: SpaceNo) -> Result<Vec<View>> {
        let list = destinations::list(&self.door(space), space).await?;
        let status = worker::list_status(&self.door(space), space).await?;
        let failures = worker::list_failures(&self.door(space), space).await?;
        let view = |destination: Destination| {
            let no = destination.no.0;
            let status = status.iter().find(|status| status.destination_no == no)?.clone();
            let own = failures.iter().filter(|(of, ..)| *of == no);
            let failures = own.map(|(_, code, count)| (code.clone(), *count)).collect();
            Some(View { settings: self.masked(&destination), destination, status, failures })
        };
        Ok(list.into_iter().filter_map(view).collect())
    }

    /// One of them.
    pub async fn find_destination(&self, space: SpaceNo, id: Uuid) -> Result<View> {
        let list = self.list_destinations(space).await?;
        let found = list.into_iter().find(|view| view.destination.id == id);
        found.ok_or_else(|| missing(id))
    }

    /// Makes a destination. Returns it, and the secret that was made for it, which is shown this once.
    pub async fn create_destination(&self, space: SpaceNo, new: New) -> Result<(View, Option<String>)> {
        check_name(&new.name)?;
        let spec = spec_of(&new.kind)?;
        let known = destinations::list(&self.door(space), space).await?;
        if known.len() >= DESTINATIONS_MAX {
            return Err(ManageError::TooMany { what: "destinations", most: DESTINATIONS_MAX });
        }
        let mut settings = new.settings;
        let had_secret = settings.get("secret").is_some_and(|secret| !secret.is_null());
        (spec.complete)(&mut settings, &self.ids);
        let made = settings.get("secret").and_then(Value::as_str).filter(|_| !had_secret).map(str::to_owned);
        let Defaults { concurrency, rate_per_second, timeout_ms, linger_seconds } =
            (spec.defaults)(&settings);
        let default = Limits { concurrency, rate_per_second, timeout_ms, linger_seconds };
        let limits = limits(default, new.limits)?;
        let now = self.clock.now();
        let mut destination = Destination {
            no: DestinationNo(0),
            id: self.ids.uuid(),
            name: new.name,
            kind: new.kind,
            settings: Value::Null,
            secrets: None,
            secret_key_id: None,
            limits,
            created_at: now,
            updated_at: now,
        };
        self.put_settings(&mut destination, spec, settings)?;
        if destinations::insert(&self.door(space), space, &destination).await?.is_none() {
            return Err(ManageError::Exists { what: "destination", name: destination.name });
        }
        Ok((self.find_destination(space, destination.id).await?, made))
    }

    /// Changes a destination. A new signing secret leaves the one before valid, as `previous_secret`, until it is removed.
    ///
    /// What is changed is what is there under the lock: of changes at one time none undoes another.
    pub async fn change_destination(&self, space: SpaceNo, id: Uuid, change: Change) -> Result<View> {
        let mut tx = self.door(space).begin().await?;
        if let Some(name) = &change.name {
            check_name(name)?;
            if !destinations::take_name(&mut tx, space, name, id).await? {
                return Err(ManageError::Exists { what: "destination", name: name.clone() });
            }
        }
        let mut destination =
            destinations::find_locked(&mut tx, space, id).await?.ok_or_else(|| missing(id))?;
        let spec = spec_of(&destination.kind)?;
        destination.name = change.name.unwrap_or(destination.name);
        destination.limits = limits(destination.limits, change.limits)?;
        if let Some(given) = change.settings {
            // Secrets that cannot be read any more can be given anew.
            let mut settings = self
                .opener
                .settings(&destination)
                .unwrap_or_else(|_| destination.settings.as_object().cloned().unwrap_or_default());
            apply(&mut settings, given);
            self.put_settings(&mut destination, spec, settings)?;
        }
        destination.updated_at = self.clock.now();
        destinations::update(&mut tx, space, &destination).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.find_destination(space, id).await
    }

    /// Makes a new signing secret, which is shown this once; the one before stays valid until it is removed.
    pub async fn rotate_secret(&self, space: SpaceNo, id: Uuid) -> Result<String> {
        let destination = self.stored(space, id).await?;
        if !spec_of(&destination.kind)?.secrets.contains(&"previous_secret") {
            let message = format!("a destination of kind {} has no signing secret", destination.kind);
            return Err(ManageError::invalid("kind", message));
        }
        let secret = new_secret(&self.ids);
        let settings = Map::from_iter([("secret".to_owned(), Value::from(secret.clone()))]);
        let change = Change { settings: Some(settings), ..Change::default() };
        self.change_destination(space, id, change).await?;
        Ok(secret)
    }

    /// Removes a destination with everything that waits for it.
    pub async fn delete_destination(&self, space: SpaceNo, id: Uuid) -> Result<()> {
        let destination = self.stored(space, id).await?;
        self.reconfigure(space, destinations::delete(&self.door(space), space, destination.no)).await?;
        Ok(())
    }

    /// Pauses a destination, or sends on: changes are collected meanwhile. What waits for another attempt is tried at once, also
    /// where it was not paused.
    pub async fn set_paused(&self, space: SpaceNo, id: Uuid, paused: bool) -> Result<View> {
        let destination = self.stored(space, id).await?;
        let now = self.clock.now();
        let mut tx = self.door(space).begin().await?;
        if !paused {
            book::hurry(&mut tx, space, destination.no, now).await?;
            // Also where it is connected already.
            worker::bump_config(&mut tx, space, destination.no).await?;
        }
        let state = if paused { "paused" } else { "connected" };
        worker::set_state(&mut *tx, space, destination.no, (state, None), now).await?;
        tx.commit().await.map_err(crate::store::StoreError::from)?;
        self.find_destination(space, id).await
    }

    /// Sends an event at once, past the queue, and says what came of it.
    pub async fn test_destination(&self, space: SpaceNo, id: Uuid, event: Option<Value>) -> Result<Sent> {
        let destination = self.stored(space, id).await?;
        let kind = self.opener.open(&destination).map_err(|error| refused(&error))?;
        let message_id = public_id("dlv", self.ids.uuid());
        let at = self.clock.now();
        let event = event.unwrap_or_else(|| example(&message_id, at, &destination.name));
        let item = Item {
            id: message_id,
            profile: ProfileNo(0),
            profile_id: public_id("prf", Uuid::nil()),
            at,
            attempts: 0,
            event,
        };
        Ok(kind.send(&[item]).await)
    }

    /// Sends everybody's present values again: of one subscription, or of all that are enabled.
    pub async fn resync(&self, space: SpaceNo, id: Uuid, only: Option<Uuid>) -> Result<()> {
        let destination = self.stored(space, id).await?;
        let list = subscriptions::list(&self.door(space), space, Some(destination.no)).await?;
        let wanted = |s: &&subscriptions::Subscription| only.map_or(s.enabled, |only| s.id == only);
        let numbers: Vec<i32> = list.iter().filter(wanted).map(|s| s.no).collect();
        if numbers.is_empty()
            && let Some(only) = only
        {
            return Err(ManageError::not_found("subscription", public_id("sub", only)));
        }
        let mut tx = self.door(space).begin().await?;
        syncs::begin(&mut tx, space, destination.no, &numbers, self.clock.now()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    pub(super) async fn stored(&self, space: SpaceNo, id: Uuid) -> Result<Destination> {
        destinations::find(&self.door(space), space, id).await?.ok_or_else(|| missing(id))
    }

    /// Judges settings, and puts them into a destination: what is secret is sealed.
    fn put_settings(
        &self,
        destination: &mut Destination,
        spec: &Spec,
        mut settings: Map<String, Value>,
    ) -> Result<()> {
        settings.retain(|_, value| !value.is_null());
        let timeout = Duration::from_millis(u64::from(destination.limits.timeout_ms.unsigned_abs()));
        self.opener.open_with(spec.name, &settings, timeout).map_err(|error| refused(&error))?;
        // What a name leads to is judged whenever it is called.
        let url = settings.get("url").and_then(Value::as_str).and_then(|url| url.parse().ok());
        if let Some(url) = url {
            let judged = self.opener.reach.guard.check_url(&url);
            judged.map_err(|blocked| ManageError::invalid("settings.url", blocked.to_string()))?;
        }
        let (secrets, plain): (Map<String, Value>, Map<String, Value>) =
            settings.into_iter().partition(|(name, _)| spec.secrets.contains(&name.as_str()));
        destination.settings = Value::Object(plain);
        (destination.secrets, destination.secret_key_id) = if secrets.is_empty() {
            (None, None)
        } else {
            let sealed = self.opener.keys.seal(destination.id, &secrets, &self.ids);
            let (sealed, key) = sealed.map_err(|error| refused(&error.into()))?;
            (Some(sealed), Some(key))
        };
        Ok(())
    }

    /// Settings as they are shown.
    fn masked(&self, destination: &Destination) -> Map<String, Value> {
        let plain = destination.settings.as_object().cloned().unwrap_or_default();
        let Ok(mut settings) = self.opener.settings(destination) else { return plain };
        for (name, value) in &mut settings {
            if plain.contains_key(name) {
                continue;
            }
            // Names of headers are no secret.
            match value {
                Value::Object(fields) => fields.values_mut().for_each(|field| *field = MASKED.into()),
                value => *value = MASKED.into(),
            }
        }
        settings
    }
}

/// Lays what is given over what there is: masks leave as is, and a new secret keeps the one before.
fn apply(settings: &mut Map<String, Value>, given: Map<String, Value>) {
    let before = settings.get("secret").cloned();
    let names_previous = given.contains_key("previous_secret");
    for (name, mut value) in given {
        if value == MASKED {
            continue;
        }
        if let (Value::Object(fields), Some(Value::Object(known))) = (&mut value, settings.get(&name)) {
            for (field, value) in fields.iter_mut().filter(|(_, value)| **value == MASKED) {
                *value = known.get(field).cloned().unwrap_or_default();
            }
        }
        settings.insert(name, value);
    }
    let is_new = settings.get("secret").is_some_and(|secret| !secret.is_null())
        && settings.get("secret") != before.as_ref();
    if let (true, false, Some(before)) = (is_new, names_previous, before) {
        settings.insert("previous_secret".to_owned(), before);
    }
}

fn limits(present: Limits, given: LimitChange) -> Result<Limits> {
    let within = |field: &'static str, value: i64, most: i64, least: i64| {
        let number = i32::try_from(value).ok().filter(|_| (least..=most).contains(&value));
        number.ok_or_else(|| {
            let message = format!("{field} is {value}; it must be from {least} to {most}");
            ManageError::invalid(field, message)
        })
    };
    let rate = given.rate_per_second.try_map(|rate| within("rate_per_second", rate, 1_000_000, 1))?;
    Ok(Limits {
        concurrency: match given.concurrency {
            Some(value) => within("concurrency", value, 256, 1)?,
            None => present.concurrency,
        },
        rate_per_second: rate.over(present.rate_per_second),
        timeout_ms: match given.timeout_ms {
            Some(value) => within("timeout_ms", value, 120_000, 100)?,
            None => present.timeout_ms,
        },
        linger_seconds: match given.linger_seconds {
            Some(value) => within("linger_seconds", value, 3_600, 0)?,
            None => present.linger_seconds,
        },
    })
}

fn spec_of(kind: &str) -> Result<&'static Spec> {
    kinds::find(kind).ok_or_else(|| {
        let shown: String = kind.chars().take(60).collect();
        let known: Vec<&str> = kinds::KINDS.iter().map(|spec| spec.name).collect();
        ManageError::invalid("kind", format!("there is no kind {shown:?}; there are {}", known.join(", ")))
    })
}

fn missing(id: Uuid) -> ManageError {
    ManageError::not_found("destination", public_id("dst", id))
}

fn refused(error: &OpenError) -> ManageError {
    match error {
        OpenError::Invalid(wrong) => {
            let field = wrong.first().map(|w| format!("settings.{}", w.field)).unwrap_or_default();
            ManageError::invalid(field, error.to_string())
        }
        OpenError::UnknownKind(_) => ManageError::invalid("kind", error.to_string()),
        OpenError::Secrets(_) => ManageError::invalid("settings", error.to_string()),
    }
}

/// What a test sends, where nothing is given.
fn example(message_id: &str, at: Timestamp, destination: &str) -> Value {
    json!({
        "type": "track",
        "event": "Personas Test",
        "messageId": message_id,
        "timestamp": at.to_string(),
        "userId": "personas-test",
        "properties": {"test": true},
        "integrations": {"All": false, destination: true},
    })
}
