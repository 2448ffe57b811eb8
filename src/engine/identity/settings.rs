//! A space's identity settings made ready: patterns compiled, types in order of trust (decisions I2-I7, I12b).

use regex::{Regex, RegexBuilder};

pub use crate::domain::id_type::{Frequency, IdType, TypeNo};

/// Longest pattern accepted, in characters.
pub const PATTERN_CHARS_MAX: usize = 256;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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
    /// A value refused to so many profiles is put into quarantine; 0: none is.
    pub quarantine_threshold: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.types.iter().map(|t| &t.id_type.name)).finish()
    }
}

impl Settings {
    /// Compiles settings; an error names the pattern that cannot be used.
    pub fn new(types: Vec<IdType>, merges_max: u32, identifiers_max: u32) -> Result<Self, BadPattern> {
        let mut settings = Self {
            types: Vec::new(),
            add_unknown_types: true,
            merges_max,
            identifiers_max,
            quarantine_threshold: 0,
        };
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
        self.types().map(|t| t.no).max().unwrap_or(0).saturating_add(1)
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
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| {
        // What is said before the last line draws the place, which a line of JSON cannot.
        let text = error.to_string();
        bad(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })
}

/// Whether a pattern can be used: at most [`PATTERN_CHARS_MAX`] characters, and no larger than 1 MiB when compiled (I3).
pub fn check_pattern(pattern: &str) -> Result<(), BadPattern> {
    compile(pattern).map(drop)
}
