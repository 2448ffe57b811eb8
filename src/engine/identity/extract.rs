//! Which identifiers an event carries (personas.md 3.1, decisions I2, I3, I6, I12b).

use std::sync::LazyLock;

use memchr::memmem;

use crate::domain::identifier::{is_type_name, normalise};
use crate::domain::{Collection, EventType, IdKey, Parts, json};

use super::settings::{Settings, TypeNo};

/// One identifier found on an event, normalised and not blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its type's number.
    pub type_no: TypeNo,
    /// Its normalised value.
    pub value: String,
    /// What it is found by.
    pub key: IdKey,
}

/// What an event says about who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Identifiers of the person, most trusted first, values of one type in order.
    pub users: Vec<Candidate>,
    /// Identifiers of the account the event names.
    pub accounts: Vec<Candidate>,
    /// Values that were there but blocked.
    pub blocked: Vec<(TypeNo, String)>,
    /// Types the event used that the settings do not know (name).
    pub unknown_types: Vec<String>,
    /// `externalIds` named an identifier for a collection that cannot have it (I12b).
    pub misplaced: bool,
    /// Identifiers of the person that nobody looks at, because there are too many.
    pub left_out: usize,
}

/// Reads all identifiers of an event.
pub fn extract(parts: &Parts<'_>, settings: &Settings) -> Extracted {
    let mut found = Finder { settings, out: Extracted::default() };
    found.named("user_id", parts.user_id);
    found.named("anonymous_id", parts.anonymous_id);
    let context = Context::of(parts.context);
    found.traits_and_properties(parts, &context);
    found.device(&context);
    if let Some(client) = context.ga_client_id() {
        found.named("ga_client_id", &client);
    }
    found.external_ids(&context);
    let group = if parts.event_type == EventType::Group || !parts.group_id.is_empty() {
        parts.group_id.to_owned()
    } else {
        context.group_id.and_then(json::string_or_digits).unwrap_or_default()
    };
    found.account("group_id", &group);
    let mut out = found.out;
    in_order(&mut out.users, settings);
    in_order(&mut out.accounts, settings);
    out
}

fn in_order(candidates: &mut Vec<Candidate>, settings: &Settings) {
    if candidates.len() > 1 {
        let trust = |c: &Candidate| settings.rank(c.type_no);
        candidates.sort_unstable_by(|a, b| trust(a).cmp(&trust(b)).then_with(|| a.value.cmp(&b.value)));
        candidates.dedup();
    }
}

