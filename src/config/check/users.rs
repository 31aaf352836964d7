//! What `[[caller]]` says of users: `users`, `users_file` and `[caller.end_user]`.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::Algorithm;

use crate::{
    config::{
        Api, EndUser, FieldPath, KeysAt,
        fault::{Problem, listed},
        walk::{Table, absolute_path},
    },
    mx::catalogue::catalogue,
    policy::grant::{Item, Term},
    users::{self, list::UserPattern},
};

/// Each is compared with every value of an answer.
const MASK_FIELDS_MAX: usize = 100;

/// A caller's users as far as they could be read.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) users: Option<Vec<UserPattern>>,
    pub(super) users_file: Option<PathBuf>,
    pub(super) mask_fields: Vec<FieldPath>,
    /// `Some(None)`: written, and faulty.
    end_user: Option<Option<EndUser>>,
}

impl Draft {
    pub(super) fn read(caller: &Table<'_>) -> Self {
        let item = |text: &str| {
            let malformed = |malformed: users::list::Malformed| Problem::new(malformed.to_string());
            UserPattern::parse(text).map_err(malformed)
        };
        if caller.is_empty_list("users") {
            let problem = Problem::new("is empty: it lets the caller reach nobody");
            caller.fault("users", problem.allowed("leave it out, or list some"));
        }
        if caller.is_empty_list("mask_fields") {
            caller.fault("mask_fields", Problem::new("is empty").allowed("leave it out, or list some"));
        }
        let field = |text: &str| {
            FieldPath::parse(text).map_err(|form| Problem::new("is no path of fields").allowed(form))
        };
        let mask_fields = caller.list("mask_fields", field);
        if mask_fields.len() > MASK_FIELDS_MAX {
            let problem = Problem::new("has too many items").allowed(format!("at most {MASK_FIELDS_MAX}"));
            caller.fault("mask_fields", problem);
        }
        let end_user = caller.section("end_user");
        let read = end_user_of(&end_user);
        Self {
            users: caller.has("users").then(|| caller.list("users", item)),
            users_file: caller.path("users_file"),
            mask_fields,
            end_user: end_user.is_written().then_some(read),
        }
    }

    /// `None` when something is missing, which was reported.
    pub(super) fn end_user(self) -> Option<Option<EndUser>> {
        match self.end_user {
            None => Some(None),
            Some(end_user) => end_user.map(Some),
        }
    }

    /// Whether requests are bound to users at all.
    pub(super) fn binds(&self) -> bool {
        self.users.is_some() || self.users_file.is_some() || self.end_user.is_some()
    }
}

fn end_user_of(table: &Table<'_>) -> Option<EndUser> {
    let header = table.parsed("header", header);
    let issuer = table.parsed("issuer", not_empty);
    let audience = table.parsed("audience", not_empty);
    let jwks = table.parsed("jwks", keys_at);
    let ca_file = table.path("ca_file");
    if ca_file.is_some() && matches!(jwks, Some(KeysAt::File(_))) {
        table.fault("ca_file", "is for jwks at https://, and these are in a file");
    }
    if table.is_empty_list("algorithms") {
        table.fault("algorithms", Problem::new("is empty: no token would be right").allowed("leave it out"));
    }
    let algorithms = match table.has("algorithms") {
        true => table.list("algorithms", algorithm),
        false => vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
    };
    let claim = table.parsed("claim", not_empty);
    let user_map_file = table.path("user_map_file");
    let leeway = Duration::from_secs(table.count("leeway_s"));
    Some(EndUser {
        header: header?,
        issuer: issuer?,
        audience: audience?,
        jwks: jwks?,
        ca_file,
        algorithms,
        claim: claim?,
        user_map_file,
        leeway,
    })
}

fn not_empty(text: &str) -> Result<String, Problem> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

/// Any field that means nothing else, to us or to the upstream.
fn header(text: &str) -> Result<http::HeaderName, Problem> {
    const STARTS: [&str; 7] =
        ["accept", "content-", "if-", "sec-", "access-control-", "x-forwarded", "proxy-"];
    const NAMES: [&str; 21] = [
        "authorization",
        "cookie",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "range",
        "origin",
        "referer",
        "forwarded",
        "via",
        "user-agent",
        "date",
        "cache-control",
        "mx-api-key",
        "mx-client-id",
        "max-forwards",
    ];
    let name = text.parse::<http::HeaderName>().map_err(|_| Problem::new("is no header's name"))?;
    if name.as_str() != text {
        return Err(Problem::new("has capital letters").allowed("write it in small letters"));
    }
    if NAMES.contains(&text) || STARTS.iter().any(|start| text.starts_with(start)) {
        return Err(Problem::new("means something else already")
            .allowed("a field that carries the token and nothing else, such as \"x-mxgate-end-user\""));
    }
    Ok(name)
}

