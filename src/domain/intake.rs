//! The sizes a tracking call may have (decisions T7), all configurable: `[ingest]` in `config/personas.toml`.

/// Limits of the tracking API. Bytes are bytes of UTF-8, characters are Unicode scalar values.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// One event as sent.
    pub event_bytes_max: usize,
    /// One request body, compressed and decompressed alike.
    pub body_bytes_max: usize,
    /// Events in one batch.
    pub batch_events_max: usize,
    /// Nesting of objects and arrays in one event.
    pub json_depth_max: usize,
    /// Top-level properties of one event.
    pub properties_max: usize,
    /// Top-level traits of one event.
    pub traits_max: usize,
    /// Length of a message id.
    pub message_id_chars_max: usize,
    /// Length of a group id.
    pub group_id_chars_max: usize,
    /// Length of an event name.
    pub event_name_chars_max: usize,
    /// How far ahead of the time of receipt an event may claim to be before it is clamped to it.
    pub future_tolerance_ms: i64,
    /// Refused events and bodies of one source that are listed in a second; at least 1.
    pub rejected_per_second_max: u32,
}
