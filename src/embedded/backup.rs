//! Copies of the private Postgres: one file, made while the service runs, whole as of the moment it was done.
//!
//! A backup is what `pg_basebackup` gives, compressed; putting it back is unpacking it where the cluster is. What is not in
//! it: the key of destinations' secrets, and the journal of erasures, both beside the cluster, so that neither is older than
//! what is served.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::folder::{Home, base_of, socket_dir_in_use};
use super::{Binaries, EmbeddedError, Options, Postgres, ROLE};

/// Fast, and about as small as slower levels.
const COMPRESSION_LEVEL: i32 = 3;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of the cluster.
    pub bytes: u64,
    /// Where what was there before is now, when something was.
    pub before: Option<PathBuf>,
}

/// Writes a backup of the cluster of a data folder. `running` is a server of this process, where it runs one itself; else
/// one runs with the folder beside it.
pub fn backup(
    options: &Options,
    running: Option<&Postgres>,
    out: &mut dyn Write,
) -> Result<Copied, EmbeddedError> {
    let beside = socket_dir_in_use(&options.data_dir)?;
    let socket_dir = running.map(|postgres| postgres.socket_dir().to_owned()).or(beside);
    let socket_dir = socket_dir.ok_or_else(|| {
        EmbeddedError::io("find a server for", &options.data_dir)(io::ErrorKind::NotFound.into())
    })?;
    let data_dir = options.data_dir.canonicalize().map_err(EmbeddedError::io("find", &options.data_dir))?;
    let cluster = base_of(&data_dir).join("pg");
    let (account, binaries) = Home::beside(options, &cluster)?;
    let mut command = account.command(program(options, &binaries, "pg_basebackup")?);
    command.arg("-h").arg(&socket_dir).args(["-p", "5432", "-U", ROLE]);
    // The log that was written meanwhile comes at the end of the same stream.
    command.args(["--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--pgdata=-", "--no-password"]);
    let mut child = start(command, Stdio::null(), Stdio::piped())?;
    let mut content = child.stdout.take().ok_or_else(|| nothing(&cluster))?;
    let copied = compress(&mut content, out, &cluster);
    // Nobody reads on: it does not wait for that.
    drop(content);
    if copied.is_err() {
        let _ended = child.kill();
    }
    let ended = end(child, "be copied", &cluster);
    let bytes = copied?;
    ended?;
    Ok(Copied { bytes, before: None })
}

/// Puts a backup in the place of the cluster of a data folder that nobody uses. What is there is moved aside where
/// `replace` says so, and refused else.
pub fn restore(options: &Options, replace: bool, from: &mut dyn Read) -> Result<Copied, EmbeddedError> {
    let home = Home::open(&options.data_dir)?;
    let cluster = home.cluster();
    if home.major.is_some() && !replace {
        let reason = "holds data already: --replace moves it aside";
        return Err(EmbeddedError::Foreign { dir: cluster, reason });
    }
    let fresh = home.fresh()?;
    let mut command = home.account.command("tar");
    command.args(["-x", "-p", "-C"]).arg(&fresh).args(["-f", "-"]);
    let mut child = start(command, Stdio::piped(), Stdio::null())?;
    let mut into = child.stdin.take().ok_or_else(|| nothing(&fresh))?;
    let copied = zstd::stream::read::Decoder::new(from).and_then(|mut plain| io::copy(&mut plain, &mut into));
    drop(into);
    end(child, "be put back", &fresh)?;
    let bytes = copied.map_err(EmbeddedError::io("read the backup for", &fresh))?;
    home.check_fresh()?;
    let before = if home.major.is_some() { Some(aside(&cluster)?) } else { None };
    home.name_fresh()?;
    Ok(Copied { bytes, before })
}

fn nothing(cluster: &Path) -> EmbeddedError {
    EmbeddedError::io("copy", cluster)(io::ErrorKind::BrokenPipe.into())
}

/// A program of the same version: beside the server, or, where packages keep clients apart and the server was found by a link,
/// in another folder.
fn program(options: &Options, binaries: &Binaries, name: &'static str) -> Result<PathBuf, EmbeddedError> {
    let same = options.search.all().into_iter().filter(|other| other.version == binaries.version);
    let mut all = std::iter::once(binaries.program(name)).chain(same.map(|other| other.program(name)));
    all.find(|program| program.exists()).ok_or_else(|| {
        let what = "find (it comes with the client package of Postgres)";
        EmbeddedError::io(what, binaries.program(name))(io::ErrorKind::NotFound.into())
    })
}

fn start(mut command: Command, input: Stdio, output: Stdio) -> Result<Child, EmbeddedError> {
    let program = PathBuf::from(command.get_program());
    command.stdin(input).stdout(output).stderr(Stdio::piped());
    command.spawn().map_err(EmbeddedError::io("run", program))
}

fn end(child: Child, step: &'static str, cluster: &Path) -> Result<(), EmbeddedError> {
    let outcome = child.wait_with_output().map_err(EmbeddedError::io("copy", cluster))?;
    if outcome.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&outcome.stderr).into_owned();
    Err(EmbeddedError::Failed { step, dir: cluster.to_owned(), status: outcome.status.to_string(), log })
}

fn compress(from: &mut dyn Read, out: &mut dyn Write, cluster: &Path) -> Result<u64, EmbeddedError> {
    let failed = || EmbeddedError::io("write the backup of", cluster);
    let mut encoder = zstd::stream::write::Encoder::new(out, COMPRESSION_LEVEL).map_err(failed())?;
    // A backup that was damaged since is not put back.
    encoder.include_checksum(true).map_err(failed())?;
    let bytes = io::copy(from, &mut encoder).map_err(failed())?;
    encoder.finish().and_then(Write::flush).map_err(failed())?;
    Ok(bytes)
}

/// Moves a cluster aside, under a name that is free.
fn aside(cluster: &Path) -> Result<PathBuf, EmbeddedError> {
    let mut names = (1..).map(|no| cluster.with_file_name(format!("pg.before-{no}")));
    let before = names.find(|name| !name.exists()).unwrap_or_default();
    fs::rename(cluster, &before).map_err(EmbeddedError::io("move aside", cluster))?;
    Ok(before)
}
