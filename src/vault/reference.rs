//! References to secrets, as the configuration holds them: `vault:NAME`, `env:NAME`, `file:PATH`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where one secret is to be found. It is a name, never a value, so it may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// `vault:production/api_key`: an entry of the configured vault.
    Vault(String),
    /// `env:MX_API_KEY`: an environment variable of this process; visible to the process's user.
    Env(String),
    /// `file:/run/secrets/mx`: the whole content of a file.
    File(PathBuf),
}

/// Why a text is not a reference. It never repeats the text, which may be a secret pasted by mistake.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// No known scheme in front: most likely the secret itself.
    #[error("is not a reference; write vault:NAME, env:NAME or file:/PATH, never the secret itself")]
    NoScheme,
    /// Nothing, or an unusable name, after the scheme.
    #[error("has no usable name after its scheme; write vault:NAME, env:NAME or file:/PATH")]
    BadName,
}

impl FromStr for Reference {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (scheme, name) = text.split_once(':').ok_or(Malformed::NoScheme)?;
        let plain = |extra: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        match scheme {
            "vault" if plain("/_-.") => Ok(Self::Vault(name.to_owned())),
            "env" if plain("_") => Ok(Self::Env(name.to_owned())),
            "file" if name.starts_with('/') && !name.contains('\0') => Ok(Self::File(name.into())),
            "vault" | "env" | "file" => Err(Malformed::BadName),
            _ => Err(Malformed::NoScheme),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vault(name) => write!(f, "vault:{name}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_schemes_parse_and_print_the_same() {
        for text in ["vault:production/api_key", "env:MX_API_KEY", "file:/run/secrets/mx"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_literal_or_an_empty_name_is_refused() {
        for text in ["s3cr3t-value", "http://x", ""] {
            assert_eq!(text.parse::<Reference>(), Err(Malformed::NoScheme), "{text}");
        }
        for text in ["vault:", "env:A B", "file:relative"] {
            assert_eq!(text.parse::<Reference>(), Err(Malformed::BadName), "{text}");
        }
    }
}
