//! Where values come from, and how they are laid over each other.

use std::{collections::BTreeMap, env, path::PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Num, Value},
};

use super::{DEFAULTS, Problem, reader::nearest};

/// Short names people know, beside the systematic ones.
const SHORT_NAMES: [(&str, &str); 4] = [
    ("DATABASE_URL", "database.url"),
    ("PERSONAS_LISTEN", "server.listen"),
    ("PERSONAS_DATA_DIR", "embedded.data_dir"),
    ("PERSONAS_POSTGRES_BIN", "embedded.postgres_bin"),
];
const PREFIX: &str = "PERSONAS_";
const FILE_VARIABLE: &str = "PERSONAS_CONFIG";
const FILE_DEFAULT: &str = "personas.toml";
/// Read by commands that talk to a running server, not by the configuration.
const OTHER_VARIABLES: [&str; 6] = [
    FILE_VARIABLE,
    "PERSONAS_URL",
    "PERSONAS_WRITE_KEY",
    "PERSONAS_TOKEN",
    "PERSONAS_SPACE",
    "PERSONAS_SOURCE",
];
/// Variables that are nobody's mistake: of our tests, and those Kubernetes sets for a service called `personas`.
const OTHER_PREFIXES: [&str; 3] = ["PERSONAS_TEST_", "PERSONAS_SERVICE_", "PERSONAS_PORT"];

/// What to read the configuration from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file that has to exist.
    pub file: Option<PathBuf>,
    /// Environment variables; those that have nothing to do with us are passed over.
    pub variables: BTreeMap<String, String>,
    /// Options set on the command line: `("server.listen", "0.0.0.0:80")`.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// This process' environment; the file is the one given, else `PERSONAS_CONFIG`, else `./personas.toml` if it is
    /// there.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        let variables: BTreeMap<String, String> = env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let named = || variables.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let usual = || Some(PathBuf::from(FILE_DEFAULT)).filter(|path| path.is_file());
        Self { file: file.or_else(named).or_else(usual), variables, flags }
    }

    /// Lays the sources over each other. What cannot even be laid is a problem.
    pub(super) fn merge(&self) -> (Figment, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        let defaults = options(&figment);
        if let Some(path) = &self.file {
            let file = Figment::from(Toml::file_exact(path));
            match file.find_value("") {
                Ok(_) => figment = figment.merge(file),
                Err(error) => problems.push(Problem {
                    path: "the file".to_owned(),
                    source: path.display().to_string(),
                    message: error.kind.to_string().trim_end().to_owned(),
                }),
            }
        }

        let mut names: BTreeMap<String, &str> =
            SHORT_NAMES.map(|(name, path)| (name.to_owned(), path)).into();
        names.extend(defaults.keys().map(|path| (variable(path), &**path)));
        // The short names come first, so that the systematic one wins should both be set.
        let (short, long): (Vec<_>, Vec<_>) =
            self.variables.iter().partition(|(name, _)| SHORT_NAMES.iter().any(|(short, _)| short == name));
        for (name, value) in short.into_iter().chain(long) {
            let Some(path) = names.get(name) else {
                problems.extend(unknown_variable(name, names.keys()));
                continue;
            };
            figment = figment.merge(One::new(path, value, defaults.get(*path), name.clone()));
        }
        for (path, value) in &self.flags {
            figment =
                figment.merge(One::new(path, value, defaults.get(*path), "the command line".to_owned()));
        }
        (figment, problems)
    }
}

/// The environment variable of an option: `PERSONAS_SERVER_LISTEN` for `server.listen`.
pub fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<Problem> {
    let is_ours = name.starts_with(PREFIX)
        && !OTHER_VARIABLES.contains(&name)
        && !OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_ours.then(|| Problem {
        path: name.to_owned(),
        source: "the environment".to_owned(),
        message: format!("there is no such variable{}", nearest(name, known.map(String::as_str))),
    })
}

/// Every option below the sections, `section.option`, with its value.
pub(super) fn options(figment: &Figment) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let sections = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
    for (section, value) in sections {
        // A value where a section should be is listed under the section's name.
        let Some(inner) = value.clone().into_dict() else {
            all.insert(section, value);
            continue;
        };
        all.extend(inner.into_iter().map(|(name, value)| (format!("{section}.{name}"), value)));
    }
    all
}

/// One option from a variable or flag.
struct One {
    section: String,
    option: String,
    value: Value,
    from: String,
}

impl One {
    /// Text becomes a number when the option is one; text that is none is left for the reader to complain about.
    fn new(path: &str, text: &str, default: Option<&Value>, from: String) -> Self {
        let (section, option) = path.split_once('.').unwrap_or(("", path));
        let number = match default {
            Some(Value::Num(..)) => text.trim().parse().ok().map(Num::I64),
            _ => None,
        };
        let value = number.map_or_else(|| Value::from(text), Value::from);
        Self { section: section.to_owned(), option: option.to_owned(), value, from }
    }
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.from.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let inner = Dict::from([(self.option.clone(), self.value.clone())]);
        Ok(Profile::Default.collect(Dict::from([(self.section.clone(), inner.into())])))
    }
}
