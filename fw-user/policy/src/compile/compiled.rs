//! A compiled policy that can take other addresses without being compiled anew.

use super::address::Cut;
use super::fixed::{self, Fixed};
use super::frame::Frame;
use super::{CompileError, Options, TableSet, valid};
use crate::Environment;
use crate::model::Policy;

/// What compiling a policy has found out that does not depend on addresses: kept, so that other addresses (dynamic zones,
/// files of prefixes, the machine's own) cost only the address maps.
pub struct Compiled {
    options: Options,
    frame: Frame,
    fixed: Fixed,
}

/// What [`Compiled::readdress`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readdressed {
    /// Only the address maps and the class records are new.
    Addresses,
    /// All was compiled anew.
    Everything {
        /// Why: half a sentence.
        why: &'static str,
    },
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Compiled")
            .field("options", &self.options)
            .field("stats", &self.fixed.stats)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// Compiles a policy for a machine, within `limit` bytes ([`super::DEFAULT_LIMIT`]).
    ///
    /// # Errors
    /// As [`super::compile`].
    pub fn new(
        policy: &Policy,
        environment: &Environment,
        limit: u64,
    ) -> Result<(Self, TableSet), CompileError> {
        let options = Options {
            limit,
            ..Options::default()
        };
        Self::with(policy, environment, options)
    }

    /// As [`Self::new`], with options.
    ///
    /// # Errors
    /// As [`super::compile`].
    pub fn with(
        policy: &Policy,
        environment: &Environment,
        options: Options,
    ) -> Result<(Self, TableSet), CompileError> {
        let (fixed, tables) = fixed::compile(policy, environment, options, Fixed::clone)?;
        let compiled = Self {
            options,
            frame: Frame::new(policy, environment),
            fixed,
        };
        Ok((compiled, tables))
    }

    /// Compiles the policy with other addresses, or another generation: quickly where nothing else has changed, else as
    /// [`Self::new`] does. The set decides as a fresh compile's does.
    ///
    /// # Errors
    /// As [`super::compile`]; then nothing has changed.
    pub fn readdress(
        &mut self,
        policy: &Policy,
        environment: &Environment,
    ) -> Result<(TableSet, Readdressed), CompileError> {
        valid(environment)?;
        let why = match self.quickly(policy, environment)? {
            Ok(tables) => return Ok((tables, Readdressed::Addresses)),
            Err(why) => why,
        };
        let (compiled, tables) = Self::with(policy, environment, self.options)?;
        *self = compiled;
        Ok((tables, Readdressed::Everything { why }))
    }

    /// The set with other addresses only, or why there must be more.
    fn quickly(
        &self,
        policy: &Policy,
        environment: &Environment,
    ) -> Result<Result<TableSet, &'static str>, CompileError> {
        if let Some(why) = self.frame.difference(policy, environment) {
            return Ok(Err(why));
        }
        let cut = Cut::new(policy, environment).map_err(|error| error.with_contributors(policy, None))?;
        let Some(places) = self.fixed.axes.find(&cut.classes) else {
            return Ok(Err(
                "addresses lie in a combination of zones that rules tell apart and that did not occur before",
            ));
        };
        let lines = self.fixed.lines.clone();
        match self.fixed.finish(lines, (policy, environment), &cut, &places) {
            Ok(tables) => Ok(Ok(tables)),
            Err(error) if error.is_size() => Ok(Err("the address maps have grown beyond their room")),
            Err(error) => Err(error),
        }
    }
}
