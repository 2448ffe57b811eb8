//! `personas openapi`: the description of the HTTP interface, as `docs/openapi.json` has it.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::http::openapi;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    io::stdout().write_all(openapi::describe_json(true).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
