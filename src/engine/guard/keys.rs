//! Sensitive keys: fields whose name says what is in them, however it is written.

use crate::domain::sensitive::Category;

/// Words that mean a category as a whole key or at its end: `billing_card_number`, `customerPassword`.
const AT_THE_END: &[(&str, Category)] = &[
    ("card number", Category::CardNumber),
    ("cardnumber", Category::CardNumber),
    ("cc number", Category::CardNumber),
    ("ccnumber", Category::CardNumber),
    ("credit card", Category::CardNumber),
    ("creditcard", Category::CardNumber),
    ("credit card no", Category::CardNumber),
    ("debit card", Category::CardNumber),
    ("card pan", Category::CardNumber),
    ("iban", Category::Iban),
    ("bank account number", Category::Iban),
    ("ssn", Category::NationalId),
    ("social security", Category::NationalId),
    ("social security number", Category::NationalId),
    ("national id", Category::NationalId),
    ("national insurance number", Category::NationalId),
    ("passport", Category::NationalId),
    ("passport no", Category::NationalId),
    ("passport number", Category::NationalId),
    ("passport id", Category::NationalId),
    ("driver license", Category::NationalId),
    ("drivers license", Category::NationalId),
    ("driver license number", Category::NationalId),
    ("drivers license number", Category::NationalId),
    ("driving licence", Category::NationalId),
    ("tax id", Category::NationalId),
    ("taxpayer id", Category::NationalId),
    ("tax identification number", Category::NationalId),
    ("codice fiscale", Category::NationalId),
    ("password", Category::Secret),
    ("passwd", Category::Secret),
    ("passphrase", Category::Secret),
    ("passcode", Category::Secret),
    ("pwd", Category::Secret),
    ("secret", Category::Secret),
    ("secret key", Category::Secret),
    ("private key", Category::Secret),
    ("api key", Category::Secret),
    ("apikey", Category::Secret),
    ("access token", Category::Secret),
    ("refresh token", Category::Secret),
    ("auth token", Category::Secret),
    ("bearer token", Category::Secret),
    ("session token", Category::Secret),
    ("cvv", Category::Secret),
    ("cvv2", Category::Secret),
    ("cvc", Category::Secret),
    ("cvc2", Category::Secret),
    ("card security code", Category::Secret),
    ("card pin", Category::Secret),
    ("medical history", Category::Health),
    ("medical record", Category::Health),
    ("medical record number", Category::Health),
    ("medical condition", Category::Health),
    ("medical conditions", Category::Health),
    ("health condition", Category::Health),
    ("health conditions", Category::Health),
    ("health status", Category::Health),
    ("mental health", Category::Health),
    ("diagnosis", Category::Health),
    ("diagnoses", Category::Health),
    ("medication", Category::Health),
    ("medications", Category::Health),
    ("prescription", Category::Health),
    ("prescriptions", Category::Health),
    ("blood type", Category::Health),
    ("disability", Category::Health),
    ("disabilities", Category::Health),
    ("disability status", Category::Health),
    ("hiv status", Category::Health),
    ("pregnancy", Category::Health),
    ("ethnicity", Category::SpecialCategory),
    ("ethnic origin", Category::SpecialCategory),
    ("racial origin", Category::SpecialCategory),
    ("religion", Category::SpecialCategory),
    ("religious belief", Category::SpecialCategory),
    ("religious beliefs", Category::SpecialCategory),
    ("religious affiliation", Category::SpecialCategory),
    ("political opinion", Category::SpecialCategory),
    ("political opinions", Category::SpecialCategory),
    ("political party", Category::SpecialCategory),
    ("political affiliation", Category::SpecialCategory),
    ("trade union", Category::SpecialCategory),
    ("trade union membership", Category::SpecialCategory),
    ("union membership", Category::SpecialCategory),
    ("sexual orientation", Category::SpecialCategory),
    ("sexual preference", Category::SpecialCategory),
    ("sex life", Category::SpecialCategory),
    ("genetic data", Category::SpecialCategory),
    ("biometric data", Category::SpecialCategory),
    ("criminal record", Category::SpecialCategory),
    ("criminal convictions", Category::SpecialCategory),
    ("immigration status", Category::SpecialCategory),
    ("veteran", Category::SpecialCategory),
    ("veteran status", Category::SpecialCategory),
];

