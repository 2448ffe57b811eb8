//! What a destination wants: which audiences, computed traits and other changes, as which calls and with which data.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::definitions::Kind;
use super::{Manage, ManageError, Result};
use crate::deliver::choice::Choice;
use crate::deliver::kinds;
use crate::domain::delivery::{ALL, Form, Subject, SubscriptionOptions, all_of};
use crate::domain::ids::public_id;
use crate::domain::{Collection, SpaceNo};
use crate::store::StoreError;
use crate::store::destinations::subscriptions;

pub use crate::store::destinations::subscriptions::Subscription;

/// Longest name of an event, in characters.
const EVENT_CHARS_MAX: usize = 255;

/// Subscriptions as they are shown: with the key of their definition.
pub type Keyed = (Subscription, Option<String>);

/// What a subscription is about.
#[derive(Debug, Clone)]
pub struct About {
    /// What kind of changes.
    pub subject: Subject,
    /// Of which definition, where the subject has one; `*` for all.
    pub key: Option<String>,
    /// With `*`, whose; users' where nothing is said.
    pub collection: Option<Collection>,
}

/// What a subscription asks for. `None` is the default, or leaves as is.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Whether changes are collected.
    pub enabled: Option<bool>,
    /// `identify`, `track`.
    pub send: Option<Vec<Form>>,
    /// Name of the event of who enters.
    pub entered_event: Option<String>,
    /// Name of the event of who leaves.
    pub exited_event: Option<String>,
    /// Name of the event of a computed trait.
    pub computed_event: Option<String>,
    /// `id_sync`, `traits`, `filter`, `allow` and `deny`.
    pub data: Option<Map<String, Value>>,
}

impl Manage {
    /// What a destination wants, in the order it was asked for.
    pub async fn list_subscriptions(&self, space: SpaceNo, destination: Uuid) -> Result<Vec<Keyed>> {
        let destination = self.stored(space, destination).await?;
        let list = subscriptions::list(&self.door(space), space, Some(destination.no)).await?;
        let told = crate::store::deliveries::queue::list_definitions(&self.door(space), space).await?;
        let key = |of: &Subscription| match of.all() {
            Some(_) => Some(ALL.to_owned()),
            None => told.iter().find(|d| d.no == of.definition).map(|d| d.key.clone()),
        };
        Ok(list.into_iter().map(|s| (key(&s), s)).map(|(key, s)| (s, key)).collect())
    }

    /// The number of what a subscription is to be about.
    async fn find_definition_no(&self, space: SpaceNo, about: &About) -> Result<i32> {
        let About { subject, key, collection } = about;
        if collection.is_some() && key.as_deref() != Some(ALL) {
            let message = "it says whose audiences or computed traits are meant by the key *: leave it out";
            return Err(ManageError::invalid("collection", message));
        }
        match (subject, key.as_deref()) {
            (Subject::Audience | Subject::ComputedTrait, Some(ALL)) => {
                Ok(all_of(collection.unwrap_or_default()))
            }
            (Subject::Audience, Some(key)) => Ok(self.find_definition(space, Kind::Audience, key).await?.no),
            (Subject::ComputedTrait, Some(key)) => {
                Ok(self.find_definition(space, Kind::ComputedTrait, key).await?.no)
            }
            (Subject::CustomTraits | Subject::Merges | Subject::ProfileUpdates | Subject::Events, None) => {
                Ok(0)
            }
            (_, None) => {
                let which = words(*subject);
                Err(ManageError::invalid("key", format!("key is missing: which {which}, or * for all")))
            }
            (_, Some(_)) => {
                let message = format!("{} are of no definition: leave key out", words(*subject));
                Err(ManageError::invalid("key", message))
            }
        }
    }

    /// Makes a destination want something, and begins to send what is true of it now.
    pub async fn create_subscription(
        &self,
        space: SpaceNo,
        destination: Uuid,
        about: About,
        wish: Wish,
    ) -> Result<Keyed> {
        let destination_id = destination;
        let destination = self.stored(space, destination).await?;
        let definition = self.find_definition_no(space, &about).await?;
        let About { subject, key, .. } = about;
        let takes_events = kinds::find(&destination.kind).is_some_and(|spec| spec.takes_events);
        if subject == Subject::Events && !takes_events {
            let able = kinds::KINDS.iter().filter(|spec| spec.takes_events).map(|spec| spec.name);
            let message = format!(
                "destinations of kind {} do not take events as they came, only what follows from them; {} do",
                destination.kind,
                able.collect::<Vec<_>>().join(", ")
            );
            return Err(ManageError::invalid("subject", message));
        }
        let mut new = Subscription {
            destination: destination.no,
            no: 0,
            id: self.ids.uuid(),
            subject,
            definition,
            enabled: true,
            forms: Form::set_of(&[usual_form(subject)]),
            options: SubscriptionOptions::default(),
            sync: subscriptions::Sync::default(),
            created_at: self.clock.now(),
        };
        apply(&mut new, wish)?;
        let id = new.id;
        match self.reconfigure(space, subscriptions::insert(&self.door(space), space, &new)).await {
            Err(StoreError::Exists) => {
                let name = key.unwrap_or_else(|| subject.word().to_owned());
                return Err(ManageError::Exists { what: "a subscription of this destination to", name });
            }
            done => done?,
        };
        self.find_subscription(space, destination_id, id).await
    }

