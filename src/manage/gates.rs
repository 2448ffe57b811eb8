//! What is asked of the members of an audience besides its query: consent, and no objection to automated decisions.

use sqlx::PgConnection;

use super::definitions::{Kind, Options, engine_kind};
use super::identity_settings::shown;
use super::{Manage, ManageError, Result};
use crate::domain::gate::Gates;
use crate::domain::{Collection, SpaceNo, Timestamp};
use crate::engine::{Plan, compile_for};
use crate::store::definitions;

impl Manage {
    /// What is looked at when a definition is tried that would have these options.
    pub async fn compile_draft(
        &self,
        space: SpaceNo,
        kind: Kind,
        (collection, query): (&str, &str),
        options: &Options,
    ) -> Result<Plan> {
        let mut plan = self.compile_definition(space, kind, collection, query).await?;
        let collection = plan.collection();
        let gates = self.check_gates(space, kind, collection, &options.gates).await?;
        if gates.are_closed() {
            plan = self.compile_gated(space, collection, (query, &gates), kind)?;
        }
        Ok(plan.with_retention(&self.retention(space).await?))
    }

    /// What is asked of the members of an audience besides its query, checked; whether consent is enforced is the space's.
    pub(super) async fn check_gates(
        &self,
        space: SpaceNo,
        kind: Kind,
        collection: Collection,
        gates: &Gates,
    ) -> Result<Gates> {
        if kind == Kind::ComputedTrait && gates.requires_human_review {
            let message = "only audiences can require human review";
            return Err(ManageError::invalid("options.requires_human_review", message));
        }
        if let Some(category) = &gates.consent_category {
            let field = "options.consent_category";
            if kind == Kind::ComputedTrait || collection == Collection::Accounts {
                return Err(ManageError::invalid(
                    field,
                    "only audiences of users are about a category of consent",
                ));
            }
            if !self.list_consent_categories(space).await?.iter().any(|known| known.id == *category) {
                let message = format!("the space has no category of consent {}", shown(category));
                return Err(ManageError::invalid(field, message));
            }
        }
        self.gated(space, gates).await
    }

    /// The same with whether the space enforces consent.
    pub(super) async fn gated(&self, space: SpaceNo, gates: &Gates) -> Result<Gates> {
        let enforces = gates.consent_category.is_some() && self.consent_settings(space).await?;
        Ok(Gates { enforces_consent: enforces, ..gates.clone() })
    }

    /// Compiles a query with what is asked besides; what is wrong with it is told of the query alone.
    pub(super) fn compile_gated(
        &self,
        space: SpaceNo,
        collection: Collection,
        (query, gates): (&str, &Gates),
        kind: Kind,
    ) -> Result<Plan> {
        let plan = self.compile_in(space, collection, query, kind)?;
        if !gates.are_closed() {
            return Ok(plan);
        }
        let limits = self.limits.query.for_gates();
        let compiled = compile_for(collection, &gates.apply(query), engine_kind(kind), limits);
        let mut plan = compiled.map_err(ManageError::Query)?;
        self.bind_sources(space, &mut plan)?;
        Ok(plan)
    }
}

/// Makes new versions of the enabled definitions that are to have other options. Part of a transaction that holds the lock of
/// the space's configuration, so that nobody else edits one of them meanwhile.
pub(super) async fn renew(
    tx: &mut PgConnection,
    space: SpaceNo,
    kind: Option<Kind>,
    now: Timestamp,
    options: impl Fn(&Options) -> Options,
) -> Result<()> {
    let all = definitions::list_definitions_in(&mut *tx, space, kind, None).await?;
    for present in all.iter().filter(|present| present.enabled) {
        let wanted = options(&present.latest.options);
        if wanted != present.latest.options {
            let version = (present.latest.query.as_str(), &wanted);
            definitions::insert_version(&mut *tx, space, present.no, version, now).await?;
        }
    }
    Ok(())
}
