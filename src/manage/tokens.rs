//! The tokens that may look into a space and change it.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::plans::read_instant;
use super::spaces::check_name;
use super::{Manage, ManageError, Result};
use crate::domain::{Role, Scope, SpaceNo, Timestamp};
use crate::store::registry::{Token, visible_prefix};
use crate::store::tokens;

/// A token with when it was last used.
#[derive(Debug, Clone)]
pub struct TokenView {
    /// The token.
    pub token: Token,
    /// When it was last used, to half a minute.
    pub last_used_at: Option<Timestamp>,
}

/// A token as it is asked for: with a role or with scopes.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// A word of [`Role`].
    pub role: Option<String>,
    /// Words of [`Scope`].
    pub scopes: Option<Vec<String>>,
    /// The instant it stops working, as a timestamp.
    pub expires_at: Option<String>,
}

impl Manage {
    /// Makes a token for one space; the second is its secret, which nobody will see again.
    pub async fn create_token(
        &self,
        space: SpaceNo,
        maker: &Token,
        new: NewToken,
    ) -> Result<(Token, String)> {
        let name = check_name(&new.name)?.to_owned();
        let scopes = read_rights(new.role.as_deref(), new.scopes.as_deref())?;
        check_maker(maker, &scopes)?;
        let expires_at = new.expires_at.map(|text| read_instant("expires_at", &text)).transpose()?;
        if expires_at.is_some_and(|end| end <= self.clock.now()) {
            let message = "the token would be of no use: it expires before it is made";
            return Err(ManageError::invalid("expires_at", message));
        }
        let secret = self.secret("tok");
        let token = Token {
            space: Some(space),
            id: self.ids.uuid(),
            name,
            prefix: visible_prefix(&secret),
            scopes,
            created_at: self.clock.now(),
            expires_at,
        };
        tokens::insert_token(&self.pool, &token, &secret).await?;
        self.registry.reload().await?;
        Ok((token, secret))
    }

    /// All tokens of a space that have not been revoked, oldest first.
    pub async fn list_tokens(&self, space: SpaceNo) -> Result<Vec<TokenView>> {
        let used: HashMap<Uuid, Timestamp> =
            tokens::list_token_uses(&self.door(space), space).await?.into_iter().collect();
        let snapshot = self.registry.snapshot();
        let of_space = snapshot.tokens.values().filter(|t| t.space == Some(space));
        let view = |token: &Arc<Token>| TokenView {
            last_used_at: used.get(&token.id).copied(),
            token: Token::clone(token),
        };
        let mut tokens: Vec<TokenView> = of_space.map(view).collect();
        tokens.sort_unstable_by_key(|t| (t.token.created_at, t.token.id));
        Ok(tokens)
    }

    /// Takes a token out of use for ever.
    pub async fn revoke_token(&self, space: SpaceNo, id: Uuid) -> Result<()> {
        if !tokens::revoke_token(&self.door(space), space, id, self.clock.now()).await? {
            return Err(ManageError::not_found("token", crate::domain::ids::public_id("tok", id)));
        }
        Ok(self.registry.reload().await?)
    }
}

/// What a token is to be allowed, in the order of [`Scope::ALL`].
fn read_rights(role: Option<&str>, scopes: Option<&[String]>) -> Result<Vec<Scope>> {
    match (role, scopes) {
        (Some(word), None) => Role::parse(word).map(|role| role.scopes().to_vec()).ok_or_else(|| {
            let message =
                format!("there is no role `{}`; there are {}", shown(word), all(&Role::ALL, Role::as_str));
            ManageError::invalid("role", message)
        }),
        (None, Some(words)) => read_scopes(words),
        (Some(_), Some(_)) => {
            Err(ManageError::invalid("role", "name a role or scopes, not both: a role is a set of scopes"))
        }
        (None, None) => {
            let message = format!("name a role ({}) or scopes", all(&Role::ALL, Role::as_str));
            Err(ManageError::invalid("scopes", message))
        }
    }
}

/// The scopes in words; each once, at least one.
fn read_scopes(words: &[String]) -> Result<Vec<Scope>> {
    let known = || all(&Scope::ALL, Scope::as_str);
    let mut scopes = Vec::new();
    for word in words {
        let scope = Scope::parse(word).ok_or_else(|| {
            let message = format!("there is no scope `{}`; there are {}", shown(word), known());
            ManageError::invalid("scopes", message)
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        return Err(ManageError::invalid("scopes", format!("name at least one of the scopes {}", known())));
    }
    scopes.sort_unstable();
    Ok(scopes)
}

/// Nobody gives away what is not theirs: a token could make itself another one that may do more.
fn check_maker(maker: &Token, scopes: &[Scope]) -> Result<()> {
    let may_give = |wanted: &Scope| maker.scopes.iter().any(|has| has.allows(*wanted));
    match scopes.iter().find(|wanted| maker.space.is_some() && !may_give(wanted)) {
        Some(missing) => {
            let message = format!(
                "the token `{}` cannot give the scope {}: it has it not itself",
                maker.name,
                missing.as_str()
            );
            Err(ManageError::Forbidden(message))
        }
        None => Ok(()),
    }
}

fn all<T: Copy>(words: &[T], word: fn(T) -> &'static str) -> String {
    words.iter().map(|of| word(*of)).collect::<Vec<_>>().join(", ")
}

fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}
