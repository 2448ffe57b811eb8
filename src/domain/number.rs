//! Exact decimal numbers: the digits a client sent, not the nearest binary fraction (decision R6).

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Significant digits that are kept exactly. A longer literal becomes the nearest `f64`.
pub const SIGNIFICANT_DIGITS: u32 = 28;

/// Powers of ten beyond which a literal is no finite number to us; ingest refuses them too.
const MAX_MAGNITUDE: i32 = 308;

/// Exponents up to this size are written out in full, larger ones in scientific notation.
const PLAIN_ZEROS: i32 = 40;

/// `mantissa × 10^exponent`, with no trailing zero in the mantissa: equal numbers have equal fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Number {
    mantissa: i128,
    exponent: i16,
}

impl Number {
    /// 0.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };

    /// Reads a text that is wholly a finite decimal number (`-1.50`, `1e3`, `.5`); `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_rounding(text).map(|(number, _)| number)
    }

    /// As [`Number::parse`], and says whether the literal had more digits than are kept.
    pub fn parse_rounding(text: &str) -> Option<(Self, bool)> {
        let digits = Digits::scan(text)?;
        if digits.mantissa == 0 && !digits.overflowed {
            return Some((Self::ZERO, false));
        }
        if digits.overflowed || digits.count > SIGNIFICANT_DIGITS {
            // The shortest decimal that reads back as the same `f64`: at most 17 digits.
            let nearest: f64 = text.parse().ok().filter(|f: &f64| f.is_finite())?;
            let shortest = Digits::scan(&format!("{nearest:e}"))?;
            return Some((shortest.number()?, true));
        }
        Some((digits.number()?, false))
    }

    /// `mantissa × 10^exponent`; `None` when it has more digits or a larger power than a number may have.
    pub fn from_parts(mut mantissa: i128, mut exponent: i32) -> Option<Self> {
        if mantissa == 0 {
            return Some(Self::ZERO);
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        (decimal_digits(mantissa) <= SIGNIFICANT_DIGITS)
            .then_some(Self { mantissa, exponent: i16::try_from(exponent).ok()? })
    }

    /// The digits, without trailing zeros.
    pub const fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// The power of ten the mantissa is multiplied with.
    pub const fn exponent(self) -> i32 {
        self.exponent as i32
    }

    /// Power of ten of the first digit.
    fn magnitude(self) -> i32 {
        decimal_digits(self.mantissa) as i32 + self.exponent()
    }
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::from_parts(i128::from(n), 0).unwrap_or(Self::ZERO)
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Self {
        Self::from_parts(i128::from(n), 0).unwrap_or(Self::ZERO)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = self.mantissa.signum().cmp(&other.mantissa.signum());
        if sign.is_ne() || self.mantissa == 0 {
            return sign;
        }
        let larger = self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // The same magnitude: aligned, both have at most 28 digits, so neither product can overflow.
            let shift = self.exponent() - other.exponent();
            let scale = 10_u128.pow(shift.unsigned_abs());
            let (a, b) = (self.mantissa.unsigned_abs(), other.mantissa.unsigned_abs());
            if shift >= 0 { (a * scale).cmp(&b) } else { a.cmp(&(b * scale)) }
        });
        if self.mantissa < 0 { larger.reverse() } else { larger }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Number {
    /// The canonical text, which is also a JSON number: no exponent unless the number is very large or small.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = self.mantissa.unsigned_abs().to_string();
        let exponent = self.exponent();
        let point = digits.len() as i32 + exponent;
        if !(-PLAIN_ZEROS..=PLAIN_ZEROS).contains(&exponent) {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            return write!(f, "{sign}{first}{dot}{rest}e{}", point - 1);
        }
        if exponent >= 0 {
            return write!(f, "{sign}{digits}{:0>1$}", "", exponent as usize);
        }
        if point <= 0 {
            return write!(f, "{sign}0.{:0>1$}{digits}", "", point.unsigned_abs() as usize);
        }
        let (whole, fraction) = digits.split_at(point as usize);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// Number of decimal digits; 0 has none.
fn decimal_digits(mantissa: i128) -> u32 {
    mantissa.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1)
}

