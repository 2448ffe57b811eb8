//! Who asks, and whether they may: access tokens.
//!
//! A handler under `/v1/spaces/{space}` takes [`Authed`] and gets its space from nowhere else, so it cannot forget to
//! ask. What a token cannot see is answered 404, never 403: the name of another tenant's space is not told.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::{HeaderMap, Method, header, request::Parts};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use serde::Deserialize;
use utoipa::IntoParams;

use super::AppState;
use super::extract::Query;
use super::problem::{Code, Problem};
use super::trace::Trace;
use crate::domain::plan::Stage;
use crate::domain::{Offset, SpaceNo};
use crate::manage::registry::{Scope, Space, Token};

/// A scope as a type, for [`Authed`] and [`Caller`].
pub trait Permission: Send + Sync + 'static {
    /// The scope the token must have; `None` is the server's owner.
    const SCOPE: Option<Scope>;
    /// Whether it may be done whatever has become of the plan of the space.
    const ALWAYS: bool;
}

macro_rules! permission {
    ($(#[$doc:meta])* $name:ident, $scope:expr, $always:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Permission for $name {
            const SCOPE: Option<Scope> = $scope;
            const ALWAYS: bool = $always;
        }
    };
}

permission!(
    /// Profiles, audiences, lists.
    Read, Some(Scope::Read), false
);
permission!(
    /// How a space stands: its plan, its usage.
    Look, Some(Scope::Read), true
);
permission!(
    /// Definitions, destinations, settings.
    Write, Some(Scope::Write), false
);
permission!(
    /// Sources, tokens, privacy.
    Admin, Some(Scope::Admin), true
);
permission!(
    /// Data that only those see who see to sources.
    AdminData, Some(Scope::Admin), false
);
permission!(
    /// What is done for the people the data is about, and the audit log.
    Privacy, Some(Scope::Privacy), true
);
permission!(
    /// Everything there is, taken out: as long as anything can be taken out.
    PrivacyData, Some(Scope::Privacy), false
);
permission!(
    /// Spaces, the test clock: only the server's owner.
    Owner, None, true
);

/// A caller who may do `P` in the space of the path.
#[derive(Debug)]
pub struct Authed<P> {
    /// The space of the path.
    pub space: Arc<Space>,
    /// The token used.
    pub token: Arc<Token>,
    trace: Option<Trace>,
    permission: PhantomData<P>,
}

impl<P> Authed<P> {
    /// Says for the audit log what is changed, where the path does not say it. Nothing secret, and nobody's data.
    pub fn note(&self, detail: impl FnOnce() -> serde_json::Value) {
        if let Some(trace) = &self.trace {
            trace.note(|notes| notes.detail = Some(detail()));
        }
    }

    /// Says that whatever this request does is only tried. Who does not say so changes something.
    pub fn note_trial(&self) {
        if let Some(trace) = &self.trace {
            trace.note(|notes| notes.is_trial = true);
        }
    }

    /// Says for the audit log whose data it is about, by the public id of the profile.
    pub fn note_profile(&self, id: &str) {
        if let Some(trace) = &self.trace {
            trace.note(|notes| notes.profiles.push(id.to_owned()));
        }
    }

    /// Number of the space.
    pub fn space_no(&self) -> SpaceNo {
        self.space.no
    }

    /// Another space, which the token may read as well.
    pub async fn other_space(&self, state: &AppState, key: &str) -> Result<SpaceNo, Problem> {
        let found = state.manage.registry().find_space(key).await?;
        let may_read = self.token.scopes.contains(&Scope::Read);
        let visible = found.filter(|space| may_read && self.token.space.is_none_or(|no| no == space.no));
        visible.map(|space| space.no).ok_or_else(|| {
            let shown: String = key.chars().take(100).collect();
            Problem::not_found(format!("there is no space {shown}"))
        })
    }
}

impl<P: Permission> FromRequestParts<AppState> for Authed<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let trace = parts.extensions.get::<Trace>().cloned();
        if let Some(trace) = &trace {
            trace.set_scope(P::SCOPE);
        }
        let token = token(parts, state).await?;
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::not_found("the path cannot be read"))?;
        let key = path.iter().find(|(name, _)| *name == "space").map_or("", |(_, key)| key);
        let missing = || {
            let shown: String = key.chars().take(100).collect();
            Problem::not_found(format!("there is no space {shown}"))
        };
        let space = state.manage.registry().find_space(key).await?;
        let visible = |space: &Arc<Space>| token.space.is_none_or(|no| no == space.no);
        let space = space.filter(visible).ok_or_else(missing)?;
        if let Some(trace) = &trace {
            trace.set_space(&space);
        }
        check_scope::<P>(&token)?;
        check_plan::<P>(&space, state)?;
        wait(parts, state, space.no).await?;
        Ok(Self { space, token, trace, permission: PhantomData })
    }
}