/// Words that mean a category only as a whole key: at the end of another they mean something harmless.
const ALONE: &[(&str, Category)] = &[
    ("pan", Category::CardNumber),
    ("visa", Category::CardNumber),
    ("token", Category::Secret),
    ("authorization", Category::Secret),
    ("race", Category::SpecialCategory),
];

/// Last words of keys whose long numbers are no cards, whatever their check digits say.
const OF_NUMBERS: &[&str] = &[
    "id",
    "ids",
    "sku",
    "ean",
    "gtin",
    "upc",
    "barcode",
    "isbn",
    "imei",
    "iccid",
    "udid",
    "uuid",
    "guid",
    "hash",
    "fingerprint",
    "phone",
    "mobile",
    "telephone",
    "fax",
    "timestamp",
    "time",
    "ts",
    "at",
    "reference",
    "ref",
    "tracking",
    "order",
    "invoice",
    "serial",
    "session",
    "version",
    "key",
];

/// The same before `number`, `no`, `nr` and `code`.
const NUMBERED: &[&str] = &[
    "order",
    "invoice",
    "tracking",
    "serial",
    "phone",
    "customer",
    "reference",
    "ticket",
    "booking",
    "shipment",
    "parcel",
    "transaction",
    "item",
    "product",
    "batch",
    "lot",
    "flight",
    "member",
    "membership",
    "loyalty",
    "gift",
    "coupon",
];

/// What a key says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meaning {
    /// It is sensitive.
    pub category: Option<Category>,
    /// Its long numbers are ids and the like.
    pub is_number: bool,
    /// It is sensitive unless it belongs to a device: the token of a push service.
    pub unless_device: bool,
}

/// What this key says.
pub(super) fn meaning(key: &str) -> Meaning {
    let words = words(key);
    let alone = ALONE.iter().find(|(name, _)| *name == words);
    let ends = |name: &str| {
        words.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(' '))
    };
    let at_the_end = || AT_THE_END.iter().find(|(name, _)| ends(name));
    let category = alone.or_else(at_the_end).map(|(_, category)| *category);
    let mut last = words.rsplit(' ');
    let (one, two) = (last.next().unwrap_or_default(), last.next().unwrap_or_default());
    let numbered = matches!(one, "number" | "no" | "nr" | "code") && NUMBERED.contains(&two);
    Meaning {
        category,
        is_number: category.is_none() && (OF_NUMBERS.contains(&one) || numbered),
        unless_device: words == "token",
    }
}

/// The words of a key, in small letters, with one space between them: camel case, snake case and the like are one.
fn words(key: &str) -> String {
    let mut words = String::with_capacity(key.len() + 4);
    let mut before = ' ';
    for c in key.chars() {
        if c.is_alphanumeric() {
            let begins = c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit());
            if begins && !words.ends_with(' ') && !words.is_empty() {
                words.push(' ');
            }
            words.extend(c.to_lowercase());
        } else if !words.ends_with(' ') && !words.is_empty() {
            words.push(' ');
        }
        before = c;
    }
    words.truncate(words.trim_end().len());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_however_they_are_written() {
        for (key, category) in [
            ("password", Some(Category::Secret)),
            ("userPassword", Some(Category::Secret)),
            ("new-password", Some(Category::Secret)),
            ("CVV2", Some(Category::Secret)),
            ("token", Some(Category::Secret)),
            ("push_token", None),
            ("csrfToken", None),
            ("card_number", Some(Category::CardNumber)),
            ("billing.cardNumber", Some(Category::CardNumber)),
            ("cardNumberLength", None),
            ("SSN", Some(Category::NationalId)),
            ("passportNumber", Some(Category::NationalId)),
            ("compass", None),
            ("bloodType", Some(Category::Health)),
            ("race", Some(Category::SpecialCategory)),
            ("horse_race", None),
            ("sexualOrientation", Some(Category::SpecialCategory)),
            ("health", None),
            ("", None),
        ] {
            assert_eq!(meaning(key).category, category, "{key}");
        }
        for (key, is_number) in [
            ("orderId", true),
            ("order_number", true),
            ("userID", true),
            ("number", false),
            ("account_number", false),
            ("note", false),
        ] {
            assert_eq!(meaning(key).is_number, is_number, "{key}");
        }
    }
}
