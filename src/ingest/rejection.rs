//! Why an event was refused: codes as Segment's delivery overview names them, plus our own where it has none.

/// One refused event, told to the client and kept in the rejected-event list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Stable code (`no_user_anon_id`, `payload_too_large`, …), listed in docs/errors.md.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
    /// The field at fault, as a path from the top of the call.
    pub field: Option<&'static str>,
    /// The call's message id, where one could be read.
    pub message_id: Option<String>,
}

impl Rejection {
    /// A rejection with no field.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, message_id: None }
    }

    /// The same, naming the field at fault.
    pub(crate) fn at(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}