/// `min_offset` of every read of a space: wait until the space's processor has passed it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitParams {
    /// Wait until events up to this `Personas-Offset` are processed, at most 10 s.
    min_offset: Option<u64>,
}

async fn wait(parts: &mut Parts, state: &AppState, space: SpaceNo) -> Result<(), Problem> {
    if parts.method != Method::GET {
        return Ok(());
    }
    let Query(WaitParams { min_offset }) = Query::from_request_parts(parts, state).await?;
    match min_offset {
        Some(offset) => Ok(state.reader.wait_for(space, Offset(offset)).await?),
        None => Ok(()),
    }
}

/// A caller who may do `P`, on routes without a space in their path.
#[derive(Debug)]
pub struct Caller<P> {
    /// The token used.
    pub token: Arc<Token>,
    trace: Option<Trace>,
    permission: PhantomData<P>,
}

impl<P> Caller<P> {
    /// Says for the audit log what is changed. Nothing secret, and nobody's data.
    pub fn note(&self, detail: impl FnOnce() -> serde_json::Value) {
        if let Some(trace) = &self.trace {
            trace.note(|notes| notes.detail = Some(detail()));
        }
    }
}

impl<P: Permission> FromRequestParts<AppState> for Caller<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let trace = parts.extensions.get::<Trace>().cloned();
        if let Some(trace) = &trace {
            trace.set_scope(P::SCOPE);
        }
        let token = token(parts, state).await?;
        check_scope::<P>(&token)?;
        Ok(Self { token, trace, permission: PhantomData })
    }
}

async fn token(parts: &mut Parts, state: &AppState) -> Result<Arc<Token>, Problem> {
    let refused = || {
        let message = "send an access token, as the user name of Basic with an empty password or as Bearer";
        Problem::new(Code::Unauthorized, message)
    };
    let secret = credential(&parts.headers).ok_or_else(refused)?;
    let token = state.manage.registry().find_token(&secret).await?.ok_or_else(refused)?;
    let Parts { headers, extensions, .. } = parts;
    if let Some(trace) = extensions.get::<Trace>() {
        trace.set_token(&token, headers);
    }
    Ok(token)
}

fn check_scope<P: Permission>(token: &Token) -> Result<(), Problem> {
    let refuse = |needed: &str| {
        Err(Problem::new(
            Code::Forbidden,
            format!("the token `{}` lacks what this needs: {needed}", token.name),
        ))
    };
    match P::SCOPE {
        Some(scope) if !token.scopes.iter().any(|has| has.allows(scope)) => {
            refuse(&format!("scope {}", scope.as_str()))
        }
        None if token.space.is_some() => refuse("it is the owner's to do"),
        _ => Ok(()),
    }
}

/// Whether the plan of the space lets it be done now. Keys, tokens and what people ask for about themselves can always be
/// seen to.
fn check_plan<P: Permission>(space: &Space, state: &AppState) -> Result<(), Problem> {
    if P::ALWAYS {
        return Ok(());
    }
    let stage = space.plan.stage(state.clock.now());
    let reason = space.plan.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    match stage {
        Stage::Suspended if P::SCOPE == Some(Scope::Write) => {
            let message =
                format!("the space is suspended{reason}: it can be read, and nothing in it changed");
            Err(Problem::new(Code::SpaceSuspended, message))
        }
        Stage::Export if P::SCOPE == Some(Scope::Write) => {
            let message = format!(
                "the plan of the space has ended{reason}: until {} it can be read, and nothing in it changed",
                space.plan.export_ends_at().map(|at| at.to_string()).unwrap_or_default()
            );
            Err(Problem::new(Code::SpaceEnded, message))
        }
        Stage::Closed => {
            let message =
                format!("the plan of the space has ended{reason}, and so has the time to take things out");
            Err(Problem::new(Code::SpaceEnded, message))
        }
        Stage::Open | Stage::Suspended | Stage::Export => Ok(()),
    }
}

/// Base64 as people write it: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secret in `Authorization`: Basic's user name (also without a colon), or Bearer's token. `None` when there is
/// none, it is empty, or of another scheme.
pub(super) fn credential(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    let secret = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
        decoded.split(':').next().unwrap_or_default().to_owned()
    } else if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else {
        return None;
    };
    Some(secret).filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_read_as_clients_send_them() {
        for (value, expected) in [
            ("Basic a2V5Og==", Some("key")),
            ("basic a2V5Og", Some("key")),
            ("Basic a2V5", Some("key")),
            ("Basic a2V5OnBhc3M=", Some("key")),
            ("Bearer  tok_1 ", Some("tok_1")),
            ("Basic Og==", None),
            ("Basic %%%", None),
            ("Digest a2V5", None),
            ("Bearer", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(credential(&headers).as_deref(), expected, "{value}");
        }
    }
}
