//! Why there is no answer, in the words that reasons are counted by (personas.md 7.6).

use std::error::Error;
use std::{fmt, io};

use crate::deliver::guard::Blocked;
use crate::deliver::guard::NotFound;
use crate::deliver::kind::{Reason, Verdict};

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not done in time.
    TimedOut,
    /// Nobody listens there.
    Refused,
    /// The connection ended before the answer did.
    Reset,
    /// There is no way to that host.
    Unreachable,
    /// The name leads nowhere.
    NotFound,
    /// Encryption could not be agreed upon, or the certificate is not trusted.
    Tls,
    /// What was answered is not HTTP, or has headers without end.
    Protocol,
    /// The guard does not let it out.
    Blocked,
    /// The request cannot be made as it is.
    InvalidSettings,
}

impl Code {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "ETIMEDOUT",
            Self::Refused => "ECONNREFUSED",
            Self::Reset => "ECONNRESET",
            Self::Unreachable => "EHOSTUNREACH",
            Self::NotFound => "ENOTFOUND",
            Self::Tls => "TLS",
            Self::Protocol => "EPROTO",
            Self::Blocked => "BLOCKED",
            Self::InvalidSettings => "INVALID_SETTINGS",
        }
    }
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// What an operator reads.
    pub message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The innermost cause says what it was.
    pub(super) fn of(error: &reqwest::Error, is_tls: bool) -> Self {
        let first: &(dyn Error + 'static) = error;
        let causes: Vec<_> = std::iter::successors(Some(first), |&error| error.source()).collect();
        let message = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        let named = causes.iter().rev().find_map(|&cause| code_of(cause));
        let code = named.unwrap_or(if error.is_connect() && is_tls { Code::Tls } else { Code::Protocol });
        Self { code, message }
    }
}

fn code_of(cause: &(dyn Error + 'static)) -> Option<Code> {
    if cause.is::<Blocked>() {
        return Some(Code::Blocked);
    }
    if cause.is::<NotFound>() {
        return Some(Code::NotFound);
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        let is_cut = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        return is_cut.then_some(Code::Reset);
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(Code::Refused),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Code::Reset),
        io::ErrorKind::TimedOut => Some(Code::TimedOut),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Code::Unreachable),
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl Error for Failure {}

impl From<Failure> for Verdict {
    /// What the network did may be undone; what the settings say stays so until they are changed.
    fn from(failure: Failure) -> Self {
        let reason = Reason { code: failure.code.as_str().to_owned(), message: failure.message };
        match failure.code {
            Code::Blocked | Code::InvalidSettings => Self::Rejected(reason),
            _ => Self::Retry { reason, after: None },
        }
    }
}
