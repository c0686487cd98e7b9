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
    #[error("unknown key {name}")]
    UnknownKey {
        /// The key and the file, each in backticks.
        name: String,
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
