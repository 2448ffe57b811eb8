//! Under which account Postgres runs. It refuses root, so root steps down to an unprivileged account.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::EmbeddedError;

/// Accounts root steps down to, in order of preference.
const STEP_DOWN_TO: [&str; 2] = ["postgres", "nobody"];

/// Who runs Postgres and owns its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
    /// We are root and become this account; otherwise it is our own.
    step_down: bool,
}

impl Account {
    /// The account for the cluster that is there, or for one to be made: our own; when we are root, the owner of the
    /// cluster, else the first of the service accounts. `folder` is one we may write in.
    pub(super) fn for_cluster(folder: &Path, cluster: Option<PathBuf>) -> Result<Self, EmbeddedError> {
        let ours = Self::ours(folder)?;
        let is_root = ours.uid == 0;
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let service = STEP_DOWN_TO.iter().find_map(|name| look_up(&passwd, name));
        let stand_in = || service.ok_or(EmbeddedError::NoAccount);
        let Some(dir) = cluster else { return if is_root { stand_in() } else { Ok(ours) } };
        let owner = fs::metadata(&dir).map_err(EmbeddedError::io("look at", &dir))?;
        match (is_root, owner.uid()) {
            (true, 0) => Err(EmbeddedError::WrongOwner { dir, owner: 0, wanted: stand_in()?.uid }),
            (true, uid) => Ok(Self { uid, gid: owner.gid(), step_down: true }),
            (false, uid) if uid == ours.uid => Ok(ours),
            (false, uid) => Err(EmbeddedError::WrongOwner { dir, owner: uid, wanted: ours.uid }),
        }
    }

    /// Our own account, learned from the owner of a file just made: the standard library does not tell.
    fn ours(folder: &Path) -> Result<Self, EmbeddedError> {
        let probe = folder.join(format!(".owner-{}", std::process::id()));
        let made = fs::File::create(&probe).and_then(|file| file.metadata());
        let _ = fs::remove_file(&probe);
        let made = made.map_err(EmbeddedError::io("write in", folder))?;
        Ok(Self { uid: made.uid(), gid: made.gid(), step_down: false })
    }

    /// Its user id.
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// Whether files have to be handed over to it.
    pub fn is_another(self) -> bool {
        self.step_down
    }

    /// Hands a folder over to the account.
    pub(super) fn own(self, path: &Path) -> Result<(), EmbeddedError> {
        if self.step_down {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(EmbeddedError::io("change the owner of", path))?;
        }
        Ok(())
    }

    /// A command that runs as the account, with nothing of our environment and nothing to read.
    pub(super) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null());
        if self.step_down {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether the account can get into `dir`, which every parent has to allow.
    pub(super) fn can_enter(self, dir: &Path) -> bool {
        let mut shell = self.command("/bin/sh");
        shell.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        shell.status().is_ok_and(|status| status.success())
    }
}

/// The account of that name in the text of `/etc/passwd`.
fn look_up(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (uid != 0).then_some(Account { uid, gid, step_down: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_accounts_by_their_whole_name_and_never_root() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(look_up(passwd, "postgres"), Some(Account { uid: 101, gid: 104, step_down: true }));
        assert_eq!(look_up(passwd, "root"), None);
        assert_eq!(look_up(passwd, "nobody"), None);
    }
}
