//! From file, environment and flags to the tree: flags beat the environment, which beats the file, which beats defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;
use super::error::{ConfigError, ConfigErrors};
use super::file::ConfigFile;
use super::name;

/// Where the configuration comes from. Kept by the server, which loads again on SIGHUP.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, when one was named.
    pub file: Option<PathBuf>,
    /// The environment: every variable with its value; those of others are passed over.
    pub environment: Vec<(String, String)>,
    /// Settings from the command line, as `section.key=value`.
    pub flags: Vec<String>,
}

/// A configuration that may be started.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The tree.
    pub config: Config,
    /// For each `section.key` that is not the default's, where it was set last.
    pub origins: BTreeMap<String, String>,
}

impl Sources {
    /// Reads every source, layers them and validates the result.
    ///
    /// # Errors
    /// All mistakes of all sources; when there are none, all that validation finds.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut layers = Layers::default();
        let mut errors = Vec::new();
        if let Some(path) = &self.file {
            match ConfigFile::read(path) {
                Ok(file) => layers.add_file(&file),
                Err(file_errors) => errors.extend(file_errors.0),
            }
        }
        let variables = self
            .environment
            .iter()
            .map(|(name, text)| layers.set_variable(name, text));
        errors.extend(variables.filter_map(Result::err).collect::<Vec<_>>());
        let flags = self.flags.iter().map(|flag| layers.set_flag(flag));
        errors.extend(flags.filter_map(Result::err).collect::<Vec<_>>());
        ConfigErrors::check(errors)?;
        layers.finish()
    }
}

/// What has been set so far.
#[derive(Default)]
struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    fn add_file(&mut self, file: &ConfigFile) {
        for (section, keys) in &file.table {
            for (key, value) in keys.as_table().into_iter().flatten() {
                self.set(section, key, value.clone(), &file.name);
            }
        }
    }

    fn set_variable(&mut self, variable: &str, text: &str) -> Result<(), ConfigError> {
        let is_ours = variable.starts_with(name::PREFIX);
        if !is_ours || name::COMMAND_VARIABLES.contains(&variable) {
            return Ok(());
        }
        let (section, key) = name::of_variable(variable).ok_or_else(|| {
            ConfigError::new(variable, "no such variable")
                .advise(name::advice_for_variable(variable))
        })?;
        self.set_text(section, key, text, variable)
    }

    fn set_flag(&mut self, flag: &str) -> Result<(), ConfigError> {
        let place = |path: &str| format!("--set {path}");
        let (path, text) = flag.split_once('=').ok_or_else(|| {
            ConfigError::new(place(flag), "no value").advise("write --set section.key=value")
        })?;
        let (section, key) = name::of_path(path).ok_or_else(|| {
            ConfigError::new(place(path), "no such key").advise(name::advice_for_path(path))
        })?;
        self.set_text(section, key, text, &place(path))
    }

    /// Sets one key from text, after trying it alone, so that a mistake is reported at its place.
    fn set_text(
        &mut self,
        section: &str,
        key: &str,
        text: &str,
        origin: &str,
    ) -> Result<(), ConfigError> {
        let error = |e: toml::de::Error| ConfigError::new(origin, e.message().trim());
        let value = read_value(section, key, text).map_err(error)?;
        let mut alone = Self::default();
        alone.set(section, key, value.clone(), origin);
        Config::deserialize(alone.table).map_err(error)?;
        self.set(section, key, value, origin);
        Ok(())
    }

    fn set(&mut self, section: &str, key: &str, value: Value, origin: &str) {
        let table = self
            .table
            .entry(section)
            .or_insert_with(|| Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.into(), value);
        }
        self.origins
            .insert(format!("{section}.{key}"), origin.into());
    }

    fn finish(self) -> Result<Loaded, ConfigErrors> {
        let config = Config::deserialize(self.table)
            .map_err(|e| ConfigError::new("configuration", e.message()))?;
        config.validate()?;
        Ok(Loaded {
            config,
            origins: self.origins,
        })
    }
}

/// The kind of the default decides how text is read: a list may be separated by commas, what has no default or a
/// string as default (durations and sizes too) is the text itself, everything else is written as in the file.
fn read_value(section: &str, key: &str, text: &str) -> Result<Value, toml::de::Error> {
    let defaults = Config::default().to_table();
    let default = defaults.get(section).and_then(|section| section.get(key));
    if default.is_none_or(Value::is_str) {
        return Ok(text.into());
    }
    let is_list = default.is_some_and(Value::is_array) && !text.trim_start().starts_with('[');
    if is_list {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        return Ok(Value::Array(items.map(Value::from).collect()));
    }
    Value::deserialize(toml::de::ValueDeserializer::parse(text.trim())?)
}
