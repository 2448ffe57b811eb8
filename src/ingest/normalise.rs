//! One tracking call in, one log record out, or the reason why not (decisions T1-T16).
//!
//! The call is parsed once into raw slices; objects stay the text they were. Everything that has to be decided at
//! the door is decided here: ids, names, sizes, event time.

use std::borrow::Cow;

use crate::domain::{EventType, IntakeLimits, SourceNo, Timestamp, json};
use crate::store::log::codec::Record;

use super::rejection::Rejection;
use super::wire::Call;
use super::{lexical, merge, names};

/// What is the same for all calls of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub source: SourceNo,
    /// Whether anybody may know the key it came with.
    pub public: bool,
    pub received_at: Timestamp,
    /// The call named by the path; a batch's items name their own.
    pub path_type: Option<EventType>,
    /// Batch-level `context`, `integrations` and `sentAt`.
    pub context: Option<&'a str>,
    pub integrations: Option<&'a str>,
    pub sent_at: Option<&'a str>,
    pub limits: &'a IntakeLimits,
}

/// What the batcher needs to know of an accepted event besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub timestamp: Timestamp,
    pub name: String,
}

/// Checks and encodes one call, which was mended (T11), appending its record to `out`. `make_id` is called when it has no message id.
pub(crate) fn normalise(
    raw: &str,
    around: &Surroundings<'_>,
    make_id: impl FnOnce() -> String,
    out: &mut Vec<u8>,
) -> Result<Accepted, Rejection> {
    let limits = around.limits;
    if raw.len() > limits.event_bytes_max {
        let message =
            format!("the event has {} bytes; at most {} are taken", raw.len(), limits.event_bytes_max);
        return Err(Rejection {
            message_id: names::peek_message_id(raw),
            ..Rejection::new("payload_too_large", message)
        });
    }
    let scan = lexical::scan(raw);
    let call = Call::parse(raw)
        .map_err(|_| Rejection::new("bad_request", "a tracking call must be a JSON object"))?;
    let message_id = match names::message_id(call.message_id, limits) {
        Ok(id) => id.unwrap_or_else(make_id),
        Err(rejection) => return Err(rejection),
    };
    check_and_encode(&call, scan, around, &message_id, out)
        .map_err(|rejection| Rejection { message_id: Some(message_id.clone()), ..rejection })
}

fn check_and_encode(
    call: &Call<'_>,
    scan: lexical::Scan,
    around: &Surroundings<'_>,
    message_id: &str,
    out: &mut Vec<u8>,
) -> Result<Accepted, Rejection> {
    let limits = around.limits;
    if scan.depth > limits.json_depth_max {
        let message =
            format!("nested {} levels deep; at most {} are taken", scan.depth, limits.json_depth_max);
        return Err(Rejection::new("json_too_deep", message));
    }
    if scan.number_out_of_range {
        let message = "a number has more than 40 digits or an exponent beyond ±308; send it as a string";
        return Err(Rejection::new("number_out_of_range", message));
    }
    let event_type = names::event_type(call.event_type, around.path_type)?;
    let ids = Ids::read(call, event_type, limits)?;
    let name = names::event_name(call, event_type, limits)?;
    check_objects(call, limits)?;
    let context = merged(around.context, call.context);
    let integrations = merged(around.integrations, call.integrations);
    if event_type == EventType::Track {
        names::check_consent(&name, &context)?;
    }
    names::check_device(&context)?;
    check_context(call, event_type, &context, limits)?;
    let (timestamp, clamped) = event_time(call, around)?;
    let body = match event_type {
        EventType::Identify | EventType::Group => Cow::Borrowed(call.traits.unwrap_or_default()),
        EventType::Page | EventType::Screen => Cow::Owned(names::view_properties(call, event_type)),
        EventType::Track | EventType::Alias => Cow::Borrowed(call.properties.unwrap_or_default()),
    };
    Record {
        event_type,
        clamped,
        unprofiled: integrations.contains("Personas")
            && matches!(json::pick(&integrations, ["Personas"]), [Some("false")]),
        public: around.public,
        act: false,
        erased: false,
        timestamp,
        received_at: around.received_at,
        source: around.source,
        message_id,
        name: &name,
        user_id: &ids.user,
        anonymous_id: &ids.anonymous,
        group_id: &ids.group,
        previous_id: &ids.previous,
        body: &body,
        context: &context,
        integrations: &integrations,
        extra: &extra(call, event_type),
    }
    .encode(out);
    Ok(Accepted { timestamp, name })
}

