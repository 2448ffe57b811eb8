//! The data folder: whose it is, its lock, the cluster in it, the folder of its socket.
//!
//! ```text
//! <data folder>/personas.lock   held while a process of ours uses the folder; holds its pid
//! <data folder>/pg              the cluster, with our mark in it
//! <data folder>/pg.new          a cluster being made; an interrupted one is thrown away
//! <data folder>/run             the socket, unless the path would be too long
//! <data folder>/location        only when Postgres cannot enter the data folder: where `pg` is instead
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use super::{Binaries, DATABASE, EmbeddedError, Profile, ROLE, account::Account};

const LOCK: &str = "personas.lock";
const LOCATION: &str = "location";
/// A file in every cluster we made: what is not marked is not ours.
const MARK: &str = "MADE_BY_PERSONAS";
const MARK_TEXT: &str = "This Postgres data folder was made by personas and is started and stopped by it.\n";
/// Where clusters go when Postgres' account cannot enter the data folder: a home that is closed to others, say.
const ELSEWHERE: &str = "/var/lib/personas";
/// The system allows about 104 bytes (macOS) for a socket's path.
const SOCKET_PATH_BYTES_MAX: usize = 100;
const SOCKET_NAME: &str = "/.s.PGSQL.5432";

/// What a data folder holds, for `personas doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// Nothing yet: the first start sets it up.
    New,
    /// A cluster of ours.
    Ours {
        /// Where it is.
        cluster: PathBuf,
        /// Its major version.
        major: String,
        /// The pid of the process that uses it now.
        in_use_by: Option<String>,
    },
    /// Something else: a start refuses it.
    Foreign {
        /// Where that is.
        dir: PathBuf,
        /// What it is.
        reason: &'static str,
    },
}

/// Looks at a data folder without changing it.
pub fn describe_folder(data_dir: &Path) -> Result<FolderState, EmbeddedError> {
    let looked = refuse_foreign_home(data_dir).and_then(|()| {
        let cluster = base_of(data_dir).join("pg");
        Ok(cluster_major(&cluster)?.map(|major| (cluster, major)))
    });
    match looked {
        Ok(None) => Ok(FolderState::New),
        Ok(Some((cluster, major))) => {
            let lock = File::open(data_dir.join(LOCK)).ok();
            let in_use_by = lock.and_then(|mut lock| match lock.try_lock_shared() {
                Err(TryLockError::WouldBlock) => Some(read_pid(&mut lock).unwrap_or_default()),
                _ => None,
            });
            Ok(FolderState::Ours { cluster, major, in_use_by })
        }
        Err(EmbeddedError::Foreign { dir, reason }) => Ok(FolderState::Foreign { dir, reason }),
        Err(error) => Err(error),
    }
}

/// A data folder that is ours alone for as long as this lives.
#[derive(Debug)]
pub(super) struct Home {
    /// Holds `pg` and `run`: the data folder itself, or its stand-in under [`ELSEWHERE`].
    pub(super) base: PathBuf,
    pub(super) account: Account,
    /// The major version of the cluster, `None` when it is still to be made.
    pub(super) major: Option<String>,
    /// Released by the kernel when we end, whichever way.
    _lock: File,
}

