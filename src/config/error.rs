//! Why a configuration is refused. Each sentence names the key and where it was set.

use std::io;
use std::path::PathBuf;

/// A configuration that the server does not start with. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that `--config` or `IRIS_CONFIG` names cannot be read.
    #[error("cannot read the configuration file `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("`{}`, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What the parser said; none of the file's text.
        message: String,
    },
    /// The file has a key that means nothing.
    #[error("unknown key {name}{}", .meant.map_or_else(String::new, |key| format!("; did you mean `{key}`?")))]
    UnknownKey {
        /// The key and the file, each in backticks, and the line.
        name: String,
        /// The key that is like it.
        meant: Option<&'static str>,
    },
    /// The value cannot be used.
    #[error("bad value of {name}: {problem}")]
    BadValue {
        /// The key in backticks, and the file it is in.
        name: String,
        /// What is wrong, with the value unless it is a secret.
        problem: String,
    },
    /// A provider's name could not stand in a variable or before the `/` of a model.
    #[error("bad provider name `{name}`: use lower case letters, digits, `-` and `_`")]
    ProviderName {
        /// The name.
        name: String,
    },
    /// A provider lacks a key.
    #[error(
        "`providers.{provider}.{field}` is missing; in the environment: `IRIS_PROVIDERS__{}__{}`",
        provider.to_ascii_uppercase(), field.to_ascii_uppercase()
    )]
    Missing {
        /// The provider.
        provider: String,
        /// The key in its section.
        field: &'static str,
    },
    /// A variable of ours is not UTF-8.
    #[error("the environment variable `{name}` is not UTF-8")]
    NotUtf8 {
        /// The variable.
        name: String,
    },
    /// The platform does not say where programs keep data.
    #[error("no data directory: give `--data-dir` or set `IRIS_DATA_DIR`")]
    NoDataDir,
}

impl ConfigError {
    /// The key, flag or variable that is wrong; none where that is the file as a whole.
    pub fn key(&self) -> Option<String> {
        match self {
            Self::UnknownKey { name, .. } | Self::BadValue { name, .. } => {
                name.split('`').nth(1).map(str::to_owned)
            }
            Self::ProviderName { name } => Some(format!("providers.{name}")),
            Self::Missing { provider, field } => Some(format!("providers.{provider}.{field}")),
            Self::NotUtf8 { name } => Some(name.clone()),
            Self::NoDataDir => Some("data_dir".to_owned()),
            Self::Unreadable { .. } | Self::Syntax { .. } => None,
        }
    }
}
