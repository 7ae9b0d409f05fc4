//! What is wrong with a configuration, and what to do about it.

use std::fmt;

/// One mistake: where it is, what it is, what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// A key, a variable, a flag, or `file:line:column`.
    pub place: String,
    /// What is wrong there.
    pub cause: String,
    /// The next step, as an instruction; empty when the cause says it all.
    pub advice: String,
}

impl ConfigError {
    /// A mistake at `place`.
    pub fn new(place: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            cause: cause.into(),
            advice: String::new(),
        }
    }

    /// The same with the next step.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.cause)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes found in one go; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// `Ok` when nothing was found.
    ///
    /// # Errors
    /// The mistakes, when there are any.
    pub fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
