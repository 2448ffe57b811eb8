//! The data map: what each table holds of people, why, how long, and what becomes of it when somebody is erased (privacy duties
//! P1, P15). A test holds it against the schema: a table that is not in it fails the build.

/// What becomes of a table's rows when somebody is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// There is nothing of people in it.
    Nothing,
    /// The rows that are about them are deleted.
    Rows,
    /// What the rows say of them is taken out, the rows stay.
    Content,
    /// Kept: it holds hashes alone, and is what keeps them erased.
    Kept,
}

impl Erased {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "no personal data",
            Self::Rows => "rows are deleted",
            Self::Content => "content is taken out",
            Self::Kept => "kept: keyed hashes only",
        }
    }
}

/// What there is in one table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The table.
    pub table: &'static str,
    /// What it holds.
    pub holds: &'static str,
    /// How long, where nobody is erased.
    pub kept: &'static str,
    /// What becomes of it when somebody is.
    pub erased: Erased,
}

const fn entry(table: &'static str, holds: &'static str, kept: &'static str, erased: Erased) -> Entry {
    Entry { table, holds, kept, erased }
}

const WITH_SPACE: &str = "as long as the space";
const WITH_PROFILE: &str = "as long as the profile";
const RETENTION: &str = "`log.retention_days`";
const DELIVERIES: &str = "`deliver.kept_days`";

