//! One pass over the text of a call: keys and values one after the other, and what has to be changed about them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::keys::{self, Meaning};
use super::{Finding, Guard, Pattern, values};
use crate::domain::json;
use crate::domain::sensitive::{Action, Category, MASKED};

/// Longest path that is told, in characters; and longest key in it.
const PATH_CHARS_MAX: usize = 200;
const KEY_CHARS_MAX: usize = 60;
/// A key with so many digits may be a value in the wrong place.
const KEY_DIGITS_MAX: usize = 8;
/// Keys whose meaning is remembered during a request.
const KEYS_MAX: usize = 4_096;
/// Characters of a masked card or account number that stay.
const SHOWN: usize = 4;
/// Keys at the top of a call that are ours, and hold no text of somebody.
const OWN_KEYS: [&str; 8] =
    ["messageId", "timestamp", "originalTimestamp", "sentAt", "receivedAt", "type", "writeKey", "version"];
/// Keys at the top of a call that say who and what it is about: changed, it would be another call. They are left as they
/// are, or the call is refused.
const ID_KEYS: [&str; 5] = ["userId", "anonymousId", "groupId", "previousId", "event"];

/// A text as it may be stored.
#[derive(Debug)]
pub struct Screened<'t> {
    /// The text; borrowed when nothing had to be changed.
    pub text: Cow<'t, str>,
    /// What was found in it.
    pub findings: Vec<Finding>,
}

impl Screened<'_> {
    /// The finding because of which the event is refused.
    pub fn refused(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.action == Action::Reject)
    }
}

/// Looks at the calls of one request. What keys mean is remembered: they are the same in most calls.
#[derive(Debug)]
pub struct Screener {
    guard: Arc<Guard>,
    known: HashMap<String, KnownKey>,
}

#[derive(Debug, Clone, Copy, Default)]
struct KnownKey {
    meaning: Meaning,
    /// What it is itself: a value in the wrong place.
    is_value: Option<Category>,
    /// It is not told where something was found: somebody may not want to read it there.
    is_hidden: bool,
    /// Patterns that want this key, a bit each; see [`super::PATTERNS_MAX`].
    patterns: u128,
}

impl KnownKey {
    const fn wants(&self, place: usize) -> bool {
        self.patterns >> place & 1 == 1
    }
}

/// Something to be done: where, what was found, and what is written instead; nothing when it is to be left out.
struct Edit {
    range: Range<usize>,
    instead: Option<String>,
}

/// Where in a value something was found, what it is called, its category (patterns have none), and what becomes of it.
type Match = (Range<usize>, Arc<str>, Option<Category>, Action);

/// An object or list that is open.
struct Frame<'t> {
    is_object: bool,
    /// The key whose value is being looked at.
    key: Option<Key<'t>>,
}

#[derive(Debug, Clone, Copy)]
struct Key<'t> {
    /// As it stands in the text, without quotes.
    raw: &'t str,
    /// Where it begins.
    at: usize,
    known: KnownKey,
}

impl Screener {
    /// For one request of a space.
    pub fn new(guard: Arc<Guard>) -> Self {
        Self { guard, known: HashMap::new() }
    }

    /// Looks at a text that stands under `prefix` of a call, or is one (an empty prefix).
    pub fn screen<'t>(&mut self, text: &'t str, prefix: &'t str) -> Screened<'t> {
        // Borrowed once: counting who holds the guard, at every key, would cost more than all the looking.
        let Self { guard, known } = self;
        let (stack, edits, findings) = (Vec::new(), Vec::new(), Vec::new());
        let secrets = values::may_hold_secrets(text);
        let mut pass = Pass { guard, known, text, prefix, secrets, stack, edits, findings };
        pass.run();
        let Pass { edits, findings, .. } = pass;
        let text = if edits.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(edited(text, edits)) };
        Screened { text, findings }
    }
}

fn unescaped(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    json::unquote(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_owned()))
}

struct Pass<'s, 't> {
    guard: &'s Guard,
    known: &'s mut HashMap<String, KnownKey>,
    text: &'t str,
    prefix: &'t str,
    /// Whether there may be any in the text.
    secrets: bool,
    stack: Vec<Frame<'t>>,
    edits: Vec<Edit>,
    findings: Vec<Finding>,
}

