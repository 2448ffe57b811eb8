//! Whatever text a time is: reading it does not panic, and what was read is written so that it reads back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use personas::domain::Timestamp;

fuzz_target!(|text: &str| {
    if let Some(at) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at), "{text:?} was read as {at}");
    }
});