impl Home {
    /// Makes the folder when needed, locks it, and settles where the cluster is and who runs it. Refuses what we did
    /// not make.
    pub(super) fn open(data_dir: &Path) -> Result<Self, EmbeddedError> {
        // Others may pass through but not look: Postgres' account has to reach what is inside.
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o711).create(data_dir).map_err(EmbeddedError::io("make", data_dir))?;
        let data_dir = data_dir.canonicalize().map_err(EmbeddedError::io("find", data_dir))?;
        refuse_foreign_home(&data_dir)?;
        let lock = lock(&data_dir)?;
        let mut base = base_of(&data_dir);
        let major = cluster_major(&base.join("pg"))?;
        let account = Account::for_cluster(&data_dir, major.is_some().then(|| base.join("pg")))?;
        // A cluster that is there already stays where it is: starting an empty one elsewhere would hide its data.
        if major.is_none() && !account.can_enter(&base) {
            base = move_elsewhere(&data_dir)?;
        }
        if !account.can_enter(&base) {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(EmbeddedError::Io { what: "let Postgres' account enter", path: base, source });
        }
        if base != data_dir {
            tracing::warn!(
                data_dir = %data_dir.display(),
                "Postgres' account cannot enter {}: its data is in {}",
                data_dir.display(),
                base.display()
            );
        }
        Ok(Self { base, account, major, _lock: lock })
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.base.join("pg")
    }

    /// Makes the cluster and the service's database, all or nothing: only a finished one gets its name.
    pub(super) fn set_up(&self, binaries: &Binaries, profile: Profile) -> Result<(), EmbeddedError> {
        let fresh = self.fresh()?;
        let mut initdb = self.account.command(binaries.program("initdb"));
        initdb.arg("-D").arg(&fresh).args(["-U", ROLE, "-E", "UTF8", "--locale=C"]);
        initdb.args(["--auth-local=trust", "--auth-host=reject"]);
        initdb.arg(if profile == Profile::Durable { "--data-checksums" } else { "--no-sync" });
        run(initdb, "", &fresh)?;

        // One process without a server, so that an interrupted set-up leaves no half-made database.
        let mut single = self.account.command(binaries.program("postgres"));
        single.arg("--single").arg("-D").arg(&fresh).args(["-c", "exit_on_error=on"]);
        if profile == Profile::Throwaway {
            single.args(["-c", "fsync=off"]);
        }
        single.arg("postgres");
        run(single, &format!("CREATE DATABASE {DATABASE}\n"), &fresh)?;

        let mark = fresh.join(MARK);
        let marked = fs::write(&mark, MARK_TEXT).and_then(|()| File::open(&mark)?.sync_all());
        marked.map_err(EmbeddedError::io("write", &mark))?;
        self.name_fresh()
    }

    /// An empty folder for a cluster that is being made; what another one left unfinished is thrown away.
    pub(super) fn fresh(&self) -> Result<PathBuf, EmbeddedError> {
        let fresh = self.base.join("pg.new");
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EmbeddedError::io("remove the unfinished", &fresh)(error));
            }
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&fresh).map_err(EmbeddedError::io("make", &fresh))?;
        self.account.own(&fresh)?;
        Ok(fresh)
    }

    /// Refuses what is no cluster of ours.
    pub(super) fn check_fresh(&self) -> Result<(), EmbeddedError> {
        let fresh = self.base.join("pg.new");
        let missing =
            || EmbeddedError::Foreign { dir: fresh.clone(), reason: "was unpacked and holds no cluster" };
        cluster_major(&fresh)?.map(drop).ok_or_else(missing)
    }

    /// The finished one becomes the cluster.
    pub(super) fn name_fresh(&self) -> Result<(), EmbeddedError> {
        let fresh = self.base.join("pg.new");
        sync_folder(&fresh)?;
        fs::rename(&fresh, self.cluster()).map_err(EmbeddedError::io("name", self.cluster()))?;
        sync_folder(&self.base)
    }

    /// Who runs a cluster that is in use, and by which binaries.
    pub(super) fn beside(
        options: &super::Options,
        cluster: &Path,
    ) -> Result<(Account, Binaries), EmbeddedError> {
        let account = Account::for_cluster(&options.data_dir, Some(cluster.to_owned()))?;
        let major = cluster_major(cluster)?;
        Ok((account, options.search.choose(major.as_deref().map(|major| (cluster, major)))?))
    }

    /// A folder only the account may enter, with a path short enough for a socket in it.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let dir = socket_dir_of(&self.base);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => self.account.own(&dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // In a folder anybody may write to, the name could have been taken by somebody else.
                let there = fs::symlink_metadata(&dir).map_err(EmbeddedError::io("look at", &dir))?;
                if !there.is_dir() || there.uid() != self.account.uid() {
                    let (owner, wanted) = (there.uid(), self.account.uid());
                    return Err(EmbeddedError::WrongOwner { dir, owner, wanted });
                }
                let private = fs::Permissions::from_mode(0o700);
                fs::set_permissions(&dir, private).map_err(EmbeddedError::io("close", &dir))?;
            }
            Err(error) => return Err(EmbeddedError::io("make", &dir)(error)),
        }
        Ok(dir)
    }
}

fn socket_dir_of(base: &Path) -> PathBuf {
    let dir = base.join("run");
    if dir.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX {
        return dir;
    }
    Path::new("/tmp").join(format!("personas-{}", short_hash(base.as_os_str().as_encoded_bytes())))
}

/// Where the server listens that another process of ours runs with this folder now; `None` when there is none.
pub(super) fn socket_dir_in_use(data_dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
    let FolderState::Ours { in_use_by: Some(_), .. } = describe_folder(data_dir)? else { return Ok(None) };
    let data_dir = data_dir.canonicalize().map_err(EmbeddedError::io("find", data_dir))?;
    Ok(Some(socket_dir_of(&base_of(&data_dir))))
}

