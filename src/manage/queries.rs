//! Query texts that are no definitions (yet): their canonical form, and the form that shows them.

use super::{Manage, ManageError, Result};
use crate::engine;

pub use crate::engine::query::{Comparison, Form, FormCondition, Join, Test};

impl Manage {
    /// A query in its canonical form and, where a form can show all of it, what that shows; or what is wrong with it.
    pub fn format_query(&self, query: &str) -> Result<(String, Option<Form>)> {
        let text = engine::format(query, self.limits.query).map_err(ManageError::Query)?;
        let form = Form::read(&text, self.limits.query);
        Ok((text, form))
    }

    /// The query that a form says, in its canonical form.
    pub fn write_form(&self, form: &Form) -> Result<String> {
        let (text, read) = self.format_query(&form.text())?;
        // Else the next one to open the query would see another form, or none.
        if read.as_ref() == Some(form) {
            return Ok(text);
        }
        let message = "a form takes texts of one line, and numbers of at most 15 digits and 20 zeros: write what has more as a query";
        Err(ManageError::invalid("form", message))
    }
}
