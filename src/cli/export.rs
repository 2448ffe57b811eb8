//! `personas export`: writes everything there is of a person, or of a space, into a folder: one NDJSON file of each kind of
//! rows, and the manifest. What the manifest does not confirm is not kept: until it does, all of it is in a hidden folder beside
//! the one that is asked for, and as everything in it is about people, nobody else may read it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;

use super::client::Client;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where the server is
    #[arg(long, env = "PERSONAS_URL", default_value = "http://127.0.0.1:8080")]
    url: Url,
    /// An access token with the scopes `privacy` and `pii:read` [env: `PERSONAS_TOKEN`, else `PERSONAS_BOOTSTRAP_TOKEN`]
    #[arg(long)]
    token: Option<String>,
    /// The space
    #[arg(long, env = "PERSONAS_SPACE", default_value = "default")]
    space: String,
    /// Only this person or account, as type:value or `profile_id:prf_…`; else the whole space
    #[arg(long)]
    profile: Option<String>,
    /// `users` or `accounts`: which of them the profile is one of
    #[arg(long, default_value = "users")]
    collection: String,
    /// The folder; it must not be there yet
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

impl Export {
    fn token(&self) -> anyhow::Result<String> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = self.token.clone().or_else(|| variable("PERSONAS_TOKEN"));
        let token = token.or_else(|| variable("PERSONAS_BOOTSTRAP_TOKEN"));
        token.context("no access token: give --token or set PERSONAS_TOKEN")
    }

    fn path(&self) -> String {
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let space = encoded(&self.space);
        // A path has no plus for a space.
        let part = |text: &str| encoded(text).replace('+', "%20");
        match &self.profile {
            Some(profile) => {
                format!(
                    "/v1/spaces/{space}/collections/{}/profiles/{}/export",
                    part(&self.collection),
                    part(profile)
                )
            }
            None => format!("/v1/spaces/{space}/export"),
        }
    }
}

pub(super) fn run(export: &Export) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(Box::pin(fetch(export)))
}

async fn fetch(export: &Export) -> anyhow::Result<ExitCode> {
    let client = Client::new(&export.url, &export.token()?)?;
    let to = &export.to;
    anyhow::ensure!(!to.exists(), "{} is there already: name a folder that is not", to.display());
    let mut response = client.open(&export.path()).await?;
    let partial = Partial::make(to).with_context(|| format!("the folder {}", to.display()))?;
    let mut folder = Folder { path: partial.0.clone(), files: BTreeMap::new(), manifest: None };
    let mut rest = Vec::new();
    while let Some(bytes) = response.chunk().await.context("the export broke off")? {
        rest.extend_from_slice(&bytes);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            folder.line(line)?;
        }
    }
    let told = folder.finish()?;
    fs::rename(&partial.0, to).with_context(|| format!("the folder {}", to.display()))?;
    writeln!(std::io::stdout(), "{told} rows in {}", to.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The folder that an export is written into until it is whole. What is not renamed is removed.
struct Partial(PathBuf);

impl Partial {
    fn make(to: &Path) -> anyhow::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(to.file_name().context("it has no name")?);
        name.push(".personas-export");
        let path = to.with_file_name(name);
        // Of an export that was killed.
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is not there any more when the export is whole.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    file: Option<String>,
    #[serde(borrow, default)]
    row: Option<&'a RawValue>,
    #[serde(default)]
    manifest: Option<Value>,
}

/// A file being written.
struct Open {
    out: BufWriter<File>,
    rows: u64,
    hash: Sha256,
}

struct Folder {
    path: PathBuf,
    files: BTreeMap<String, Open>,
    manifest: Option<Value>,
}

impl Folder {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line: Line<'_> = serde_json::from_slice(line).context("the server sends what is no export")?;
        if let Some(manifest) = line.manifest {
            self.manifest = Some(manifest);
            return Ok(());
        }
        let (Some(file), Some(row)) = (line.file, line.row) else {
            anyhow::bail!("a line is no row of an export")
        };
        let is_name = file.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        anyhow::ensure!(is_name && !file.is_empty(), "{file:?} is no name of a file");
        if !self.files.contains_key(&file) {
            let path = self.path.join(format!("{file}.ndjson"));
            let out = BufWriter::new(File::create_new(&path).with_context(|| path.display().to_string())?);
            self.files.insert(file.clone(), Open { out, rows: 0, hash: Sha256::new() });
        }
        let Some(open) = self.files.get_mut(&file) else { return Ok(()) };
        for bytes in [row.get().as_bytes(), b"\n"] {
            open.out.write_all(bytes)?;
            open.hash.update(bytes);
        }
        open.rows += 1;
        Ok(())
    }

    /// Compares with what the server says there is, and writes the manifest. Returns the number of rows.
    fn finish(mut self) -> anyhow::Result<u64> {
        let manifest = self.manifest.take().context("the export broke off before its end: try again")?;
        let mut told = 0;
        for (file, said) in manifest.get("files").and_then(Value::as_object).into_iter().flatten() {
            let (rows, hash) = match self.files.remove(file) {
                Some(mut open) => {
                    open.out.flush()?;
                    (open.rows, hex::encode(open.hash.finalize()))
                }
                None => (0, hex::encode(Sha256::digest(b""))),
            };
            let is_right = said.get("rows") == Some(&rows.into()) && said.get("sha256") == Some(&hash.into());
            anyhow::ensure!(is_right, "{file} is not what the server says it sent");
            told += rows;
        }
        anyhow::ensure!(self.files.is_empty(), "the manifest does not name all files");
        let path = self.path.join("manifest.json");
        fs::write(&path, serde_json::to_vec_pretty(&manifest)?)
            .with_context(|| path.display().to_string())?;
        Ok(told)
    }
}