/// Refuses a folder that has files in it and was never ours.
fn refuse_foreign_home(data_dir: &Path) -> Result<(), EmbeddedError> {
    if data_dir.join(LOCK).exists() {
        return Ok(());
    }
    let foreign = |reason| Err(EmbeddedError::Foreign { dir: data_dir.to_owned(), reason });
    if data_dir.join("PG_VERSION").exists() {
        return foreign("is a Postgres data folder that personas did not make");
    }
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EmbeddedError::io("read", data_dir)(error)),
    };
    // A fresh volume has `lost+found`; hidden files are what file managers and git leave.
    let is_content = |name: &str| name != "lost+found" && !name.starts_with('.');
    if entries.flatten().any(|entry| is_content(&entry.file_name().to_string_lossy())) {
        return foreign("holds files that are not of personas");
    }
    Ok(())
}

/// The major version of the cluster in `dir`; `None` when the folder is missing or empty.
fn cluster_major(dir: &Path) -> Result<Option<String>, EmbeddedError> {
    let foreign = |reason| Err(EmbeddedError::Foreign { dir: dir.to_owned(), reason });
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EmbeddedError::io("read", dir)(error)),
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    match (fs::read_to_string(dir.join("PG_VERSION")), dir.join(MARK).exists()) {
        (Ok(version), true) => Ok(Some(version.trim().to_owned())),
        (Ok(_), false) => foreign("is a Postgres data folder that personas did not make"),
        (Err(_), true) => foreign("has lost its PG_VERSION: restore it from a backup"),
        (Err(_), false) => foreign("holds files that are not of personas"),
    }
}

/// How often a held lock is tried again before it is taken for another process's.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn lock(data_dir: &Path) -> Result<File, EmbeddedError> {
    let path = data_dir.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut lock = opened.map_err(EmbeddedError::io("open", &path))?;
    let mut locked = lock.try_lock();
    // A process we are just starting holds a copy of what we have let go of, until it runs its own program.
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        locked = lock.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(EmbeddedError::InUse { dir: data_dir.to_owned(), holder: read_pid(&mut lock) });
        }
        Err(TryLockError::Error(error)) => return Err(EmbeddedError::io("lock", &path)(error)),
    }
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(EmbeddedError::io("write", &path))?;
    Ok(lock)
}

fn read_pid(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.rewind().and_then(|()| lock.read_to_string(&mut text)).ok()?;
    Some(text.trim().to_owned()).filter(|pid| !pid.is_empty())
}

/// The folder that holds the cluster of a data folder.
pub(super) fn base_of(data_dir: &Path) -> PathBuf {
    let named = fs::read_to_string(data_dir.join(LOCATION)).ok();
    named.map_or_else(|| data_dir.to_owned(), |path| PathBuf::from(path.trim_end()))
}

/// Makes a stand-in for a data folder Postgres cannot enter and notes its place. The name follows from the note, so
/// two data folders never share one and a data folder that was deleted does not get its old data back.
fn move_elsewhere(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let note = data_dir.join(LOCATION);
    let file =
        File::create(&note).and_then(|file| file.metadata()).map_err(EmbeddedError::io("write", &note))?;
    let identity = format!("{} {} {} {}", note.display(), file.ino(), file.mtime(), file.mtime_nsec());
    let base = Path::new(ELSEWHERE).join(short_hash(identity.as_bytes()));
    let mut make = DirBuilder::new();
    make.recursive(true).mode(0o711).create(&base).map_err(EmbeddedError::io("make", &base))?;
    fs::write(&note, format!("{}\n", base.display())).map_err(EmbeddedError::io("write", &note))?;
    Ok(base)
}

fn short_hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

fn sync_folder(dir: &Path) -> Result<(), EmbeddedError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(EmbeddedError::io("flush", dir))
}

/// Runs one step of the set-up to its end.
fn run(mut command: Command, input: &str, dir: &Path) -> Result<(), EmbeddedError> {
    let program = PathBuf::from(command.get_program());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let outcome = command.spawn().and_then(|mut child| {
        // A child that ended early says why itself: not being able to write to it is not the reason.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    let outcome = outcome.map_err(EmbeddedError::io("run", &program))?;
    if outcome.status.success() {
        return Ok(());
    }
    let log =
        format!("{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let status = outcome.status.to_string();
    Err(EmbeddedError::Failed { step: "set up its data folder", dir: dir.to_owned(), status, log })
}