/// What signs with the key that it verifies with is not among them, and neither is `none`.
fn algorithm(text: &str) -> Result<Algorithm, Problem> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    const NAMES: [(&str, Algorithm); 9] = [
        ("RS256", RS256),
        ("RS384", RS384),
        ("RS512", RS512),
        ("PS256", PS256),
        ("PS384", PS384),
        ("PS512", PS512),
        ("ES256", ES256),
        ("ES384", ES384),
        ("EdDSA", EdDSA),
    ];
    let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm);
    // Not the nearest name: of `HS256` that would be another kind of signature.
    let allowed = || format!("one of {}", listed(&NAMES.map(|(name, _)| name)));
    found.ok_or_else(|| Problem::new("is no asymmetric algorithm that is verified here").allowed(allowed()))
}

fn keys_at(text: &str) -> Result<KeysAt, Problem> {
    let form = "expected \"file:/PATH\" or \"https://HOST/PATH\"";
    if let Some(path) = text.strip_prefix("file:") {
        return absolute_path(path).map(KeysAt::File);
    }
    let malformed = || Problem::new("is neither a file nor an https address").allowed(form);
    let uri: http::Uri = text.parse().map_err(|_| malformed())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(malformed)?;
    // `http::Uri` cuts a fragment off without a word.
    if authority.as_str().contains('@') || authority.host().is_empty() || text.contains('#') {
        return Err(malformed());
    }
    // A port that is no number, or none behind its colon.
    let bare = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !bare.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(malformed());
    }
    Ok(KeysAt::Url {
        host: authority.host().to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(443),
        path: uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned(),
    })
}

/// Warns of items of a grant that allow nothing, since the caller is bound to users and they have none.
pub(super) fn useless(caller: &Table<'_>, key: &str, items: &[(usize, Item)], api: &Api) {
    for (index, item) in items.iter().filter(|(_, item)| !item.excludes) {
        let warn = |problem: &str| caller.warn(&format!("{key}[{index}]"), problem);
        match &item.term {
            Term::Operation(_) => {}
            // Under another name the parameter is not seen as the user.
            Term::Path(pattern) => {
                if pattern.template.contains("/users/{") && !users::has_user(&pattern.template) {
                    warn("is bound to no user: call the user's segment {user_guid}");
                }
            }
            term => {
                let templates: Vec<&str> = match api {
                    Api::Platform => {
                        let covered = catalogue().operations().iter().filter(|one| term.covers(one));
                        covered.map(|operation| operation.template).collect()
                    }
                    Api::Paths(listed) => {
                        let covered = listed.iter().filter(|one| term.covers_pattern(one));
                        covered.map(|pattern| pattern.template.as_str()).collect()
                    }
                };
                if !templates.is_empty() && !templates.iter().any(|template| users::has_user(template)) {
                    warn(
                        "allows nothing: the caller is bound to users, and none of these has {user_guid} in its path; \
                         name what is meant one by one",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_a_file_or_at_an_https_address() {
        let url = |host: &str, port, path: &str| KeysAt::Url { host: host.into(), port, path: path.into() };
        for (text, expected) in [
            ("file:/a/jwks.json", KeysAt::File("/a/jwks.json".into())),
            ("https://id.example/.well-known/jwks.json", url("id.example", 443, "/.well-known/jwks.json")),
            ("https://ID.example:8443/a?b=c", url("id.example", 8443, "/a?b=c")),
            ("https://[::1]:1/", url("[::1]", 1, "/")),
            ("https://id.example", url("id.example", 443, "/")),
        ] {
            assert_eq!(keys_at(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "jwks.json",
            "file:a",
            "/a",
            "http://id.example/a",
            "https://",
            "https:///a",
            "https://u:p@id.example/a",
            "https://id.example:0/a",
            "https://id.example:/a",
            "https://id.example/a#b",
            "ftp://id.example",
        ] {
            assert!(keys_at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_asymmetric_algorithms_are_listed() {
        for text in ["RS256", "PS512", "ES384", "EdDSA"] {
            assert!(algorithm(text).is_ok(), "{text}");
        }
        for text in ["none", "None", "HS256", "HS512", "rs256", "ES512", "", "*"] {
            assert!(algorithm(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_header_means_nothing_else() {
        for text in ["x-mxgate-end-user", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion"] {
            assert!(header(text).is_ok(), "{text}");
        }
        for text in
            ["authorization", "cookie", "accept", "content-type", "X-User", "", "a b", "x-forwarded-user"]
        {
            assert!(header(text).is_err(), "{text}");
        }
    }
}
