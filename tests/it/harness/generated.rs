//! Files that are made from the code: a test fails when one is not what the code says, and `make generate` (the same
//! tests with `UPDATE_GENERATED=1`) writes them.

use std::{env, fs, path::Path};

/// Compares a file of the repository with what it has to be, or writes it.
pub(crate) fn check(path: &Path, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let is_current = fs::read_to_string(&path).is_ok_and(|found| found == expected);
    assert!(is_current, "{} is out of date: run `make generate`", path.display());
}
