//! References to secrets, as the configuration holds them: `vault:NAME`, `env:NAME`, `file:/PATH` and the like.
//!
//! In goes text, out comes a [`Reference`]: which kind of source, the place there, perhaps one field of the JSON
//! document at that place (`#field`), and perhaps the hosts that the secret may be sent to. It is a name, never a
//! value, so it may be printed.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

mod aws;

pub(crate) use self::aws::AwsPlace;

/// The longest name of a field.
const FIELD_BYTES_MAX: usize = 128;

/// Where one secret is to be found. A copy costs nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference(Arc<Parts>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    scheme: Scheme,
    place: String,
    field: Option<String>,
    /// Lower case.
    hosts: Option<Vec<String>>,
}

/// Which kind of source a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `vault:production/api_key`: an entry of the embedded vault.
    Vault,
    /// `env:MX_API_KEY`: an environment variable of this process; visible to the process's user.
    Env,
    /// `file:/run/secrets/mx`: the whole content of a file, or a field of it.
    File,
    /// `openbao:secret/mx#api_key`: a field of an entry of the KV engine that is mounted at the first segment.
    OpenBao,
    /// `aws:mx/production#api_key`: a secret of AWS Secrets Manager, or a field of it.
    Aws,
    /// `exec:NAME`: what the command in `[exec.NAME]` prints, or a field of it.
    Exec,
}

/// What one read of a source yields: several references may be fields of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentAt {
    /// The kind of source.
    pub scheme: Scheme,
    /// What stands between the scheme and `#`.
    pub place: String,
}

/// Why a text is not a reference. It never repeats the text, which may be a secret pasted by mistake.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// No known scheme in front: most likely the secret itself.
    #[error(
        "is not a reference; write vault:NAME, env:NAME or file:/PATH, or openbao:, aws: or exec:, never the secret itself"
    )]
    NoScheme,
    /// Nothing, or an unusable name, after the scheme.
    #[error("has no usable name after its scheme; write {0}")]
    BadName(&'static str),
    /// Nothing, or an unusable name, after the `#`.
    #[error("has no usable name of a field after its #; write letters, digits, _, - or .")]
    BadField,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Vault, Self::Env, Self::File, Self::OpenBao, Self::Aws, Self::Exec];

    /// What stands before the colon; metrics name a source's kind so.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Env => "env",
            Self::File => "file",
            Self::OpenBao => "openbao",
            Self::Aws => "aws",
            Self::Exec => "exec",
        }
    }

    /// How its references are written.
    const fn form(self) -> &'static str {
        match self {
            Self::Vault => "vault:NAME",
            Self::Env => "env:NAME or env:NAME#FIELD",
            Self::File => "file:/PATH or file:/PATH#FIELD",
            Self::OpenBao => "openbao:MOUNT/PATH#FIELD",
            Self::Aws => "aws:NAME or aws:ARN, then ?stage=AWSPREVIOUS for the version before, then #FIELD",
            Self::Exec => "exec:NAME or exec:NAME#FIELD",
        }
    }

    /// Whether `place` can stand after the colon.
    fn takes(self, place: &str) -> bool {
        let plain = |extra: &str| {
            !place.is_empty() && place.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        match self {
            Self::Vault => plain("/_-."),
            Self::Env => plain("_"),
            Self::File => place.starts_with('/') && !place.contains('\0'),
            Self::OpenBao => {
                let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
                plain("/_-.") && place.contains('/') && place.split('/').all(is_segment)
            }
            Self::Aws => AwsPlace::of(place).is_some(),
            Self::Exec => plain("_-"),
        }
    }
}