    /// One of them.
    pub async fn find_subscription(&self, space: SpaceNo, destination: Uuid, id: Uuid) -> Result<Keyed> {
        let list = self.list_subscriptions(space, destination).await?;
        let found = list.into_iter().find(|(subscription, _)| subscription.id == id);
        found.ok_or_else(|| ManageError::not_found("subscription", public_id("sub", id)))
    }

    /// Changes what is wanted. What is switched on again is sent as it is now.
    pub async fn change_subscription(
        &self,
        space: SpaceNo,
        destination: Uuid,
        id: Uuid,
        wish: Wish,
    ) -> Result<Keyed> {
        let (mut subscription, _) = self.find_subscription(space, destination, id).await?;
        let was_enabled = subscription.enabled;
        apply(&mut subscription, wish)?;
        let begins = !was_enabled && subscription.enabled && subscription.subject.has_present();
        let sync_at = begins.then(|| self.clock.now());
        self.reconfigure(space, subscriptions::update(&self.door(space), space, &subscription, sync_at))
            .await?;
        self.find_subscription(space, destination, id).await
    }

    /// Removes a subscription. What waits of it is not sent any more.
    pub async fn delete_subscription(&self, space: SpaceNo, destination: Uuid, id: Uuid) -> Result<()> {
        let (found, _) = self.find_subscription(space, destination, id).await?;
        let door = self.door(space);
        let delete = subscriptions::delete(&door, space, &found, self.clock.now());
        self.reconfigure(space, delete).await?;
        Ok(())
    }
}

/// The call that changes of a subject are sent as where nothing is said.
const fn usual_form(subject: Subject) -> Form {
    match subject {
        Subject::Merges | Subject::ProfileUpdates | Subject::Events => Form::Track,
        Subject::Audience | Subject::ComputedTrait | Subject::CustomTraits | Subject::Deletion => {
            Form::Identify
        }
    }
}

fn words(subject: Subject) -> String {
    subject.word().replace('_', " ")
}

fn apply(subscription: &mut Subscription, wish: Wish) -> Result<()> {
    let Wish { enabled, send, entered_event, exited_event, computed_event, data } = wish;
    let subject = subscription.subject;
    subscription.enabled = enabled.unwrap_or(subscription.enabled);
    if let Some(send) = send {
        let only = match subject {
            Subject::Audience | Subject::ComputedTrait => None,
            Subject::CustomTraits | Subject::Deletion => Some(Form::Identify),
            Subject::Merges => Some(Form::Track),
            Subject::ProfileUpdates | Subject::Events => {
                let message = format!("{} are sent as what they are: leave send out", words(subject));
                return Err(ManageError::invalid("send", message));
            }
        };
        if send.is_empty() {
            return Err(ManageError::invalid("send", "it must name identify, track, or both"));
        }
        if let Some(only) = only
            && send.iter().any(|form| *form != only)
        {
            let message = format!("{} are sent as {} only", words(subject), only.word());
            return Err(ManageError::invalid("send", message));
        }
        subscription.forms = Form::set_of(&send);
    }
    let options = &mut subscription.options;
    for (field, given, name) in [
        ("entered_event", entered_event, &mut options.entered_event),
        ("exited_event", exited_event, &mut options.exited_event),
        ("computed_event", computed_event, &mut options.computed_event),
    ] {
        let Some(given) = given else { continue };
        if given.trim().is_empty() || given.chars().count() > EVENT_CHARS_MAX {
            let message = format!("the name of an event has 1 to {EVENT_CHARS_MAX} characters");
            return Err(ManageError::invalid(field, message));
        }
        *name = given;
    }
    if let Some(data) = data {
        if subject == Subject::Events
            && let Some(field) = ["id_sync", "traits"].into_iter().find(|field| data.contains_key(*field))
        {
            let message = "an event is sent with the identifiers and values it came with: leave it out";
            return Err(ManageError::invalid(format!("data.{field}"), message));
        }
        let data = Value::Object(data);
        Choice::parse(&data).map_err(|wrong| {
            let field =
                if wrong.field == "data" { "data".to_owned() } else { format!("data.{}", wrong.field) };
            ManageError::invalid(Cow::Owned(field), wrong.message)
        })?;
        options.data = data;
    }
    Ok(())
}
