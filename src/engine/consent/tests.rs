//! What consent is read of, and its law: of any history, in any order and over any merges, the newest word on each category
//! counts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::{SourceNo, Timestamp};

fn write(at: i64, message_id: &str) -> Write {
    Write {
        at: Timestamp::from_millis(at),
        message_id: message_id.to_owned(),
        source: SourceNo(1),
        public: false,
    }
}

#[test]
fn only_booleans_under_names_say_something() {
    assert_eq!(stated(""), None);
    assert_eq!(stated(r#"{"page":{"title":"consent"}}"#), None);
    assert_eq!(stated(r#"{"page":{"consent":{"categoryPreferences":{"a":true}}}}"#), None);
    assert_eq!(stated(r#"{"consent":{}}"#), None);
    assert_eq!(stated(r#"{"consent":{"categoryPreferences":{}}}"#), Some(Stated::default()));
    let context =
        r#"{"consent":{"categoryPreferences":{"Ads":true,"B":"true","":true,"C":false,"C":true,"D":1}}}"#;
    let preferences = vec![("Ads".to_owned(), true), ("C".to_owned(), true)];
    assert_eq!(stated(context), Some(Stated { preferences, left_out: 3 }));
    let many: Vec<String> = (0..STATED_MAX + 7).map(|no| format!("\"c{no}\":true")).collect();
    let context = format!(r#"{{"consent":{{"categoryPreferences":{{{}}}}}}}"#, many.join(","));
    let read = stated(&context).unwrap();
    assert_eq!((read.preferences.len(), read.left_out), (STATED_MAX, 7));
}

#[test]
fn what_is_not_said_is_no_consent() {
    let mut traits = Traits::default();
    let all = ["Ads".to_owned(), "Stats".to_owned()];
    assert_eq!(missing(&traits, &all), Some("Ads"));
    assert_eq!(missing(&traits, &[]), None);
    let said = stated(r#"{"consent":{"categoryPreferences":{"Ads":true}}}"#).unwrap();
    assert_eq!(note(&mut traits, &write(1, "m"), &said), (vec!["$consent:Ads".to_owned()], 0));
    assert_eq!(missing(&traits, &all), Some("Stats"));
    assert!(!is_given(&traits, "ads"), "categories have their case");
    let held: Vec<_> = preferences(&traits).map(|(category, given, by)| (category, given, by.at)).collect();
    assert_eq!(held, [("Ads", true, Timestamp::from_millis(1))]);
}

/// An event of one of four people, or a merge of two of them.
#[derive(Debug, Clone)]
enum Step {
    Says { who: usize, at: i64, id: u8, category: u8, given: bool },
    Becomes { who: usize, of: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..4, 0_i64..6, 0_u8..6, 0_u8..3, any::<bool>())
            .prop_map(|(who, at, id, category, given)| Step::Says { who, at, id, category, given }),
        1 => (0_usize..4, 0_usize..4).prop_map(|(who, of)| Step::Becomes { who, of }),
    ]
}

/// The oracle's word on a category: when and by which message it was said, and what.
type Word = ((i64, String), bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]
    #[test]
    fn the_newest_word_on_each_category_counts(steps in proptest::collection::vec(step(), 0..40)) {
        let mut people: Vec<Traits> = vec![Traits::default(); 4];
        let mut oracle: Vec<BTreeMap<u8, Word>> = vec![BTreeMap::new(); 4];
        let mut owner = [0, 1, 2, 3];
        for step in steps {
            match step {
                Step::Says { who, at, id, category, given } => {
                    let who = owner[who];
                    // One message id means one message, so its content follows from it.
                    let id = format!("{id}{category}{given}{at}");
                    let context = format!(r#"{{"consent":{{"categoryPreferences":{{"c{category}":{given}}}}}}}"#);
                    note(&mut people[who], &write(at, &id), &stated(&context).unwrap());
                    let word = ((at, id), given);
                    let known = oracle[who].entry(category).or_insert_with(|| word.clone());
                    if known.0 < word.0 {
                        *known = word;
                    }
                }
                Step::Becomes { who, of } => {
                    let (who, of) = (owner[who], owner[of]);
                    if who == of {
                        continue;
                    }
                    let other = std::mem::take(&mut people[of]);
                    people[who].merge(&other);
                    for (category, word) in std::mem::take(&mut oracle[of]) {
                        let known = oracle[who].entry(category).or_insert_with(|| word.clone());
                        if known.0 < word.0 {
                            *known = word;
                        }
                    }
                    owner.iter_mut().filter(|no| **no == of).for_each(|no| *no = who);
                }
            }
            for (traits, words) in people.iter().zip(&oracle) {
                for category in 0..3 {
                    let right = words.get(&category).is_some_and(|(_, given)| *given);
                    prop_assert_eq!(is_given(traits, &format!("c{category}")), right);
                }
                let held: BTreeMap<String, (i64, String)> = preferences(traits)
                    .map(|(category, _, by)| (category.to_owned(), (by.at.millis(), by.message_id.clone())))
                    .collect();
                let right: BTreeMap<String, (i64, String)> =
                    words.iter().map(|(category, (by, _))| (format!("c{category}"), by.clone())).collect();
                prop_assert_eq!(held, right, "the evidence");
            }
        }
    }
}
