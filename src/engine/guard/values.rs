//! Sensitive values, recognised by what they are: check digits, issuers, shapes. Pure functions over text.
//!
//! What is found are ranges of bytes in the text. A number that is part of a longer word or number is none: ids, hashes
//! and phone numbers must not look like cards.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::domain::sensitive::Category;

/// Shorter than anything that is looked for.
const BYTES_MIN: usize = 9;
/// Digits of the shortest card number.
const CARD_DIGITS_MIN: usize = 13;

/// What is found in a text, in the order of the text, without overlaps. `solid` numbers, written without separators, are
/// taken for cards only where that is asked for: under a key such as `order_id` they are something else. Without `secrets`
/// nobody looks for keys and tokens: see [`may_hold_secrets`].
pub(super) fn find(text: &str, solid: bool, secrets: bool) -> Vec<(Range<usize>, Category)> {
    let mut found = Vec::new();
    if text.len() < BYTES_MIN {
        return found;
    }
    let signs = Signs::of(text.as_bytes());
    if signs.card {
        cards(text, solid, &mut found);
    }
    if signs.iban {
        ibans(text, &mut found);
    }
    if signs.national_id {
        national_ids(text, &mut found);
    }
    if secrets && BEGINNING_OF_SECRET.is_match(text) {
        found.extend(SECRET.find_iter(text).map(|m| (m.range(), Category::Secret)));
    }
    found.sort_unstable_by_key(|(range, _)| (range.start, range.end));
    let mut end = 0;
    found.retain(|(range, _)| {
        let apart = range.start >= end;
        end = if apart { range.end } else { end };
        apart
    });
    found
}

/// Whether any string in a JSON text may hold a secret that is known by its shape. One look at all of it costs less than
/// one at each string, and nearly no text has any.
pub(super) fn may_hold_secrets(json: &str) -> bool {
    // What is escaped cannot be seen from here.
    memchr::memchr(b'\\', json.as_bytes()).is_some() || BEGINNING_OF_SECRET.is_match(json)
}

/// Fewer digits than anything has that [`Signs`] are signs of.
const DIGITS_MIN: usize = 2;

/// What may be in a text, as far as one cheap pass can tell: nearly all texts have none of it.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    /// Enough digits with nothing but separators between them.
    card: bool,
    /// Two capitals and two digits after them.
    iban: bool,
    /// Groups of digits like a social security number's, or capitals in the places of other numbers.
    national_id: bool,
}

impl Signs {
    fn of(bytes: &[u8]) -> Self {
        let (mut signs, mut digits, mut capitals) = (Self::default(), 0_usize, 0_usize);
        // Words, which most texts are, in a few steps.
        if bytes.iter().filter(|byte| byte.is_ascii_digit()).count() < DIGITS_MIN {
            return signs;
        }
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    digits += 1;
                    signs.card |= digits >= CARD_DIGITS_MIN;
                    signs.iban |= capitals >= 2 && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                    signs.national_id |= capitals >= 6;
                    capitals = 0;
                }
                b'A'..=b'Z' => {
                    capitals += 1;
                    digits = 0;
                }
                b' ' | b'-' | b'.' | b'_' | b'/' | b'+' | b'%' | 0x80.. => {
                    let next = bytes.get(at + 1);
                    signs.national_id |=
                        capitals >= 2 && *byte == b' ' && next.is_some_and(u8::is_ascii_digit);
                    signs.national_id |= *byte == b'-' && bytes.get(at + 3) == Some(&b'-');
                    capitals = 0;
                }
                _ => (digits, capitals) = (0, 0),
            }
        }
        signs
    }
}

/// What every secret that is known by its shape begins with, or has near its beginning.
static BEGINNING_OF_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    compiled("-----BEGIN|eyJ|AKIA|ASIA|_live_|ghp_|gho_|ghs_|ghu_|ghr_|github_pat_|glpat-|xox|AIza")
});

/// Keys and tokens that say what they are.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
        r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"|\b(?:sk|rk)_live_[0-9A-Za-z]{16,}",
        r"|\b(?:ghp|gho|ghs|ghu|ghr)_[0-9A-Za-z]{36}\b",
        r"|\bgithub_pat_[0-9A-Za-z_]{22,}",
        r"|\bglpat-[0-9A-Za-z_-]{20,}",
        r"|\bxox[abprs]-[0-9A-Za-z-]{10,}",
        r"|\bAIza[0-9A-Za-z_-]{35}\b",
    ))
});

#[expect(clippy::expect_used, reason = "patterns of ours; the tests of this module compile all of them")]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of ours compiles")
}

/// Digits in groups, with one or two separators between them.
static CARD: LazyLock<Regex> = LazyLock::new(|| {
    const GAP: &str = r"(?:[ \u{a0}./_+-]|%20|\u{2010}|\u{2011}|\u{2013}){1,2}";
    compiled(&format!(
        r"[0-9]{{13,19}}|[0-9]{{4}}{GAP}[0-9]{{4}}{GAP}[0-9]{{4}}{GAP}[0-9]{{1,4}}(?:{GAP}[0-9]{{1,3}})?|[0-9]{{4}}{GAP}[0-9]{{6}}{GAP}[0-9]{{4,5}}"
    ))
});

