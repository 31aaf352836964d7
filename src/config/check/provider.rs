//! `[provider.NAME]`.

use std::collections::BTreeMap;

use super::environment::is_name;
use crate::config::{
    ClientAuthentication, Endpoint, Endpoints, Provider, ProviderPlace,
    fault::Problem,
    walk::{Table, shown_key},
};
use crate::tree::tree;

const URL: &str = "expected \"https://HOST/PATH\", with http:// only for localhost and loopback addresses";

/// The protocol's own parameters: who could set them could undo what protects it.
const OWN: [&str; 24] = [
    "access_token",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_type",
    "nonce",
    "password",
    "redirect_uri",
    "refresh_token",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
    "username",
];

/// Where the two kinds of well-known documents are.
const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// Every provider, by name; `None` for one with a fault.
pub(super) fn all(file: &Table<'_>) -> BTreeMap<String, Option<Provider>> {
    let one = |(name, table): (&str, Table<'_>)| (name.to_owned(), one(file, name, &table));
    tree(file.named("provider").into_iter().map(one))
}

fn one(file: &Table<'_>, name: &str, table: &Table<'_>) -> Option<Provider> {
    if !is_name(name) {
        let form = "lower-case letters and digits, joined by single - or _, a letter first";
        file.fault(&format!("provider.{name}"), Problem::new("has a name of another form").allowed(form));
    }
    let place = place(table);
    let client_id = table.parsed("client_id", visible);
    let client_secret = table.reference("client_secret");
    let client_authentication = match table.choice("client_authentication") {
        "client_secret_post" => ClientAuthentication::Post,
        _ => ClientAuthentication::Basic,
    };
    let redirect_uri = table.parsed("redirect_uri", |text| endpoint(text).map(|_| text.to_owned()));
    let (scopes, audience) = (table.list("scopes", scope), table.parsed("audience", visible));
    let resource = table.parsed("resource", resource);
    let authorization_parameters = parameters(table, "authorization_parameters");
    let token_parameters = parameters(table, "token_parameters");
    let ca_file = table.path("ca_file");
    let (connect_timeout, read_timeout) =
        (table.millis("connect_timeout_ms"), table.millis("read_timeout_ms"));
    let reuse_grace = table.millis("reuse_grace_ms");
    let place = place?;
    if let ProviderPlace::Written(Endpoints { authorization: Some(_), .. }) = &place
        && !table.has("redirect_uri")
    {
        let problem = Problem::new("is needed where users consent");
        table.fault("redirect_uri", problem.allowed("write it as it is registered at the provider"));
    }
    check_hosts(table, &place, client_secret.as_ref()?.hosts());
    Some(Provider {
        name: name.to_owned(),
        place,
        client_id: client_id?,
        client_secret: client_secret?,
        client_authentication,
        scopes,
        audience,
        resource,
        authorization_parameters,
        token_parameters,
        redirect_uri,
        reuse_grace,
        ca_file,
        connect_timeout,
        read_timeout,
    })
}

/// Either a document or endpoints, of which a document would say others.
fn place(table: &Table<'_>) -> Option<ProviderPlace> {
    const WRITTEN: [&str; 3] = ["authorization_endpoint", "token_endpoint", "revocation_endpoint"];
    let issuer = table.parsed("issuer", visible);
    let [authorization, token, revocation] = WRITTEN.map(|name| table.parsed(name, endpoint));
    let url = table.parsed("discovery", endpoint);
    let mut hosts = table.list("hosts", host);
    if !table.has("discovery") {
        if !table.has("token_endpoint") {
            let problem = Problem::new("is required without discovery");
            table.fault("token_endpoint", problem.allowed(URL));
        }
        if table.has("hosts") {
            table.fault("hosts", Problem::new("is for discovery, and there is none"));
        }
        return Some(ProviderPlace::Written(Endpoints {
            issuer,
            names_itself: false,
            authorization,
            token: token?,
            revocation,
        }));
    }
    for name in WRITTEN.iter().filter(|name| table.has(name)) {
        table.fault(name, Problem::new("is said by the document of discovery").allowed("write one of both"));
    }
    let url = url?;
    hosts.push(url.host.clone());
    let Some(issuer) = issuer.or_else(|| issuer_of(&url)) else {
        let problem = Problem::new("is needed: the URL of discovery does not end in a well-known path");
        table.fault("issuer", problem.allowed("what the document calls itself"));
        return None;
    };
    Some(ProviderPlace::Discovered { url, issuer, hosts })
}

/// Who is at `https://HOST/PATH/.well-known/openid-configuration` or `https://HOST/.well-known/oauth-authorization-server/PATH`.
fn issuer_of(url: &Endpoint) -> Option<String> {
    let target = url.target.strip_suffix(OPENID).or_else(|| url.target.strip_prefix(OAUTH))?;
    let shown = Endpoint { target: "/".into(), ..url.clone() }.to_string();
    Some(format!("{}{target}", shown.trim_end_matches('/')))
}

/// A secret that may be sent to certain hosts only is sent to the token endpoint or nowhere.
fn check_hosts(table: &Table<'_>, place: &ProviderPlace, beside: Option<&[String]>) {
    let Some(beside) = beside else { return };
    let fits = match place {
        ProviderPlace::Written(endpoints) => beside.contains(&endpoints.token.host),
        ProviderPlace::Discovered { hosts, .. } => hosts.iter().any(|host| beside.contains(host)),
    };
    if !fits {
        let problem = Problem::new("may not be sent to the provider");
        table.fault("client_secret.hosts", problem.allowed("expected the token endpoint's host among them"));
    }
}

fn parameters(table: &Table<'_>, name: &str) -> BTreeMap<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let mut found = BTreeMap::new();
    for (key, value) in table.named_texts(name) {
        let path = format!("{name}.{}", shown_key(key));
        if OWN.contains(&key) {
            let problem = Problem::new("is a parameter of the protocol");
            table.fault(&path, problem.allowed("it has a key of its own, or is set by the gateway alone"));
        } else if key.is_empty() || !key.bytes().all(is_name) {
            table.fault(
                &path,
                Problem::new("is no name of a parameter").allowed("letters, digits, _, - and ."),
            );
        } else if value.is_empty() || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            table.fault(&path, Problem::new("is empty, or holds a byte that is not printable ASCII"));
        } else {
            found.insert(key.to_owned(), value.to_owned());
        }
    }
    found
}

fn endpoint(text: &str) -> Result<Endpoint, Problem> {
    Endpoint::parse(text).map_err(|fault| Problem::new(fault.to_string()).allowed(URL))
}

fn host(text: &str) -> Result<String, Problem> {
    let malformed = Problem::new("is no host name").allowed("a name or an address, without scheme and port");
    match Endpoint::parse(&format!("https://{text}/")) {
        Ok(Endpoint { host, .. }) if host.eq_ignore_ascii_case(text) => Ok(host),
        _ => Err(malformed),
    }
}

/// RFC 6749, 3.3.
pub(super) fn scope(text: &str) -> Result<String, Problem> {
    let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    match !text.is_empty() && text.bytes().all(legal) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no scope").allowed("one word of printable ASCII, without \" and \\")),
    }
}

/// RFC 8707, 2: an absolute URI without a fragment.
fn resource(text: &str) -> Result<String, Problem> {
    let text = visible(text)?;
    match text.contains(':') && !text.contains('#') {
        true => Ok(text),
        false => Err(Problem::new("is no absolute URI").allowed("a scheme, a colon and what follows, no #")),
    }
}

pub(super) fn visible(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is empty, or holds a blank or a byte that is not ASCII")),
    }
}