/// A literal taken apart: leading and trailing zeros are already gone from the mantissa.
struct Digits {
    negative: bool,
    mantissa: u128,
    count: u32,
    exponent: i32,
    overflowed: bool,
}

impl Digits {
    fn scan(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (plain, power) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], parse_exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match plain.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None if plain.is_empty() => return None,
            None => (plain, ""),
        };
        let mut digits = Self { negative, mantissa: 0, count: 0, exponent: power, overflowed: false };
        let mut zeros = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            match byte {
                b'0' if digits.mantissa == 0 => {}
                b'0' => zeros += 1,
                b'1'..=b'9' => {
                    digits.push(zeros, byte - b'0');
                    zeros = 0;
                }
                _ => return None,
            }
        }
        let fraction_digits = i32::try_from(fraction.len()).ok()?;
        digits.exponent = digits.exponent.checked_sub(fraction_digits)?.checked_add(zeros as i32)?;
        Some(digits)
    }

    /// Appends `zeros` zeros and one more digit.
    fn push(&mut self, zeros: u32, digit: u8) {
        let count = self.count.saturating_add(zeros).saturating_add(1);
        if self.overflowed || count > 38 {
            self.overflowed = true;
            return;
        }
        self.mantissa = self.mantissa * 10_u128.pow(zeros + 1) + u128::from(digit);
        self.count = count;
    }

    fn number(&self) -> Option<Number> {
        let magnitude = self.count as i32 + self.exponent - 1;
        if magnitude.abs() > MAX_MAGNITUDE {
            return None;
        }
        let mantissa = i128::try_from(self.mantissa).ok()?;
        Some(Number {
            mantissa: if self.negative { -mantissa } else { mantissa },
            exponent: i16::try_from(self.exponent).ok()?,
        })
    }
}

fn parse_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Number;

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn reads_only_whole_finite_decimals() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("10", "10"),
            ("1.50", "1.5"),
            ("007", "7"),
            (".5", "0.5"),
            ("-0.001", "-0.001"),
            ("1e3", "1000"),
            ("12e-1", "1.2"),
            ("+3", "3"),
            ("1e300", "1e300"),
            ("1.25e-200", "1.25e-200"),
            ("1234567890123456789012345678", "1234567890123456789012345678"),
            ("10000000000000000000000000000000000000000", "10000000000000000000000000000000000000000"),
        ] {
            assert_eq!(n(text).to_string(), expected, "{text}");
        }
        for text in
            ["", " 1", "1 ", "1.", "-", ".", "1e", "0x10", "1_000", "NaN", "inf", "1e999", "1,5", "--1", "½"]
        {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn past_28_digits_it_is_the_nearest_f64() {
        let (number, rounded) =
            Number::parse_rounding("0.12345678901234567890123456789012345").expect("number");
        assert!(rounded);
        assert_eq!(number.to_string(), "0.12345678901234568");
        assert_eq!(Number::parse_rounding("0.1"), Some((n("0.1"), false)));
    }

    #[test]
    fn orders_by_value() {
        let sorted =
            ["-1e300", "-10", "-9.5", "-0.1", "0", "1e-300", "0.1", "0.2", "9", "9.01", "10", "1e300"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(n(a).cmp(&n(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn text_is_canonical(mantissa in -1_000_000_i64..1_000_000, exponent in -60_i32..60) {
            let number = n(&format!("{mantissa}e{exponent}"));
            prop_assert_eq!(n(&number.to_string()), number);
        }

        #[test]
        fn orders_as_integers_do(a: i64, b: i64) {
            prop_assert_eq!(Number::from(a).cmp(&Number::from(b)), a.cmp(&b));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,60}") {
            if let Some(number) = Number::parse(&text) {
                prop_assert_eq!(n(&number.to_string()), number);
            }
        }
    }
}