impl Pass<'_, '_> {
    /// What a key means.
    fn known(&mut self, raw: &str) -> KnownKey {
        if let Some(known) = self.known.get(raw) {
            return *known;
        }
        let key = unescaped(raw);
        let wants = |pattern: &Pattern| pattern.key.as_ref().is_some_and(|regex| regex.is_match(&key));
        let patterns = self.guard.patterns.iter().enumerate();
        let bits = patterns.filter(|(_, pattern)| wants(pattern)).map(|(place, _)| 1_u128 << place);
        let is_value = values::find(&key, true, true).first().map(|(_, category)| *category);
        let is_wanted = |pattern: &Pattern| pattern.value.as_ref().is_some_and(|regex| regex.is_match(&key));
        let is_hidden = is_value.is_some()
            || key.bytes().filter(u8::is_ascii_digit).count() > KEY_DIGITS_MAX
            || self.guard.patterns.iter().any(is_wanted);
        let known = KnownKey {
            meaning: keys::meaning(&key),
            is_value,
            is_hidden,
            patterns: bits.fold(0, |all, bit| all | bit),
        };
        if self.known.len() < KEYS_MAX {
            self.known.insert(raw.to_owned(), known);
        }
        known
    }

    fn run(&mut self) {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at = match byte {
                b'{' | b'[' => {
                    self.stack.push(Frame { is_object: *byte == b'{', key: None });
                    at + 1
                }
                b'}' | b']' => {
                    self.stack.pop();
                    self.end_value();
                    at + 1
                }
                b'"' => self.string(at),
                b',' | b':' => at + 1,
                byte if byte.is_ascii_whitespace() => at + 1,
                _ => self.bare(at),
            };
        }
    }

    /// A string: a key, or a value. Gives where it goes on.
    fn string(&mut self, at: usize) -> usize {
        let inner_end = end_of_string(self.text.as_bytes(), at + 1);
        let end = (inner_end + 1).min(self.text.len());
        let inner = self.text.get(at + 1..inner_end).unwrap_or_default();
        let rest = self.text.get(end..).unwrap_or_default();
        let is_key = self.stack.last().is_some_and(|frame| frame.is_object && frame.key.is_none())
            && rest.trim_ascii_start().starts_with(':');
        if !is_key {
            self.value(at..end, inner, true);
            self.end_value();
            return end;
        }
        let known = self.known(inner);
        if let Some(frame) = self.stack.last_mut() {
            frame.key = Some(Key { raw: inner, at, known });
        }
        let value_at = end + rest.len() - rest.trim_ascii_start().len() + 1;
        let value = self.text.get(value_at..).unwrap_or_default();
        let value_at = value_at + value.len() - value.trim_ascii_start().len();
        if self.key(inner, known, at..end, value_at) {
            let taken = json::value_len(self.text.get(value_at..).unwrap_or_default());
            self.end_value();
            return taken.map_or(self.text.len(), |len| value_at + len);
        }
        value_at.min(self.text.len())
    }

    /// A number, `true`, `false`, `null`, or whatever else stands there.
    fn bare(&mut self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        // Outside of objects and lists it is no JSON: text, with its spaces and commas.
        let is_text = self.stack.is_empty();
        let ends = |c: char| match c {
            '{' | '[' | '"' => true,
            ',' | '}' | ']' | ':' => !is_text,
            c => !is_text && c.is_whitespace(),
        };
        let length = rest.find(ends).unwrap_or(rest.len()).max(1);
        let end = at + length;
        if let Some(token) = self.text.get(at..end) {
            // Without quotes only numbers say something, and what is no JSON at all.
            if !matches!(token, "true" | "false" | "null") {
                self.value(at..end, token, false);
            }
            self.end_value();
            return end;
        }
        self.text.ceil_char_boundary(at + 1)
    }

    fn end_value(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.key = None;
        }
    }

    /// Looks at a key and the value behind it; true when the value is done with.
    fn key(&mut self, raw: &str, known: KnownKey, key: Range<usize>, value_at: usize) -> bool {
        if self.is_top() && (OWN_KEYS.contains(&raw) || ID_KEYS.contains(&raw)) {
            return false;
        }
        let value = self.text.get(value_at..).unwrap_or_default();
        let length = || json::value_len(value).unwrap_or(value.len());
        let guard = self.guard;
        if let Some(category) =
            known.is_value.filter(|category| guard.settings.action(*category) != Action::Allow)
        {
            self.act_on_field(&guard.name(category), None, Action::Drop, key, value_at..value_at + length());
            return true;
        }
        if let Some(category) = known.meaning.category
            && !(known.meaning.unless_device && self.is_of_device())
        {
            let length = length();
            let action = guard.settings.action(category);
            if action != Action::Allow && tells(category, value.get(..length).unwrap_or_default()) {
                self.act_on_field(
                    &guard.name(category),
                    Some(category),
                    action,
                    key,
                    value_at..value_at + length,
                );
                return true;
            }
        }
        for (place, pattern) in guard.patterns.iter().enumerate() {
            if known.wants(place) && pattern.value.is_none() && pattern.action != Action::Allow {
                let range = value_at..value_at + length();
                self.act_on_field(&pattern.name, None, pattern.action, key, range);
                return true;
            }
        }
        false
    }

    /// Whether the object the present key stands in is a device.
    fn is_of_device(&self) -> bool {
        let outer = self.stack.iter().rev().nth(1).and_then(|frame| frame.key);
        outer.is_some_and(|key| key.raw == "device")
    }

    /// Whether the present key is one of the call itself.
    fn is_top(&self) -> bool {
        self.stack.len() == 1 && self.prefix.is_empty()
    }

    /// A field whose key says what it is.
    fn act_on_field(
        &mut self,
        what: &Arc<str>,
        category: Option<Category>,
        action: Action,
        key: Range<usize>,
        value: Range<usize>,
    ) {
        let raw = self.text.get(value.clone()).unwrap_or_default();
        let text = json::string(raw).unwrap_or_else(|| raw.to_owned());
        let instead = match action {
            Action::Allow => return,
            Action::Drop => None,
            Action::Mask | Action::Reject => Some(masked(&text, category)),
            Action::Hash => Some(self.guard.hash(&text)),
        };
        self.found(what, action);
        let range = if instead.is_some() { value } else { key.start..value.end };
        self.edits.push(Edit { range, instead: instead.map(|text| json::quote(&text)) });
    }

    /// A string or number, the quotes of which `range` includes.
    fn value(&mut self, range: Range<usize>, raw: &str, is_string: bool) {
        let key = self.stack.iter().rev().find(|frame| frame.is_object).and_then(|frame| frame.key);
        let is_top = self.is_top();
        let is_own = |keys: &[&str]| is_top && key.is_some_and(|key| keys.contains(&key.raw));
        if is_own(&OWN_KEYS) {
            return;
        }
        let is_id = is_own(&ID_KEYS);
        let known = key.map(|key| key.known).unwrap_or_default();
        let text = if is_string { unescaped(raw) } else { Cow::Borrowed(whole(raw)) };
        let guard = self.guard;
        let solid = !is_id && !known.meaning.is_number;
        let mut matches: Vec<Match> = Vec::new();
        for (place, category) in values::find(&text, solid, self.secrets) {
            let action = guard.settings.action(category);
            if action != Action::Allow {
                matches.push((place, guard.name(category), Some(category), action));
            }
        }
        for (place, pattern) in guard.patterns.iter().enumerate() {
            let Some(regex) = pattern.value.as_ref().filter(|_| pattern.action != Action::Allow) else {
                continue;
            };
            if pattern.key.is_some() && !known.wants(place) {
                continue;
            }
            matches.extend(
                regex.find_iter(&text).map(|m| (m.range(), Arc::clone(&pattern.name), None, pattern.action)),
            );
        }
        if !matches.is_empty() {
            self.act_on_matches(range, &text, matches, is_id);
        }
    }

    fn act_on_matches(&mut self, range: Range<usize>, text: &str, mut matches: Vec<Match>, is_id: bool) {
        if is_id {
            // Whatever else was wanted: an id that is changed is somebody else's.
            for (.., action) in &mut matches {
                *action = Action::Reject;
            }
        }
        matches.sort_unstable_by_key(|(place, ..)| (place.start, place.end));
        let (mut out, mut copied, mut dropped) = (String::with_capacity(text.len()), 0, false);
        for (place, what, category, action) in matches {
            self.found(&what, action);
            dropped |= action == Action::Drop;
            let Some(part) = text.get(place.clone()).filter(|_| place.start >= copied) else { continue };
            out.push_str(text.get(copied..place.start).unwrap_or_default());
            match action {
                Action::Hash => out.push_str(&self.guard.hash(part)),
                _ => out.push_str(&masked(part, category)),
            }
            copied = place.end;
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        let own = self.stack.last().filter(|frame| frame.is_object).and_then(|frame| frame.key);
        let edit = match (dropped, own) {
            (false, _) => Edit { range, instead: Some(json::quote(&out)) },
            (true, Some(key)) => Edit { range: key.at..range.end, instead: None },
            (true, None) => Edit { range, instead: Some("null".to_owned()) },
        };
        self.edits.push(edit);
    }

    fn found(&mut self, what: &Arc<str>, action: Action) {
        let finding = Finding { what: Arc::clone(what), path: self.path(), action };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Where this is, as far as it may be told: a key that looks like a value is not.
    fn path(&self) -> String {
        let mut path = self.prefix.to_owned();
        for frame in &self.stack {
            let part = match frame.key {
                Some(key) if key.known.is_hidden => "*".to_owned(),
                Some(key) => {
                    unescaped(key.raw).chars().filter(|c| !c.is_control()).take(KEY_CHARS_MAX).collect()
                }
                None if frame.is_object => continue,
                None => "[]".to_owned(),
            };
            if !path.is_empty() && part != "[]" {
                path.push('.');
            }
            path.push_str(&part);
        }
        path.chars().take(PATH_CHARS_MAX).collect()
    }
}

/// A number without a fraction of nothing: some languages write every number as one with a fraction.
fn whole(number: &str) -> &str {
    let point = number.trim_end_matches('0').strip_suffix('.');
    point.filter(|whole| whole.bytes().all(|b| b.is_ascii_digit())).unwrap_or(number)
}

/// Whether a value can be what its key says: a card has digits, and that there is a password is no password.
fn tells(category: Category, raw: &str) -> bool {
    let digits = || raw.bytes().filter(u8::is_ascii_digit).count();
    match category {
        _ if matches!(raw, "null" | "\"\"") => false,
        Category::CardNumber => digits() >= 12,
        Category::Iban => raw.len() > 12,
        Category::NationalId => digits() >= 3,
        Category::Secret => !matches!(raw, "true" | "false"),
        Category::Health | Category::SpecialCategory => true,
    }
}

/// What stays legible of a value: of cards and accounts the last four characters, of anything else nothing, not even its
/// length.
fn masked(text: &str, category: Option<Category>) -> String {
    let keeps = matches!(category, Some(Category::CardNumber | Category::Iban));
    let characters: Vec<char> = text.chars().filter(|c| c.is_alphanumeric()).collect();
    match characters.len().checked_sub(SHOWN) {
        Some(hidden) if keeps && hidden > SHOWN => {
            let shown: String = characters.iter().skip(hidden).collect();
            format!("{}{shown}", "*".repeat(hidden))
        }
        _ => MASKED.to_owned(),
    }
}

/// Index of the closing quote of the string whose content begins at `at`; the end of the text where there is none.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += step;
        if bytes.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// The text with its edits, which are in its order. What is left out takes a comma with it.
fn edited(text: &str, edits: Vec<Edit>) -> String {
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for Edit { range, instead } in edits {
        out.push_str(text.get(copied..range.start).unwrap_or_default());
        copied = range.end;
        if let Some(instead) = instead {
            out.push_str(&instead);
            continue;
        }
        let rest = text.get(copied..).unwrap_or_default();
        if let Some(behind) = rest.trim_ascii_start().strip_prefix(',') {
            copied = text.len() - behind.len();
        } else {
            // The last one: the comma before it goes.
            let kept = out.trim_ascii_end();
            let kept = kept.strip_suffix(',').map_or(kept.len(), str::len);
            out.truncate(kept);
        }
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}