fn cards(text: &str, solid: bool, found: &mut Vec<(Range<usize>, Category)>) {
    let mut from = 0;
    while let Some(m) = CARD.find_at(text, from) {
        let digits: Vec<u8> = m.as_str().bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect();
        // `%20` brings two digits of its own, in each gap.
        let digits = if m.as_str().contains('%') { without_escapes(m.as_str()) } else { digits };
        let is_solid = m.as_str().bytes().all(|b| b.is_ascii_digit());
        let stands_alone = stands_alone(text, m.range());
        if stands_alone && (solid || !is_solid) && is_card(&digits) {
            found.push((m.range(), Category::CardNumber));
        }
        // What follows a number that was no card is looked at from behind it: `solid` runs are taken whole.
        from = if stands_alone || is_solid { m.end() } else { m.start() + 1 };
        while !text.is_char_boundary(from) {
            from += 1;
        }
    }
}

fn without_escapes(text: &str) -> Vec<u8> {
    text.replace("%20", "").bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect()
}

/// Whether what is found is not part of something longer: a letter or a digit right beside it, or behind one separator, as in
/// a UUID or a number with more groups.
fn stands_alone(text: &str, range: Range<usize>) -> bool {
    let is_part = |c: char| c.is_alphanumeric();
    let joins = |c: char| matches!(c, '-' | '_' | '.' | '+');
    let mut before = text.get(..range.start).unwrap_or_default().chars().rev();
    let mut after = text.get(range.end..).unwrap_or_default().chars();
    let is_end = |chars: &mut dyn Iterator<Item = char>| match chars.next() {
        Some(c) if is_part(c) => false,
        Some(c) if joins(c) => !chars.next().is_some_and(is_part),
        _ => true,
    };
    is_end(&mut before) && is_end(&mut after)
}

/// A number some issuer may have given out: its first digits, its length, its check digit.
pub(super) fn is_card(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0_u32, |number, d| number * 10 + u32::from(*d));
    let (two, three, four, six) = (prefix(2), prefix(3), prefix(4), prefix(6));
    let lengths: &[usize] = match (two, three, four, six) {
        (40..=49, ..) => &[13, 16, 19],
        (51..=55, ..) | (_, _, 2200..=2204 | 2221..=2720, _) => &[16],
        (34 | 37, ..) => &[15],
        (36 | 38 | 39, ..) | (_, 300..=305 | 309, ..) => &[14, 16, 17, 18, 19],
        (62 | 65, ..) | (_, 644..=649, ..) | (_, _, 6011 | 3528..=3589, _) => &[16, 17, 18, 19],
        (_, _, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763, _) => &[13, 14, 15, 16, 17, 18, 19],
        _ => &[],
    };
    lengths.contains(&digits.len()) && luhn(digits) && digits.iter().any(|d| Some(d) != digits.last())
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, _) => u32::from(*digit),
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

static IBAN: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"));

/// Lengths by country, as registered.
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 \
    EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 \
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 \
    NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TN24 \
    TR26 UA29 VA22 XK20";

fn ibans(text: &str, found: &mut Vec<(Range<usize>, Category)>) {
    for m in IBAN.find_iter(text) {
        if let Some(length) = iban_length(m.as_str()) {
            found.push((m.start()..m.start() + length, Category::Iban));
        }
    }
}

/// Bytes of the account number at the start of the text; none when its check digits are wrong.
fn iban_length(text: &str) -> Option<usize> {
    let country = text.get(..2)?;
    let length = IBAN_LENGTHS.split(' ').find_map(|known| known.strip_prefix(country))?;
    let length: usize = length.parse().ok()?;
    let mut ends = text.char_indices().filter(|(_, c)| *c != ' ').map(|(at, _)| at + 1);
    let end = ends.nth(length - 1)?;
    let number: Vec<u8> = text.get(..end)?.bytes().filter(|b| *b != b' ').collect();
    let rotated = number.iter().cycle().skip(4).take(number.len());
    let rest = rotated.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    // More of the same word behind it: it was something longer.
    let is_whole = !text.get(end..)?.starts_with(|c: char| c.is_ascii_alphanumeric());
    (rest == 1 && is_whole).then_some(end)
}

/// Numbers that say by their shape what they are: social security (US, UK), tax (Italy).
static NATIONAL_ID: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
        // Without its spaces it looks like any article number.
        r"|\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] [0-9]{2} [0-9]{2} [0-9]{2} [A-D]\b",
        r"|\b[A-Z]{6}[0-9]{2}[ABCDEHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]\b",
    ))
});

fn national_ids(text: &str, found: &mut Vec<(Range<usize>, Category)>) {
    let real = |m: &regex::Match<'_>| {
        let text_of = m.as_str();
        // No number was ever given out in these ranges.
        let is_made_up = text_of.contains('-')
            && (["000", "666", "9"].iter().any(|start| text_of.starts_with(start))
                || text_of.get(4..6) == Some("00")
                || text_of.ends_with("0000"));
        !is_made_up && stands_alone(text, m.range())
    };
    let all = NATIONAL_ID.find_iter(text).filter(real);
    found.extend(all.map(|m| (m.range(), Category::NationalId)));
}
