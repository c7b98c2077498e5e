//! Exit codes, the same for every command, and errors that carry one.

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// What a command answers to whoever called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// 0: yes, done.
    Yes = 0,
    /// 1: the answer is no: denied, different, degraded, or the kernel refused.
    No = 1,
    /// 2: bad input: a policy, a configuration or an argument with an error.
    BadInput = 2,
    /// 3: no agent, or not enough privilege.
    NoAgent = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with its exit code. The message is a sentence: what, where, how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The message.
    pub message: String,
}

impl Failure {
    /// The answer is no.
    pub fn no(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::No,
            message: message.into(),
        }
    }

    /// Bad input.
    pub fn input(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::BadInput,
            message: message.into(),
        }
    }

    /// No agent or no privilege.
    pub fn no_agent(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::NoAgent,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: that of the [`Failure`] in its chain, else [`Exit::No`].
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Exit::No, |failure| failure.exit)
}

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::{Exit, Failure, exit_of};

    #[test]
    fn the_code_survives_added_context() {
        let error = Err::<(), _>(Failure::no_agent("no agent answers")).context("asking for the status");
        assert_eq!(exit_of(&error.unwrap_err()), Exit::NoAgent);
        assert_eq!(exit_of(&anyhow::anyhow!("anything else")), Exit::No);
    }
}
