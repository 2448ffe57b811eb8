//! Mappings for well-known tools, from `config/destinations/*.toml`, which are compiled in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::settings::{Call, Rule};

macro_rules! embedded {
    ($($key:literal),* $(,)?) => {
        [$(($key, include_str!(concat!("../../../../config/destinations/", $key, ".toml")))),*]
    };
}

const FILES: [(&str, &str); 11] = embedded![
    "amplitude",
    "braze",
    "customerio",
    "growthbook",
    "hubspot",
    "intercom",
    "iterable",
    "launchdarkly",
    "mailchimp",
    "mixpanel",
    "slack",
];

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let read = |(key, text): &(&'static str, &'static str)| {
        // A test reads them all: one that cannot be read never leaves the build.
        toml::from_str::<Preset>(text).ok().map(|preset| Preset { key, ..preset })
    };
    FILES.iter().filter_map(read).collect()
});

/// A mapping for a tool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What settings call it: the name of its file.
    #[serde(skip)]
    pub key: &'static str,
    /// The tool's name.
    pub name: String,
    /// Where the tool documents what is called.
    pub docs: String,
    /// Requests in a second that the tool takes (personas.md 7.6, or as documented).
    pub rate_per_second: u32,
    /// Changes of one request.
    pub batch_max: usize,
    /// Settings by name.
    #[serde(default)]
    pub options: BTreeMap<String, PresetOption>,
    /// Secret settings by name; all have to be given.
    #[serde(default)]
    pub secrets: BTreeMap<String, PresetSecret>,
    pub(super) calls: BTreeMap<String, Call>,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

impl Preset {
    /// The preset that settings name, where they name one.
    pub fn of(settings: &Map<String, Value>) -> Option<&'static Self> {
        find(settings.get("preset")?.as_str()?)
    }

    /// Changes in a second that the tool takes in requests of the usual length.
    pub fn changes_per_second(&self) -> u32 {
        let batch = u32::try_from(self.batch_max).unwrap_or(u32::MAX);
        self.rate_per_second.saturating_mul(batch)
    }
}

/// A setting of a preset.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetOption {
    /// What it is.
    pub about: String,
    /// Its value where none is given; it has to be given where there is none.
    pub default: Option<String>,
}

/// A secret setting of a preset.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetSecret {
    /// What it is, and where one gets it.
    pub about: String,
}

/// All presets, by key.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// The preset of that key.
pub(super) fn find(key: &str) -> Option<&'static Preset> {
    presets().iter().find(|preset| preset.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read() {
        for (key, text) in FILES {
            let read: Result<Preset, _> = toml::from_str(text);
            assert!(read.is_ok(), "{key}: {:?}", read.err());
        }
        assert_eq!(presets().len(), FILES.len());
        let settings = Map::from_iter([("preset".to_owned(), Value::from("hubspot"))]);
        assert_eq!(Preset::of(&settings).map(Preset::changes_per_second), Some(5));
    }
}
