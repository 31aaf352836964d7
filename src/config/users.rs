//! What `[[caller]]` says of users.

use std::{fmt, path::PathBuf, time::Duration};

use jsonwebtoken::Algorithm;

/// `[caller.end_user]`: the caller sends its end user's JSON Web Token with each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUser {
    /// The field that carries the token and nothing else. It never leaves the gateway. Default `x-mxgate-end-user`.
    pub header: http::HeaderName,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or hold.
    pub audience: String,
    /// Where the issuer's keys are.
    pub jwks: KeysAt,
    /// PEM file that replaces the system's roots for fetching `jwks`; reloaded when it changes.
    pub ca_file: Option<PathBuf>,
    /// Asymmetric ones only. Default RS256, PS256, ES256, EdDSA.
    pub algorithms: Vec<Algorithm>,
    /// The claim that says who the user is. Default `sub`.
    pub claim: String,
    /// A file with a value of the claim, a tab and the user's guid a line; without it the claim is the guid.
    pub user_map_file: Option<PathBuf>,
    /// By how much clocks may differ, for `exp` and `nbf`. Default 30 s, 0 to 5 min.
    pub leeway: Duration,
}

/// One of `mask_fields`: names that lead to a value, the last of them the value's own, wherever they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(
    /// At least one; `None` stands for any name.
    Vec<Option<String>>,
);

impl FieldPath {
    /// Reads `account_number` or `owner.*`.
    ///
    /// # Errors
    /// What a path looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "expected names joined by dots, such as \"account_number\" or \"owner.*\", 8 at most";
        let name = |name: &str| match name {
            "*" => Some(None),
            "" => None,
            _ if name.contains('*') => None,
            name => Some(Some(name.to_owned())),
        };
        let names: Option<Vec<_>> = text.split('.').map(name).collect();
        names.filter(|names| names.len() <= 8 && names.iter().any(Option::is_some)).map(Self).ok_or(FORM)
    }

    /// Whether the last of `names` are this path.
    pub(crate) fn ends(&self, names: &[impl AsRef<str>]) -> bool {
        let Some(start) = names.len().checked_sub(self.0.len()) else { return false };
        let last = names.get(start..).unwrap_or_default();
        self.0.iter().zip(last).all(|(path, name)| path.as_ref().is_none_or(|path| path == name.as_ref()))
    }
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysAt {
    /// `file:/PATH`; reloaded when it changes.
    File(PathBuf),
    /// `https://HOST[:PORT]/PATH`; fetched by the control plane.
    Url {
        /// A DNS name or an address.
        host: String,
        /// Default 443.
        port: u16,
        /// With its query.
        path: String,
    },
}

impl fmt::Display for KeysAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            // A query may hold what is nobody's business.
            Self::Url { host, port, path } => {
                write!(f, "https://{host}:{port}{}", path.split('?').next().unwrap_or_default())
            }
        }
    }
}

impl super::Caller {
    /// Every file whose change may change what it may do.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_end_user = self.end_user.iter().flat_map(|end_user| {
            let keys = match &end_user.jwks {
                KeysAt::File(path) => Some(path),
                KeysAt::Url { .. } => None,
            };
            [keys, end_user.ca_file.as_ref(), end_user.user_map_file.as_ref()]
        });
        std::iter::once(self.users_file.as_ref()).chain(of_end_user).flatten()
    }
}
