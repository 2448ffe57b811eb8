//! Names, message ids and the other small fields of a call: what each call must and may have.

use crate::domain::{EventType, IntakeLimits, json};

use super::normalise::kind;
use super::rejection::Rejection;
use super::wire::Call;

/// Reserved track call that carries a person's consent.
const CONSENT_EVENT: &str = "Segment Consent Preference Updated";

/// The message id of a call that is too large to be looked at closely.
pub(super) fn peek_message_id(raw: &str) -> Option<String> {
    let [id] = json::pick(raw, ["messageId"]);
    id.and_then(json::string_or_digits).map(|id| id.chars().take(100).collect())
}

/// The client's message id; `None` when the server has to make one (T8).
pub(super) fn message_id(raw: Option<&str>, limits: &IntakeLimits) -> Result<Option<String>, Rejection> {
    let Some(raw) = raw else { return Ok(None) };
    let id = json::string_or_digits(raw).ok_or_else(|| {
        Rejection::new("message_id_not_string", format!("messageId must be a string, not {}", kind(raw)))
            .at("messageId")
    })?;
    if id.chars().count() > limits.message_id_chars_max {
        let message = format!("messageId has more than {} characters", limits.message_id_chars_max);
        let shown = id.chars().take(limits.message_id_chars_max).collect();
        let rejection = Rejection::new("message_id_too_long", message).at("messageId");
        return Err(Rejection { message_id: Some(shown), ..rejection });
    }
    Ok(if id.trim().is_empty() { None } else { Some(id) })
}

/// The call's type: the path's, else its own `type`.
pub(super) fn event_type(raw: Option<&str>, path: Option<EventType>) -> Result<EventType, Rejection> {
    if let Some(event_type) = path {
        return Ok(event_type);
    }
    let known = "one of identify, track, page, screen, group, alias";
    let Some(raw) = raw else {
        return Err(Rejection::new("type_missing", format!("type is missing; send {known}")).at("type"));
    };
    json::string(raw).as_deref().and_then(EventType::parse).ok_or_else(|| {
        let shown: String = raw.chars().take(40).collect();
        Rejection::new("type_unknown", format!("type is {shown}; it must be {known}")).at("type")
    })
}

/// The event name the engine knows the call by; empty for identify, group and alias.
pub(super) fn event_name(
    call: &Call<'_>,
    event_type: EventType,
    limits: &IntakeLimits,
) -> Result<String, Rejection> {
    match event_type {
        EventType::Track => track_name(call.event, limits),
        EventType::Page | EventType::Screen => {
            check_text(call.name, "name", "name_not_string")?;
            check_text(call.category, "category", "category_not_string")?;
            Ok(if event_type == EventType::Page { "Page Viewed" } else { "Screen Viewed" }.to_owned())
        }
        EventType::Identify | EventType::Group | EventType::Alias => Ok(String::new()),
    }
}

fn track_name(raw: Option<&str>, limits: &IntakeLimits) -> Result<String, Rejection> {
    let missing = || Rejection::new("event_not_defined", "track needs a non-empty event name").at("event");
    let raw = raw.ok_or_else(missing)?;
    let name = json::string(raw).ok_or_else(|| {
        Rejection::new("event_not_string", format!("event must be a string, not {}", kind(raw))).at("event")
    })?;
    if name.trim().is_empty() {
        return Err(missing());
    }
    if name.chars().count() > limits.event_name_chars_max {
        let message = format!("event has more than {} characters", limits.event_name_chars_max);
        return Err(Rejection::new("event_name_too_long", message).at("event"));
    }
    Ok(name)
}

fn check_text(raw: Option<&str>, field: &'static str, code: &'static str) -> Result<(), Rejection> {
    match raw {
        Some(raw) if !raw.starts_with('"') => {
            Err(Rejection::new(code, format!("{field} must be a string, not {}", kind(raw))).at(field))
        }
        _ => Ok(()),
    }
}

/// Properties of a page or screen: `page_name` or `screen_name` added from `name`, and `name` and `category` copied
/// in where the client did not (T14).
pub(super) fn view_properties(call: &Call<'_>, event_type: EventType) -> String {
    let properties = call.properties.unwrap_or("{}");
    let view_name = if event_type == EventType::Page { "page_name" } else { "screen_name" };
    let [own_name, own_category, own_view] = json::pick(properties, ["name", "category", view_name]);
    let name = call.name.or(own_name);
    let added = [
        (view_name, if own_view.is_none() { name } else { None }),
        ("name", if own_name.is_none() { call.name } else { None }),
        ("category", if own_category.is_none() { call.category } else { None }),
    ];
    let Some(inside) = properties.trim_end().strip_suffix('}') else { return properties.to_owned() };
    let mut object = inside.trim_end().to_owned();
    for (key, value) in added {
        let Some(value) = value else { continue };
        if !object.ends_with('{') {
            object.push(',');
        }
        object.push_str(&json::quote(key));
        object.push(':');
        object.push_str(value);
    }
    object.push('}');
    object
}

/// The reserved consent event must carry a map of booleans.
pub(super) fn check_consent(name: &str, context: &str) -> Result<(), Rejection> {
    if name != CONSENT_EVENT {
        return Ok(());
    }
    let field = "context.consent.categoryPreferences";
    let [consent] = json::pick(context, ["consent"]);
    let [preferences, version] =
        consent.map_or([None, None], |c| json::pick(c, ["categoryPreferences", "version"]));
    if version.is_some_and(|v| v != "null" && !v.starts_with(|c: char| c == '-' || c.is_ascii_digit())) {
        let message = "context.consent.version must be a number";
        return Err(Rejection::new("consent_version_should_be_number", message).at("context.consent.version"));
    }
    let Some(preferences) = preferences else {
        let message = format!("{CONSENT_EVENT} needs {field}");
        return Err(Rejection::new("consent_categorypreferences_should_exist", message).at(field));
    };
    let mut all_bool = true;
    let walked =
        json::for_each_entry(preferences, |_, value| all_bool &= matches!(value.get(), "true" | "false"));
    if walked.is_err() {
        let code = "consent_categorypreferences_fields_should_be_object";
        return Err(Rejection::new(code, format!("{field} must be an object")).at(field));
    }
    if !all_bool {
        let code = "consent_categorypreferences_fields_should_be_bool";
        return Err(Rejection::new(code, format!("every value in {field} must be true or false")).at(field));
    }
    Ok(())
}

/// An advertising id becomes an identifier, so it has to be text.
pub(super) fn check_device(context: &str) -> Result<(), Rejection> {
    if !context.contains("\"advertisingId\"") {
        return Ok(());
    }
    let [device] = json::pick(context, ["device"]);
    let [advertising] = device.map_or([None], |d| json::pick(d, ["advertisingId"]));
    match advertising {
        Some(raw) if raw != "null" && !raw.starts_with('"') => {
            let message = format!("context.device.advertisingId must be a string, not {}", kind(raw));
            Err(Rejection::new("device_advertisingid_should_be_string", message)
                .at("context.device.advertisingId"))
        }
        _ => Ok(()),
    }
}