fn merged<'a>(outer: Option<&'a str>, inner: Option<&'a str>) -> Cow<'a, str> {
    match (outer, inner) {
        (Some(outer), Some(inner)) => Cow::Owned(merge::deep_merge(outer, inner)),
        (outer, inner) => Cow::Borrowed(inner.or(outer).unwrap_or_default()),
    }
}

/// The four ids of a call; empty where absent, null or blank (T12, T12b).
struct Ids {
    user: String,
    anonymous: String,
    group: String,
    previous: String,
}

impl Ids {
    fn read(call: &Call<'_>, event_type: EventType, limits: &IntakeLimits) -> Result<Self, Rejection> {
        let ids = Self {
            user: id(call.user_id, "userId")?,
            anonymous: id(call.anonymous_id, "anonymousId")?,
            group: id(call.group_id, "groupId")?,
            previous: id(call.previous_id, "previousId")?,
        };
        if ids.group.chars().count() > limits.group_id_chars_max {
            let message = format!("groupId has more than {} characters", limits.group_id_chars_max);
            return Err(Rejection::new("group_id_too_long", message).at("groupId"));
        }
        let identified = !ids.user.is_empty() || !ids.anonymous.is_empty();
        if identified || (event_type == EventType::Alias && !ids.previous.is_empty()) {
            return Ok(ids);
        }
        let message = "neither userId nor anonymousId is given; send at least one as a non-empty string";
        Err(Rejection::new("no_user_anon_id", message).at("userId"))
    }
}

fn id(raw: Option<&str>, field: &'static str) -> Result<String, Rejection> {
    let Some(raw) = raw else { return Ok(String::new()) };
    let text = json::string_or_digits(raw).ok_or_else(|| {
        let message =
            format!("{field} must be a string (a number is taken as its digits), not {}", kind(raw));
        Rejection::new("id_not_string", message).at(field)
    })?;
    Ok(if text.trim().is_empty() { String::new() } else { text })
}

/// What a raw JSON value is, in words.
pub(super) fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn check_objects(call: &Call<'_>, limits: &IntakeLimits) -> Result<(), Rejection> {
    let fields = [
        (
            call.properties,
            "properties",
            "properties_not_object",
            limits.properties_max,
            "too_many_properties",
        ),
        (call.traits, "traits", "traits_not_object", limits.traits_max, "too_many_traits"),
        (call.context, "context", "context_not_object", usize::MAX, ""),
        (call.integrations, "integrations", "integrations_not_object", usize::MAX, ""),
    ];
    for (raw, field, not_object, most, too_many) in fields {
        let Some(raw) = raw else { continue };
        if !raw.starts_with('{') {
            let message = format!("{field} must be an object, not {}", kind(raw));
            return Err(Rejection::new(not_object, message).at(field));
        }
        check_count(raw, field, most, too_many)?;
    }
    Ok(())
}

fn check_count(
    object: &str,
    field: &'static str,
    most: usize,
    too_many: &'static str,
) -> Result<(), Rejection> {
    // An entry takes five bytes at least, so only long objects need counting.
    if object.len() / 5 > most {
        let mut count = 0;
        if json::for_each_entry(object, |_, _| count += 1).is_ok() && count > most {
            let message = format!("{field} has {count} entries; at most {most} are taken");
            return Err(Rejection::new(too_many, message).at(field));
        }
    }
    Ok(())
}

