//! Identifier types: what a space's identity settings consist of (decisions I2-I7).

/// Number of an identifier type within its space.
pub type TypeNo = i16;

/// Identifier types of a space at most: what is looked for in every event has to have an end.
pub const TYPES_MAX: usize = 200;

/// How long a value counts against its type's limit after it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frequency {
    /// 24 hours.
    Daily,
    /// 7 days.
    Weekly,
    /// 30 days.
    Monthly,
    /// 365 days.
    Annually,
    /// For ever.
    Ever,
}

impl Frequency {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Daily, "daily"),
        (Self::Weekly, "weekly"),
        (Self::Monthly, "monthly"),
        (Self::Annually, "annually"),
        (Self::Ever, "ever"),
    ];

    /// The word of the settings API.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(f, _)| *f == self).map_or("ever", |(_, word)| word)
    }

    /// Reads the word of the settings API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, w)| *w == word).map(|(f, _)| *f)
    }

    /// Length of the window in milliseconds; `None` for ever.
    pub const fn window_ms(self) -> Option<i64> {
        const DAY: i64 = 86_400_000;
        match self {
            Self::Daily => Some(DAY),
            Self::Weekly => Some(7 * DAY),
            Self::Monthly => Some(30 * DAY),
            Self::Annually => Some(365 * DAY),
            Self::Ever => None,
        }
    }
}

/// One identifier type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdType {
    /// Its number in the space.
    pub no: TypeNo,
    /// Its name: `[a-z][a-z0-9_.]{0,63}`.
    pub name: String,
    /// Keys it is read from in traits, properties and `context.traits`, in camel case and snake case alike. Without any it
    /// is read from where the protocol has it, and from `externalIds`.
    pub keys: Vec<String>,
    /// Most values a profile takes within the window.
    pub limit: u32,
    /// The window.
    pub frequency: Frequency,
    /// Explicit priority; without one: `user_id`, `email`, then by name.
    pub priority: Option<i32>,
    /// Whether values are lower-cased.
    pub case_insensitive: bool,
    /// Values never taken, compared without case.
    pub blocked_exact: Vec<String>,
    /// Patterns never taken.
    pub blocked_patterns: Vec<String>,
}

/// Values no type takes unless its settings say otherwise (I3).
pub const BLOCKED_EXACT: [&str; 15] = [
    "null",
    "undefined",
    "nil",
    "none",
    "n/a",
    "na",
    "nan",
    "anonymous",
    "unknown",
    "guest",
    "true",
    "false",
    "-1",
    "0",
    "[object Object]",
];
/// Zeroes and dashes, the empty string included (I3).
pub const BLOCKED_PATTERN: &str = "^[0-]*$";

const DEFAULT_TYPES: [&str; 11] = [
    "user_id",
    "email",
    "android.id",
    "android.idfa",
    "android.push_token",
    "anonymous_id",
    "ga_client_id",
    "group_id",
    "ios.id",
    "ios.idfa",
    "ios.push_token",
];

impl IdType {
    /// A type with the defaults: 1 value ever for `user_id`, 5 ever for the others, the usual blocked values.
    pub fn with_defaults(no: TypeNo, name: &str) -> Self {
        Self {
            no,
            name: name.to_owned(),
            keys: Vec::new(),
            limit: if matches!(name, "user_id" | "group_id") { 1 } else { 5 },
            frequency: Frequency::Ever,
            priority: None,
            case_insensitive: name == "email",
            blocked_exact: BLOCKED_EXACT.map(str::to_owned).to_vec(),
            blocked_patterns: vec![BLOCKED_PATTERN.to_owned()],
        }
    }

    /// The eleven types every space starts with.
    pub fn defaults() -> Vec<Self> {
        (1..).zip(DEFAULT_TYPES).map(|(no, name)| Self::with_defaults(no, name)).collect()
    }
}
