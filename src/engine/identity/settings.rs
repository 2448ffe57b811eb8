//! A space's identity settings made ready: patterns compiled, types in order of trust (decisions I2-I7, I12b).

use hashbrown::HashMap;
use regex::{Regex, RegexBuilder};

pub use crate::domain::id_type::{Frequency, IdType, TypeNo};
use crate::domain::sensitive::MASKED;

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
    /// Lower-cased, because blocked values are compared without case.
    blocked: Vec<String>,
    /// Bytes of the longest of them.
    longest: usize,
    patterns: Vec<Regex>,
    /// The keys it is read from, in all their spellings.
    spelled: Vec<String>,
}

/// Settings made ready: patterns compiled once, types in order of priority.
pub struct Settings {
    /// Most trusted first.
    types: Vec<Compiled>,
    /// Their places by name, and by number.
    by_name: HashMap<String, usize>,
    by_no: Vec<Option<usize>>,
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
            by_name: HashMap::new(),
            by_no: Vec::new(),
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
        let blocked: Vec<String> = id_type.blocked_exact.iter().map(|b| b.to_lowercase()).collect();
        let longest = blocked.iter().map(String::len).max().unwrap_or(0);
        let spelled = id_type.keys.iter().flat_map(|key| spellings(key)).collect();
        self.types.push(Compiled { id_type, blocked, longest, patterns, spelled });
        // Explicit priorities first, then user_id, email, and the rest by name.
        self.types.sort_by(|a, b| order(&a.id_type).cmp(&order(&b.id_type)));
        self.by_name = self.types.iter().map(|t| t.id_type.name.clone()).zip(0..).collect();
        self.by_no.clear();
        for (place, compiled) in self.types.iter().enumerate() {
            let no = usize::try_from(compiled.id_type.no).unwrap_or_default();
            self.by_no.resize(self.by_no.len().max(no + 1), None);
            if let Some(slot) = self.by_no.get_mut(no) {
                *slot = Some(place);
            }
        }
        Ok(())
    }

    /// All types, most trusted first.
    pub fn types(&self) -> impl Iterator<Item = &IdType> {
        self.types.iter().map(|t| &t.id_type)
    }

    /// The type of that name.
    pub fn by_name(&self, name: &str) -> Option<&IdType> {
        self.types.get(*self.by_name.get(name)?).map(|t| &t.id_type)
    }

    /// The type of that number.
    pub fn by_no(&self, no: TypeNo) -> Option<&IdType> {
        self.compiled(no).map(|t| &t.id_type)
    }

    /// Position in the order of trust; lower is more trusted.
    pub fn rank(&self, no: TypeNo) -> i64 {
        self.place(no).map_or(i64::MAX, |place| place as i64)
    }

    fn place(&self, no: TypeNo) -> Option<usize> {
        *self.by_no.get(usize::try_from(no).ok()?)?
    }

    fn compiled(&self, no: TypeNo) -> Option<&Compiled> {
        self.types.get(self.place(no)?)
    }

    /// Types that are read from keys, and the keys in all their spellings.
    pub(super) fn keyed(&self) -> impl Iterator<Item = (&IdType, &[String])> {
        let keyed = self.types.iter().filter(|t| !t.spelled.is_empty());
        keyed.map(|t| (&t.id_type, t.spelled.as_slice()))
    }

    /// A number for a type that is not there yet.
    pub fn next_no(&self) -> TypeNo {
        self.types().map(|t| t.no).max().unwrap_or(0).saturating_add(1)
    }

    /// Whether a normalised value is on the type's block list, or was masked.
    pub fn is_blocked(&self, no: TypeNo, value: &str) -> bool {
        if value.starts_with(MASKED) {
            return true;
        }
        self.compiled(no).is_some_and(|t| {
            let is_exact = value.len() <= t.longest
                && if value.is_ascii() {
                    t.blocked.iter().any(|blocked| blocked.eq_ignore_ascii_case(value))
                } else {
                    t.blocked.contains(&value.to_lowercase())
                };
            is_exact || t.patterns.iter().any(|pattern| pattern.is_match(value))
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

/// The two spellings of a key: `app_id` and `appId`.
fn spellings(key: &str) -> Vec<String> {
    let (mut camel, mut snake, mut upper) = (String::new(), String::new(), false);
    for c in key.chars() {
        if c == '_' {
            upper = !camel.is_empty();
            snake.push('_');
            continue;
        }
        if c.is_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
        if std::mem::take(&mut upper) { camel.extend(c.to_uppercase()) } else { camel.push(c) }
    }
    let mut all = vec![key.to_owned(), camel, snake];
    all.sort_unstable();
    all.dedup();
    all
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