impl Reference {
    /// The whole content of a file.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        let place = path.as_ref().to_string_lossy().into_owned();
        Self(Arc::new(Parts { scheme: Scheme::File, place, field: None, hosts: None }))
    }

    /// The same secret, to be sent to these hosts (lower case) and no others.
    #[must_use]
    pub fn for_hosts(self, hosts: Vec<String>) -> Self {
        Self(Arc::new(Parts { hosts: Some(hosts), ..Parts::clone(&self.0) }))
    }

    /// Which kind of source has it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// What stands between the scheme and `#`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Which text field of the JSON document at that place is meant; `None`: all of it.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The hosts that stand beside it, lower case.
    #[must_use]
    pub fn hosts(&self) -> Option<&[String]> {
        self.0.hosts.as_deref()
    }

    /// What is read for it.
    #[must_use]
    pub fn document(&self) -> DocumentAt {
        DocumentAt { scheme: self.0.scheme, place: self.0.place.clone() }
    }

    /// The file that it is read from, where that is one.
    #[must_use]
    pub fn as_file(&self) -> Option<PathBuf> {
        (self.0.scheme == Scheme::File).then(|| PathBuf::from(&self.0.place))
    }

    /// Whether the other names the same secret, wherever the two may be sent.
    #[must_use]
    pub fn is_same_secret(&self, other: &Self) -> bool {
        (self.scheme(), self.place(), self.field()) == (other.scheme(), other.place(), other.field())
    }
}

impl FromStr for Reference {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (scheme, rest) = text.split_once(':').ok_or(Malformed::NoScheme)?;
        let scheme = Scheme::ALL.into_iter().find(|one| one.name() == scheme).ok_or(Malformed::NoScheme)?;
        let malformed = Malformed::BadName(scheme.form());
        // An entry of the embedded vault is one secret, and has no fields.
        let (place, field) = match rest.rsplit_once('#') {
            Some((place, field)) if scheme != Scheme::Vault => (place, Some(field)),
            _ => (rest, None),
        };
        if !scheme.takes(place) || (scheme == Scheme::OpenBao && field.is_none()) {
            return Err(malformed);
        }
        if !field.is_none_or(is_field) {
            return Err(Malformed::BadField);
        }
        let (place, field) = (place.to_owned(), field.map(str::to_owned));
        Ok(Self(Arc::new(Parts { scheme, place, field, hosts: None })))
    }
}

fn is_field(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.len() <= FIELD_BYTES_MAX && name.bytes().all(is_plain)
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme().name(), self.place())?;
        self.field().iter().try_for_each(|field| write!(f, "#{field}"))
    }
}

impl fmt::Display for DocumentAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme.name(), self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_schemes_parse_and_print_the_same() {
        for text in [
            "vault:production/api_key",
            "env:MX_API_KEY",
            "env:MX#api_key",
            "file:/run/secrets/mx",
            "file:/run/secrets/mx.json#api.key",
            "openbao:secret/team/mx#api-key",
            "aws:mx/production",
            "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:mx-AbCdEf#api_key",
            "aws:mx/production?stage=AWSPREVIOUS#api_key",
            "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:mx-AbCdEf?stage=AWSPREVIOUS",
            "exec:mx-key",
            "exec:mx#key",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_literal_or_an_empty_name_is_refused() {
        for text in ["s3cr3t-value", "http://x", "", "VAULT:a", "#a"] {
            assert_eq!(text.parse::<Reference>(), Err(Malformed::NoScheme), "{text}");
        }
        for text in [
            "vault:",
            "vault:a#b",
            "env:A B",
            "file:relative",
            "openbao:secret/mx",
            "openbao:mx#a",
            "openbao:/secret/mx#a",
            "openbao:secret//mx#a",
            "openbao:secret/../mx#a",
            "openbao:secret/mx?x#a",
            "aws:",
            "aws:mx?stage=AWSCURRENT",
            "aws:mx#a?stage=AWSPREVIOUS#b",
            "exec:/bin/true",
        ] {
            assert!(matches!(text.parse::<Reference>(), Err(Malformed::BadName(_))), "{text}");
        }
        for text in ["file:/a#", "env:A#b c", "exec:a#ä"] {
            assert_eq!(text.parse::<Reference>(), Err(Malformed::BadField), "{text}");
        }
    }

    #[test]
    fn the_same_secret_is_the_same_whatever_hosts_stand_beside_it() {
        let parse = |text: &str| text.parse::<Reference>().unwrap();
        let one = parse("file:/a#b");
        let other = one.clone().for_hosts(vec!["api.mx.com".into()]);
        assert!(one.is_same_secret(&other) && one != other);
        assert!(!one.is_same_secret(&parse("file:/a#c")) && !one.is_same_secret(&parse("file:/a")));
        assert_eq!(one.document(), parse("file:/a#c").document());
    }
}
