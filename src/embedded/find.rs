//! Finds the machine's Postgres binaries. Asks each `postgres --version` instead of guessing from its path.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::EmbeddedError;

/// Major versions this service is made for.
pub const SUPPORTED: RangeInclusive<u32> = 15..=18;

/// What to do when there is no Postgres here.
pub const INSTALL: &str = "\
install one:
  Debian, Ubuntu:  sudo apt-get install -y postgresql
  Fedora:          sudo dnf install -y postgresql-server
  macOS:           brew install postgresql@18
or name the folder of its binaries in PERSONAS_POSTGRES_BIN,
or use a Postgres that already runs: DATABASE_URL=postgres://user:password@host/database";

/// Where packages put `initdb` and `postgres`, besides PATH. `*` stands for part of one folder's name.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",          // Debian, Ubuntu, also with the pgdg packages
    "/usr/pgsql-*/bin",                   // Fedora and RHEL with the pgdg packages
    "/usr/lib/postgresql*/bin",           // openSUSE
    "/usr/libexec/postgresql*",           // Alpine
    "/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
    "/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin", // Homebrew on Linux
    "/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
    "/usr/local/pgsql/bin",               // built from source
    "/usr/local/bin",
    "/usr/bin",
];

/// A version as `postgres --version` tells it; orders by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// What decides whether a data folder can be opened.
    pub major: u32,
    /// What follows the first dot; 0 for development versions.
    pub minor: u32,
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    fn parse(line: &str) -> Option<Self> {
        let word = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next().and_then(Result::ok).unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A folder that holds both `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub dir: PathBuf,
    /// What its `postgres` says it is.
    pub version: Version,
}

impl Binaries {
    /// The binaries in `dir`, when both are there and `postgres --version` makes sense.
    fn in_folder(dir: &Path) -> Option<Self> {
        let postgres = dir.join("postgres");
        if !postgres.is_file() || !dir.join("initdb").is_file() {
            return None;
        }
        let answer = Command::new(&postgres)
            .arg("--version")
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let version = Version::parse(&String::from_utf8_lossy(&answer.stdout))?;
        Some(Self { dir: dir.to_owned(), version })
    }

    /// The path of one of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl fmt::Display for Binaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.version, self.dir.display())
    }
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Search {
    only: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Search {
    /// PATH first, then the folders packages use; or `bin` alone when it is given (`PERSONAS_POSTGRES_BIN`).
    pub fn usual(bin: Option<PathBuf>) -> Self {
        let mut folders = folders_in(env::var_os("PATH"));
        folders.extend(USUAL_FOLDERS.iter().flat_map(|pattern| expand(pattern)));
        Self { only: bin, folders }
    }

    /// Nowhere but these folders.
    pub fn within(folders: Vec<PathBuf>) -> Self {
        Self { only: None, folders }
    }

    /// Everything that is there, of any version: the newest first, in order of search within a version.
    pub fn all(&self) -> Vec<Binaries> {
        let mut found: Vec<Binaries> = Vec::new();
        for dir in self.only.as_ref().map_or(&self.folders[..], std::slice::from_ref) {
            // PATH and the usual folders overlap, partly through links.
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            if found.iter().all(|known| known.dir != dir) {
                found.extend(Binaries::in_folder(&dir));
            }
        }
        found.sort_by(|a, b| b.version.cmp(&a.version));
        found
    }

    /// The binaries to use: the newest supported ones, or exactly those of `major` when a cluster fixes it.
    pub(super) fn choose(&self, cluster: Option<(&Path, &str)>) -> Result<Binaries, EmbeddedError> {
        let mut all = self.all();
        let supported = |candidate: &Binaries| SUPPORTED.contains(&candidate.version.major);
        let fits = |candidate: &Binaries| {
            supported(candidate)
                && cluster.is_none_or(|(_, major)| candidate.version.major.to_string() == major)
        };
        if let Some(at) = all.iter().position(fits) {
            return Ok(all.swap_remove(at));
        }
        let found: Vec<String> = all.iter().map(ToString::to_string).collect();
        match (cluster, &self.only) {
            (Some((dir, data)), _) if all.iter().any(supported) => {
                Err(EmbeddedError::OtherMajor { dir: dir.to_owned(), data: data.to_owned(), found })
            }
            (_, Some(dir)) => {
                let reason = match found.first() {
                    Some(other) => format!("it holds Postgres {other}: 15 to 18 are supported"),
                    None => "it does not hold both `initdb` and `postgres`".to_owned(),
                };
                Err(EmbeddedError::BadBinFolder { dir: dir.clone(), reason })
            }
            _ => Err(EmbeddedError::NotFound { found }),
        }
    }
}

fn folders_in(path: Option<OsString>) -> Vec<PathBuf> {
    path.map(|path| env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()).unwrap_or_default()
}

/// The folders a pattern stands for; `*` may occur once, inside one component.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    names.map(|entry| PathBuf::from(format!("{}{after}", entry.path().display()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_versions_are_called() {
        for (line, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, 18))),
            ("postgres (PostgreSQL) 18.1", Some((18, 1))),
            ("postgres (PostgreSQL) 19devel", Some((19, 0))),
            ("no such thing", None),
        ] {
            assert_eq!(Version::parse(line).map(|v| (v.major, v.minor)), expected, "{line}");
        }
    }

    #[test]
    fn patterns_stand_for_folders_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pgsql-15", "pgsql-18", "other"] {
            fs::create_dir_all(dir.path().join(name).join("bin")).unwrap();
        }
        let mut found = expand(&format!("{}/pgsql-*/bin", dir.path().display()));
        found.sort();
        assert_eq!(found, [dir.path().join("pgsql-15/bin"), dir.path().join("pgsql-18/bin")]);
        assert!(expand("/no/such/place/*/bin").is_empty());
    }
}
