//! Events as they came, passed on: the call it was, with when it came and whose it was then beside. Identifiers and values are
//! those of the event; filter and field lists hold for it as for all that is sent.

use serde_json::{Map, Value, json};

use super::{Envelope, put_personas};
use crate::deliver::choice::Choice;
use crate::domain::Timestamp;
use crate::domain::update::SentEvent;

/// Why an event is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It says itself that it is not for this destination.
    Integrations,
    /// The filter does not let it through.
    Filter,
}

/// An event for a destination. `profile_id` is whose it is now; of a store of the customer's own, what an event says of all
/// integrations is not meant (personas.md 2.10).
pub fn pass_on(
    sent: SentEvent,
    profile_id: &str,
    source: Option<&(String, String)>,
    envelope: Envelope<'_>,
    (choice, is_store): (&Choice, bool),
) -> Result<Value, Kept> {
    let SentEvent { profile_id: then, received_at, mut call, .. } = sent;
    if !is_meant(call.get("integrations"), envelope.destination, is_store) {
        return Err(Kept::Integrations);
    }
    call.insert("receivedAt".to_owned(), Timestamp::from_millis(received_at).to_string().into());
    let personas = json!({
        "namespace": envelope.space_id, "space_id": envelope.space_id, "profile_id": profile_id, "segment_id": then,
        "source_id": source.map(|(id, _)| id), "source_name": source.map(|(_, name)| name),
    });
    let mut event = Value::Object(call);
    put_personas(&mut event, personas.clone());
    if !choice.lets_through(&event) {
        return Err(Kept::Filter);
    }
    choice.restrict(&mut event);
    put_personas(&mut event, personas);
    Ok(event)
}

/// Whether an event is one that was passed on, and not a change.
pub fn is_passed_on(event: &Value) -> bool {
    event.pointer("/context/personas/source_id").is_some()
}

/// Whether what an event says of integrations lets it go to a destination of this name.
fn is_meant(integrations: Option<&Value>, name: &str, is_store: bool) -> bool {
    let Some(integrations) = integrations.and_then(Value::as_object) else { return true };
    let says =
        |fields: &Map<String, Value>, key: &str| fields.get(key).map(|value| *value != Value::Bool(false));
    says(integrations, name).or_else(|| says(integrations, "All").filter(|_| !is_store)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_says_of_integrations_is_followed() {
        let meant = |integrations: Value, is_store| is_meant(Some(&integrations), "CRM", is_store);
        assert!(meant(json!({}), false));
        assert!(meant(json!({"Other": false}), false));
        assert!(!meant(json!({"CRM": false}), false));
        assert!(!meant(json!({"All": false}), false));
        assert!(meant(json!({"All": false, "CRM": {"an": "option"}}), false));
        // Warehouses are not integrations, but one that is named is meant.
        assert!(meant(json!({"All": false}), true));
        assert!(!meant(json!({"CRM": false}), true));
    }
}
