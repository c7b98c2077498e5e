//! What another policy would allow and deny that the one in force does not.

use jiff::Timestamp;

use super::super::core::Agent;
use super::super::policy;
use super::no_text;
use crate::control::Comparison;
use crate::exit::Failure;

impl Agent {
    /// Compares a policy with the one in force, for this machine, with the dynamic zones as they are. Changes nothing.
    ///
    /// # Errors
    /// With exit code 2 if the text is no policy, or if the two are too unlike to be compared; with 1 if the text of the
    /// policy in force is not known.
    pub(in super::super) async fn changes(&self, name: &str, text: &str) -> Result<Comparison, Failure> {
        let in_force = self.policy.lock().await;
        let current = in_force.as_ref().ok_or_else(no_text)?;
        let (mut new, _) = policy::check(name, text, Timestamp::now().as_second())?;
        self.fill_zones(&mut new)?;
        let environment = current.environment(self);
        let found =
            tokio::task::block_in_place(|| fw_policy::diff::diff(&current.policy, &new, &environment));
        let found = found.map_err(|error| Failure::input(error.to_string()))?;
        let changes = serde_json::to_value(&found);
        Ok(Comparison {
            generation: current.generation,
            policy: current.policy.file.clone(),
            differs: !found.is_empty(),
            text: found.to_string(),
            changes: changes.map_err(|error| Failure::no(format!("the differences are no JSON: {error}")))?,
        })
    }
}