/// Names that are looked for in every event's text, made ready to be found.
struct Names(LazyLock<[memmem::Finder<'static>; 6]>);

impl Names {
    /// Whether the name stands in the text, as a key or otherwise.
    fn has_email(&self, text: &str) -> bool {
        self.0.last().is_some_and(|email| email.find(text.as_bytes()).is_some())
    }

    /// Whether one of the names does that matter in a context.
    fn has_any(&self, context: &str) -> bool {
        self.0.iter().take(5).any(|name| name.find(context.as_bytes()).is_some())
    }
}

static NAMES: Names = Names(LazyLock::new(|| {
    ["\"traits\"", "\"device\"", "\"Google Analytics\"", "\"externalIds\"", "\"groupId\"", "\"email\""]
        .map(memmem::Finder::new)
}));

/// The few fields of `context` that matter here, looked for only when their names stand in the text.
#[derive(Default)]
struct Context<'a> {
    traits: &'a str,
    device: &'a str,
    integrations: &'a str,
    external_ids: Option<&'a str>,
    group_id: Option<&'a str>,
}

impl<'a> Context<'a> {
    fn of(context: &'a str) -> Self {
        if !NAMES.has_any(context) {
            return Self::default();
        }
        let [traits, device, integrations, external_ids, group_id] =
            json::pick(context, ["traits", "device", "integrations", "externalIds", "groupId"]);
        let object = |raw: Option<&'a str>| raw.filter(|r| r.starts_with('{')).unwrap_or_default();
        Self {
            traits: object(traits),
            device: object(device),
            integrations: object(integrations),
            external_ids,
            group_id,
        }
    }

    fn ga_client_id(&self) -> Option<String> {
        let [analytics] = json::pick(self.integrations, ["Google Analytics"]);
        let [client] = json::pick(analytics?, ["clientId"]);
        json::string_or_digits(client?)
    }
}

struct Finder<'s> {
    settings: &'s Settings,
    out: Extracted,
}

impl Finder<'_> {
    fn named(&mut self, name: &str, value: &str) {
        self.add(Collection::Users, name, value);
    }

    fn account(&mut self, name: &str, value: &str) {
        self.add(Collection::Accounts, name, value);
    }

    fn add(&mut self, collection: Collection, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let Some(id_type) = self.settings.by_name(name) else { return };
        let value = normalise(value, id_type.case_insensitive);
        if value.is_empty() {
            return;
        }
        if self.settings.is_blocked(id_type.no, &value) {
            let seen = (id_type.no, value);
            if !self.out.blocked.contains(&seen) {
                self.out.blocked.push(seen);
            }
            return;
        }
        let key = IdKey::of(collection, name, &value);
        let list = match collection {
            Collection::Users => &mut self.out.users,
            Collection::Accounts => &mut self.out.accounts,
        };
        list.push(Candidate { type_no: id_type.no, value, key });
    }

    /// `email`, and custom types by their keys, in camel case and snake case alike.
    fn traits_and_properties(&mut self, parts: &Parts<'_>, context: &Context<'_>) {
        let is_identify = parts.event_type == EventType::Identify;
        let is_group = parts.event_type == EventType::Group;
        // A group call's traits describe the account, so its e-mail is not the person's.
        let own_traits = if is_identify { parts.body } else { "" };
        for traits in [own_traits, context.traits] {
            if NAMES.has_email(traits) {
                let [email] = json::pick(traits, ["email"]);
                if let Some(email) = email.and_then(json::string_or_digits) {
                    self.named("email", &email);
                }
            }
        }
        let settings = self.settings;
        let body = if is_group { "" } else { parts.body };
        for (id_type, keys) in settings.keyed() {
            for key in keys {
                for place in [body, context.traits] {
                    let [value] = json::pick(place, [key.as_str()]);
                    if let Some(value) = value.and_then(json::string_or_digits) {
                        self.named(&id_type.name, &value);
                    }
                }
            }
        }
    }

    fn device(&mut self, context: &Context<'_>) {
        if context.device.is_empty() {
            return;
        }
        let fields = ["type", "id", "advertisingId", "adTrackingEnabled", "token"];
        let [kind, id, advertising, tracking, token] = json::pick(context.device, fields);
        let Some(kind) = kind.and_then(json::string) else { return };
        let platform = match kind.to_lowercase().as_str() {
            "android" => "android",
            "ios" => "ios",
            _ => return,
        };
        let advertising = advertising.filter(|_| tracking == Some("true"));
        for (suffix, raw) in [("id", id), ("idfa", advertising), ("push_token", token)] {
            if let Some(value) = raw.and_then(json::string_or_digits) {
                self.named(&format!("{platform}.{suffix}"), &value);
            }
        }
    }

    /// Items need all four fields; `group_id` belongs to the account only.
    fn external_ids(&mut self, context: &Context<'_>) {
        let Some(raw) = context.external_ids else { return };
        let Ok(items) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(raw) else { return };
        for item in items {
            let [id, name, collection, encoding] =
                json::pick(item.get(), ["id", "type", "collection", "encoding"]);
            let text = |raw: Option<&str>| raw.and_then(json::string);
            let (Some(id), Some(name)) = (id.and_then(json::string_or_digits), text(name)) else { continue };
            let Some(collection) = text(collection).as_deref().and_then(Collection::parse) else { continue };
            if text(encoding).as_deref() != Some("none") || !is_type_name(&name) {
                continue;
            }
            if (name == "group_id") != (collection == Collection::Accounts) {
                self.out.misplaced = true;
                continue;
            }
            if self.settings.by_name(&name).is_none() && !self.out.unknown_types.contains(&name) {
                self.out.unknown_types.push(name.clone());
            }
            self.add(collection, &name, &id);
        }
    }
}
