/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// One or more values are out of range or do not fit together; every one is listed.
    #[error("invalid {what}: {}", .problems.join("; "))]
    Invalid {
        /// Which configuration: "DiT configuration" or "VAE configuration".
        what: &'static str,
        /// Each problem with the values concerned.
        problems: Vec<String>,
    },
    /// A name that none of the known ones matches.
    #[error("unknown {what} '{given}'; expected {expected}")]
    Unknown {
        /// What was being named, such as "model" or "block design".
        what: &'static str,
        /// The text given.
        given: String,
        /// The accepted spellings.
        expected: &'static str,
    },
    /// The JSON text is not such a configuration.
    #[error("{what} is not readable: {reason}")]
    Json {
        /// Which configuration.
        what: &'static str,
        /// The parser's words.
        reason: String,
    },
}
