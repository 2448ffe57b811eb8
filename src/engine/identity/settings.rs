//! A space's identity settings: identifier types, limits, priorities, blocked values (decisions I2-I7, I12b).

use regex::{Regex, RegexBuilder};

/// Number of an identifier type within its space.
pub type TypeNo = i16;

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
#[derive(Debug, Clone)]
pub struct IdType {
    /// Its number in the space.
    pub no: TypeNo,
    /// Its name: `[a-z][a-z0-9_.]{0,63}`.
    pub name: String,
    /// Keys a custom type is read from, in traits, properties and `context.traits`; empty for the built-in ones.
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

/// Longest pattern accepted, in characters.
pub const PATTERN_CHARS_MAX: usize = 256;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("blocked pattern {pattern:?} cannot be used: {why}")]
pub struct BadPattern {
    pattern: String,
    why: String,
}

struct Compiled {
    id_type: IdType,
    rank: i64,
    /// Lower-cased, because blocked values are compared without case.
    blocked: Vec<String>,
    patterns: Vec<Regex>,
}

/// Settings made ready: patterns compiled once, types in order of priority.
pub struct Settings {
    types: Vec<Compiled>,
    /// Unknown types in `externalIds` are added (I12b).
    pub add_unknown_types: bool,
    /// Merges a profile takes at most (I5).
    pub merges_max: u32,
    /// Identifiers a profile takes at most (I5).
    pub identifiers_max: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.types.iter().map(|t| &t.id_type.name)).finish()
    }
}

impl Settings {
    /// Compiles settings; an error names the pattern that cannot be used.
    pub fn new(types: Vec<IdType>, merges_max: u32, identifiers_max: u32) -> Result<Self, BadPattern> {
        let mut settings = Self { types: Vec::new(), add_unknown_types: true, merges_max, identifiers_max };
        for id_type in types {
            settings.push(id_type)?;
        }
        Ok(settings)
    }

    /// Adds one type and orders the priorities anew.
    pub fn push(&mut self, id_type: IdType) -> Result<(), BadPattern> {
        let patterns = id_type.blocked_patterns.iter().map(|p| compile(p)).collect::<Result<_, _>>()?;
        let blocked = id_type.blocked_exact.iter().map(|b| b.to_lowercase()).collect();
        self.types.push(Compiled { id_type, rank: 0, blocked, patterns });
        // Explicit priorities first, then user_id, email, and the rest by name.
        self.types.sort_by(|a, b| order(&a.id_type).cmp(&order(&b.id_type)));
        for (rank, compiled) in (0..).zip(&mut self.types) {
            compiled.rank = rank;
        }
        Ok(())
    }

    /// All types, most trusted first.
    pub fn types(&self) -> impl Iterator<Item = &IdType> {
        self.types.iter().map(|t| &t.id_type)
    }

    /// The type of that name.
    pub fn by_name(&self, name: &str) -> Option<&IdType> {
        self.types().find(|t| t.name == name)
    }

    /// The type of that number.
    pub fn by_no(&self, no: TypeNo) -> Option<&IdType> {
        self.types().find(|t| t.no == no)
    }

    /// Position in the order of trust; lower is more trusted.
    pub fn rank(&self, no: TypeNo) -> i64 {
        self.types.iter().find(|t| t.id_type.no == no).map_or(i64::MAX, |t| t.rank)
    }

    /// A number for a type that is not there yet.
    pub fn next_no(&self) -> TypeNo {
        self.types().map(|t| t.no).max().unwrap_or(0) + 1
    }

    /// Whether a normalised value is on the type's block list.
    pub fn is_blocked(&self, no: TypeNo, value: &str) -> bool {
        self.types.iter().find(|t| t.id_type.no == no).is_some_and(|t| {
            let longest = t.blocked.iter().map(String::len).max().unwrap_or(0);
            (value.len() <= longest && t.blocked.contains(&value.to_lowercase()))
                || t.patterns.iter().any(|pattern| pattern.is_match(value))
        })
    }
}

fn order(id_type: &IdType) -> (i64, u8, &str) {
    let explicit = id_type.priority.map_or(i64::from(i32::MAX) + 1, i64::from);
    let natural = match id_type.name.as_str() {
        "user_id" => 0,
        "email" => 1,
        _ => 2,
    };
    (explicit, natural, &id_type.name)
}

fn compile(pattern: &str) -> Result<Regex, BadPattern> {
    let bad = |why: String| BadPattern { pattern: pattern.to_owned(), why };
    if pattern.chars().count() > PATTERN_CHARS_MAX {
        return Err(bad(format!("it has more than {PATTERN_CHARS_MAX} characters")));
    }
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().map_err(|e| bad(e.to_string()))
}
