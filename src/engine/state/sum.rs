//! Exact decimal sums: any order of the same numbers gives the same digits (decision R6).

use bigdecimal::num_bigint::{BigInt, BigUint, Sign};
use serde::{Deserialize, Serialize};

use crate::domain::Number;

/// Significant digits of an average.
const AVERAGE_DIGITS: u32 = 12;

/// Digits that identify an `f64`.
const F64_DIGITS: u32 = 17;

/// An exact sum, `mantissa × 10^exponent`. Equal sums have equal fields: the mantissa has no trailing zero, and
/// it is `Big` only when it does not fit into 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Sum {
    mantissa: Mantissa,
    exponent: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Mantissa {
    Small(i128),
    /// Two's complement, smallest byte first.
    Big(Vec<u8>),
}

impl Default for Mantissa {
    fn default() -> Self {
        Self::Small(0)
    }
}

impl From<Number> for Sum {
    fn from(number: Number) -> Self {
        Self { mantissa: Mantissa::Small(number.mantissa()), exponent: number.exponent() }
    }
}

impl Sum {
    /// Adds another sum.
    pub(super) fn add(&mut self, other: &Self) {
        if let Some(sum) = self.add_small(other) {
            *self = sum;
            return;
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |sum: &Self| sum.mantissa.to_big() * power_of_ten(sum.exponent.abs_diff(exponent));
        *self = Self::from_big(aligned(self) + aligned(other), exponent);
    }

    /// The fast path, for mantissas of 128 bits.
    fn add_small(&self, other: &Self) -> Option<Self> {
        let (Mantissa::Small(a), Mantissa::Small(b)) = (&self.mantissa, &other.mantissa) else { return None };
        let exponent = self.exponent.min(other.exponent);
        let aligned =
            |mantissa: i128, from: i32| mantissa.checked_mul(10_i128.checked_pow(from.abs_diff(exponent))?);
        let (mut mantissa, mut exponent) =
            (aligned(*a, self.exponent)?.checked_add(aligned(*b, other.exponent)?)?, exponent);
        if mantissa == 0 {
            return Some(Self::default());
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        Some(Self { mantissa: Mantissa::Small(mantissa), exponent })
    }

    fn from_big(mut mantissa: BigInt, mut exponent: i32) -> Self {
        if mantissa.sign() == Sign::NoSign {
            return Self::default();
        }
        let ten = BigInt::from(10);
        while (&mantissa % &ten).sign() == Sign::NoSign {
            mantissa /= &ten;
            exponent += 1;
        }
        let mantissa = i128::try_from(&mantissa)
            .map_or_else(|_| Mantissa::Big(mantissa.to_signed_bytes_le()), Mantissa::Small);
        Self { mantissa, exponent }
    }

    /// The sum as a number, and whether it had too many digits to be exact.
    pub(super) fn number(&self) -> (Number, bool) {
        if let Mantissa::Small(mantissa) = self.mantissa
            && let Some(number) = Number::from_parts(mantissa, self.exponent)
        {
            return (number, false);
        }
        let mantissa = self.mantissa.to_big();
        let nearest = Number::parse_rounding(&format!("{mantissa}e{}", self.exponent));
        let number = nearest.map_or_else(|| quotient(&mantissa, self.exponent, 1, F64_DIGITS), |(n, _)| n);
        (number, true)
    }

    /// The sum divided by `count`, rounded half-even to 12 significant digits.
    pub(super) fn average(&self, count: u64) -> Number {
        quotient(&self.mantissa.to_big(), self.exponent, count.max(1), AVERAGE_DIGITS)
    }
}

impl Mantissa {
    fn to_big(&self) -> BigInt {
        match self {
            Self::Small(mantissa) => BigInt::from(*mantissa),
            Self::Big(bytes) => BigInt::from_signed_bytes_le(bytes),
        }
    }
}

fn power_of_ten(power: u32) -> BigInt {
    BigInt::from(10).pow(power)
}

fn digits(number: &BigUint) -> u32 {
    number.to_string().len() as u32
}

/// `mantissa × 10^exponent ÷ divisor`, rounded half-even to `keep` significant digits.
fn quotient(mantissa: &BigInt, exponent: i32, divisor: u64, keep: u32) -> Number {
    let (sign, dividend) = (mantissa.sign(), mantissa.magnitude());
    let divisor = BigUint::from(divisor);
    // Enough digits that the quotient has at least one more than is kept.
    let shift = (keep + 1 + digits(&divisor)).saturating_sub(digits(dividend));
    let dividend = dividend * BigUint::from(10_u8).pow(shift);
    let quotient = &dividend / &divisor;
    let inexact = &quotient * &divisor != dividend;
    let dropped = digits(&quotient).saturating_sub(keep);
    let unit = BigUint::from(10_u8).pow(dropped);
    let kept = &quotient / &unit;
    let twice_rest = (&quotient - &kept * &unit) * 2_u8;
    let odd = kept.bit(0);
    let up = twice_rest > unit || (twice_rest == unit && (inexact || odd));
    let kept = kept + BigUint::from(u8::from(up));
    let kept = i128::try_from(kept).unwrap_or_default();
    let kept = if sign == Sign::Minus { -kept } else { kept };
    Number::from_parts(kept, exponent - shift as i32 + dropped as i32).unwrap_or(Number::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(texts: &[&str]) -> Sum {
        let mut sum = Sum::default();
        for text in texts {
            sum.add(&Number::parse(text).expect("number").into());
        }
        sum
    }

    #[test]
    fn adds_digits_and_not_binary_fractions() {
        assert_eq!(sum(&["0.1", "0.2"]).number(), (Number::parse("0.3").expect("number"), false));
        assert_eq!(sum(&["1e300", "1", "-1e300"]).number().0.to_string(), "1");
        assert_eq!(sum(&["1e300", "1"]).number().0.to_string(), "1e300");
        assert!(sum(&["1e300", "1"]).number().1, "flagged");
        assert_eq!(sum(&["1e308", "9e308", "1e308"]).number().0.to_string(), "1.1e309");
        assert_eq!(sum(&["5", "-5"]), Sum::default());
    }

    #[test]
    fn averages_round_half_even_to_twelve_digits() {
        for (texts, count, expected) in [
            (&["10"][..], 4, "2.5"),
            (&["10"], 3, "3.33333333333"),
            (&["20"], 3, "6.66666666667"),
            (&["-20"], 3, "-6.66666666667"),
            (&["1000000000005"], 10, "100000000000"),
            (&["1000000000015"], 10, "100000000002"),
            (&["10000000000050000001"], 1, "10000000000100000000"),
            (&["999999999999.9"], 1, "1000000000000"),
            (&["0"], 7, "0"),
        ] {
            assert_eq!(sum(texts).average(count).to_string(), expected, "{texts:?} / {count}");
        }
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(
            numbers in prop::collection::vec(("-?[0-9]{1,28}", -300_i32..280), 1..12),
            split in 0_usize..12,
        ) {
            let sums: Vec<Sum> = numbers
                .iter()
                .map(|(digits, exponent)| Number::parse(&format!("{digits}e{exponent}")).unwrap_or_default().into())
                .collect();
            let total = |sums: &[Sum]| sums.iter().fold(Sum::default(), |mut total, sum| { total.add(sum); total });
            let forward = total(&sums);
            let backward = total(&sums.iter().rev().cloned().collect::<Vec<_>>());
            let (left, right) = sums.split_at(split.min(sums.len()));
            let mut grouped = total(left);
            grouped.add(&total(right));
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(&forward, &grouped);
        }
    }
}