/// Every table there is.
pub const DATA_MAP: &[Entry] = &[
    entry("access_token", "names and hashes of tokens", WITH_SPACE, Erased::Nothing),
    entry("account_link", "which user is in which account", WITH_PROFILE, Erased::Rows),
    entry("audit_entry", "what operators did, with the identifiers they named", WITH_SPACE, Erased::Content),
    entry("audit_head", "the end of the chain of the audit log", WITH_SPACE, Erased::Nothing),
    entry("audit_record", "who did what, by tokens, ids of profiles and hashes", WITH_SPACE, Erased::Nothing),
    entry("chunk_outcome", "numbers of the profiles events belong to", RETENTION, Erased::Content),
    entry("computation", "versions of definitions, and their sizes", WITH_SPACE, Erased::Nothing),
    entry("consent_category", "categories of consent", WITH_SPACE, Erased::Nothing),
    entry("consent_mapping", "which destinations need which consent", WITH_SPACE, Erased::Nothing),
    entry("consent_settings", "what follows from consent", WITH_SPACE, Erased::Nothing),
    entry("definition", "audiences and computed traits", WITH_SPACE, Erased::Nothing),
    entry("delivery", "changes that wait for a destination", "until they are sent", Erased::Rows),
    entry("delivery_attempt", "attempts to send", DELIVERIES, Erased::Rows),
    entry(
        "delivery_exchange",
        "requests and answers that are kept to be looked at",
        DELIVERIES,
        Erased::Rows,
    ),
    entry("delivery_head", "ends of queues", WITH_SPACE, Erased::Nothing),
    entry(
        "delivery_hold",
        "numbers of profiles that wait for another attempt",
        "until it is made",
        Erased::Rows,
    ),
    entry("delivery_outcome", "changes that were sent", DELIVERIES, Erased::Rows),
    entry("destination", "destinations, secrets encrypted", WITH_SPACE, Erased::Nothing),
    entry("destination_failure", "counts of failures", WITH_SPACE, Erased::Nothing),
    entry("destination_subscription", "what destinations want", WITH_SPACE, Erased::Nothing),
    entry("destination_sync", "full syncs under way", "until they are done", Erased::Nothing),
    entry("destination_worker", "how destinations stand", WITH_SPACE, Erased::Nothing),
    entry("erased_identifier", "who was erased, and when", WITH_SPACE, Erased::Kept),
    entry("event_chunk", "the log: all events as they were accepted", RETENTION, Erased::Content),
    entry("external_id", "identifiers, and whose they are", WITH_PROFILE, Erased::Rows),
    entry("former_profile", "public ids that lead to other profiles", WITH_PROFILE, Erased::Rows),
    entry("identity_problem", "values that were refused, and how often", WITH_SPACE, Erased::Rows),
    entry("identity_refusal", "values that were refused to a profile", WITH_PROFILE, Erased::Rows),
    entry("identity_rule", "how often which rule refused", WITH_SPACE, Erased::Nothing),
    entry("identity_settings", "rules of identity", WITH_SPACE, Erased::Nothing),
    entry("identity_suspect", "values that many profiles were refused", WITH_SPACE, Erased::Rows),
    entry("identity_type", "types of identifiers", WITH_SPACE, Erased::Nothing),
    entry("leaf", "conditions of definitions", WITH_SPACE, Erased::Nothing),
    entry("log_column", "properties of events, for scans", RETENTION, Erased::Rows),
    entry("log_head", "the end of the log", WITH_SPACE, Erased::Nothing),
    entry("log_section", "numbers of profiles and hashes of message ids, for scans", RETENTION, Erased::Rows),
    entry("log_segment", "which part of the log has columns", RETENTION, Erased::Rows),
    entry("membership", "who is in which audience", WITH_PROFILE, Erased::Rows),
    entry("message_page", "hashes of message ids", RETENTION, Erased::Nothing),
    entry("message_run", "filters of hashes of message ids", RETENTION, Erased::Nothing),
    entry("privacy_secret", "the secret that identifiers are hashed under", WITH_SPACE, Erased::Nothing),
    entry("processor", "how far the log is processed", WITH_SPACE, Erased::Nothing),
    entry(
        "profile",
        "profiles: identifiers, traits, states, memberships",
        "until it is erased",
        Erased::Rows,
    ),
    entry("profile_due", "when profiles change by the passage of time", WITH_PROFILE, Erased::Rows),
    entry("profile_event_page", "places of a profile's events in the log", WITH_PROFILE, Erased::Rows),
    entry("profile_merge", "which profiles became one, and by which identifiers", WITH_PROFILE, Erased::Rows),
    entry("purge_report", "how many rows of a purged space there were", "for ever", Erased::Nothing),
    entry("rebuild", "rebuilds under way", "until they are done", Erased::Nothing),
    entry("registry", "a version", "for ever", Erased::Nothing),
    entry("regulation", "what was asked for, by which token", WITH_SPACE, Erased::Nothing),
    entry("regulation_receipt", "what destinations made of deletions", WITH_SPACE, Erased::Nothing),
    entry(
        "regulation_subject",
        "whom it is about: hashes of identifiers until nothing is left, then an id nobody has",
        WITH_SPACE,
        Erased::Content,
    ),
    entry(
        "rejected_event",
        "events that were refused, and what of events was not used",
        RETENTION,
        Erased::Rows,
    ),
    entry("retention", "how long events are kept", WITH_SPACE, Erased::Nothing),
    entry("search_entry", "hashes of trait values profiles are found by", WITH_PROFILE, Erased::Rows),
    entry("search_trait", "traits profiles are found by", WITH_SPACE, Erased::Nothing),
    entry(
        "seen",
        "names of events, properties and traits, their types and frequent values",
        WITH_SPACE,
        Erased::Content,
    ),
    entry("seen_position", "how far those are read", WITH_SPACE, Erased::Nothing),
    entry("segment_gap", "parts of the log without columns", "until they have some", Erased::Nothing),
    entry("sensitive_finding", "where sensitive data was found, without values", WITH_SPACE, Erased::Nothing),
    entry("sensitive_settings", "what becomes of sensitive data", WITH_SPACE, Erased::Nothing),
    entry("size_change", "sizes of audiences over time", WITH_SPACE, Erased::Nothing),
    entry("source", "sources", WITH_SPACE, Erased::Nothing),
    entry("space", "spaces", "until it is purged", Erased::Nothing),
    entry("suppression", "who is suppressed", "until it is lifted", Erased::Kept),
    entry("test_clock", "an instant", "for ever", Erased::Nothing),
    entry("transition", "who entered and left which audience, and when", WITH_PROFILE, Erased::Rows),
    entry("usage_month", "events by month", WITH_SPACE, Erased::Nothing),
    entry("write_key", "hashes of write keys", WITH_SPACE, Erased::Nothing),
];