/// What in the context stands for something that has a limit at the top: the group, and the traits of a call that has none
/// of its own (R1).
fn check_context(
    call: &Call<'_>,
    event_type: EventType,
    context: &str,
    limits: &IntakeLimits,
) -> Result<(), Rejection> {
    let writes_traits = matches!(event_type, EventType::Identify | EventType::Group) && call.traits.is_none();
    let has = |name| context.contains(name);
    if !(has("\"groupId\"") || (writes_traits && has("\"traits\""))) {
        return Ok(());
    }
    let [group, traits] = json::pick(context, ["groupId", "traits"]);
    let chars = group.and_then(json::string_or_digits).map_or(0, |group| group.chars().count());
    if chars > limits.group_id_chars_max {
        let message = format!("context.groupId has more than {} characters", limits.group_id_chars_max);
        return Err(Rejection::new("group_id_too_long", message).at("context.groupId"));
    }
    match traits.filter(|_| writes_traits) {
        Some(traits) => check_count(traits, "context.traits", limits.traits_max, "too_many_traits"),
        None => Ok(()),
    }
}

/// T10: `received_at − (sent_at − original)` when both are given, else what is given, else the time of receipt.
/// `sentAt` only corrects the sender's clock: one that cannot be read is no reason to refuse what was sent.
fn event_time(call: &Call<'_>, around: &Surroundings<'_>) -> Result<(Timestamp, bool), Rejection> {
    let sent_at = time(call.sent_at.or(around.sent_at), "sentAt").unwrap_or_default();
    let original = time(call.original_timestamp, "originalTimestamp")?;
    let given = time(call.timestamp, "timestamp")?;
    let at = match (original.or(given), sent_at) {
        (Some(original), Some(sent)) => {
            let age = sent.millis().saturating_sub(original.millis());
            around.received_at.plus_millis(age.saturating_neg())
        }
        (original, _) => given.or(original).unwrap_or(around.received_at),
    };
    if at < Timestamp::EPOCH {
        let message = "the event's time is before 1970-01-01T00:00:00Z";
        return Err(Rejection::new("timestamp_out_of_range", message).at("timestamp"));
    }
    let latest = around.received_at.plus_millis(around.limits.future_tolerance_ms);
    Ok(if at > latest { (around.received_at, true) } else { (at, false) })
}

fn time(raw: Option<&str>, field: &'static str) -> Result<Option<Timestamp>, Rejection> {
    let Some(raw) = raw else { return Ok(None) };
    let text = json::string(raw);
    if text.as_ref().is_some_and(|t| t.trim().is_empty()) {
        return Ok(None);
    }
    let invalid = || {
        let message = format!("{field} must be an ISO 8601 timestamp such as \"2024-03-01T12:00:00.000Z\"");
        Rejection::new("timestamp_invalid", message).at(field)
    };
    text.as_deref().and_then(Timestamp::parse).map(Some).ok_or_else(invalid)
}

/// Everything the record has no place of its own for, so that the call can be shown as it was sent.
fn extra(call: &Call<'_>, event_type: EventType) -> String {
    let has_traits = matches!(event_type, EventType::Identify | EventType::Group);
    let own = [
        ("name", call.name),
        ("category", call.category),
        ("event", if event_type == EventType::Track { None } else { call.event }),
        ("traits", if has_traits { None } else { call.traits }),
        ("properties", if has_traits { call.properties } else { None }),
        ("originalTimestamp", call.original_timestamp.or(call.timestamp)),
        ("sentAt", call.sent_at),
    ];
    let given = own.into_iter().filter_map(|(key, raw)| Some((Cow::Borrowed(key), raw?)));
    let others = json::last_of_each(call.extra.iter().map(|(key, raw)| (key.clone(), *raw)));
    let mut object = String::new();
    for (key, raw) in given.chain(others) {
        object.push(if object.is_empty() { '{' } else { ',' });
        object.push_str(&json::quote(&key));
        object.push(':');
        object.push_str(raw);
    }
    if !object.is_empty() {
        object.push('}');
    }
    object
}
