//! Each fault beside its yes, and the look of a file with many of them.

use super::{SMALLEST, assert_accepted, assert_fault, lines, parse, with};

#[test]
fn all_faults_are_reported_in_one_run() {
    let text = r#"allow = ["10.1.2.3/8"]
forwarded_header = "x-forwarded"
[[listener]]
adress = "127.0.0.1:8080"
environment = "prodction"
[limits]
body_bytes_max = 99999999999
header_count_max = "64"
[environment.production]
credential = { kind = "basic", client_id = "a:b", api_key = "s3cr3t-v4lue" }
url = "http://api.mx.com"
[log]
filter = "inof"
"#;
    assert_eq!(
        lines(&parse(text)),
        [
            "mxgate.toml:1:1: warning: caller: is absent: nobody is served",
            "mxgate.toml:1:10: allow[0]: has host bits set; write \"10.0.0.0/8\", or one address as \"10.1.2.3/32\"",
            "mxgate.toml:2:20: forwarded_header: unknown value; one of \"x-forwarded-for\", \"forwarded\", \"none\"; \
             did you mean \"x-forwarded-for\"?",
            "mxgate.toml:3:1: listener[0].address: is required; \
             An address and port such as \"127.0.0.1:8080\", or \"unix:/PATH\" (created with mode 0660)",
            "mxgate.toml:4:1: listener[0].adress: unknown key; did you mean \"address\"?",
            "mxgate.toml:5:15: listener[0].environment: is not configured; did you mean \"production\"?",
            "mxgate.toml:7:18: limits.body_bytes_max: is out of bounds; 0 to 1073741824 bytes",
            "mxgate.toml:8:20: limits.header_count_max: is text; expected a whole number of fields, 8 to 100",
            "mxgate.toml:10:44: environment.production.credential.client_id: holds a colon; \
             Basic authentication would split the pair there",
            "mxgate.toml:10:61: environment.production.credential.api_key: is not a reference; \
             write vault:NAME, env:NAME or file:/PATH, or openbao:, aws: or exec:, never the secret itself",
            "mxgate.toml:11:7: environment.production.url: does not start with https://; \
             expected \"https://HOST\" or \"https://HOST:PORT\"",
            "mxgate.toml:13:10: log.filter: holds a word that is no level; did you mean \"info\"?",
        ]
    );
}

#[test]
fn syntax_faults_stand_beside_others_and_hide_only_their_own_lines() {
    let text = "allow = []\nallow = []\n[limits]\nheader_cnt = 1\nbody_bytes_max = s3cr3t\nvalue_of_s3cr3t\n";
    assert_eq!(
        lines(&parse(text)),
        [
            "mxgate.toml:2:1: duplicate key",
            "mxgate.toml:4:1: limits.header_cnt: unknown key; did you mean \"header_count_max\"?",
            "mxgate.toml:5:18: string values must be quoted, expected literal string",
            "mxgate.toml:6:16: key with no value, expected `=`",
        ]
    );
}

#[test]
fn an_unclosed_list_is_one_fault() {
    let text = SMALLEST.replacen("/8\"]", "/8\"", 1);
    assert_eq!(lines(&parse(&text)), ["mxgate.toml:3:1: missing comma between array elements, expected `,`"]);
}

#[test]
fn nothing_required_can_be_left_out() {
    assert_accepted(SMALLEST, &[]);
    for (line, key) in [
        ("allow = [\"127.0.0.0/8\"]", "allow"),
        ("address = \"127.0.0.1:8080\"", "listener[0].address"),
        ("environment = \"production\"", "listener[0].environment"),
        (", client_id = \"CLIENT-ID\"", "environment.production.credential.client_id"),
        (", api_key = \"env:MX_API_KEY\"", "environment.production.credential.api_key"),
        ("kind = \"basic\", ", "environment.production.credential.kind"),
        (
            "credential = { kind = \"basic\", client_id = \"CLIENT-ID\", api_key = \"env:MX_API_KEY\" }",
            "environment.production.credential",
        ),
    ] {
        let result = parse(&with(line, ""));
        let expected = format!(" {key}: is required");
        assert!(result.is_err() && lines(&result)[0].contains(&expected), "{:#?}", lines(&result));
        assert_eq!(lines(&result).len(), 1);
    }
    let empty = lines(&parse(""));
    assert_eq!(empty.len(), 4, "{empty:#?}");
}

#[test]
fn an_empty_or_open_allow_list_is_warned_of() {
    assert_accepted(&with("\"127.0.0.0/8\"", ""), &["warning: allow: is empty: it lets nobody in"]);
    assert_accepted(
        &with("127.0.0.0/8", "0.0.0.0/0"),
        &["warning: allow: holds every address: it lets everybody in"],
    );
}

#[test]
fn a_listener_for_other_machines_without_tls_is_warned_of() {
    let open = with("127.0.0.1:8080", "10.0.0.1:8080");
    let warning = "warning: listener[0].address: is reachable from other machines without TLS; \
                   set tls, or listen on a loopback address or a Unix socket; if neither, list in hosts the names it is \
                   called by, so that no web page reaches it by DNS rebinding";
    assert_accepted(&open, &[warning]);
    let tls = "10.0.0.1:8080\"\ntls = { certificate = \"/c\", key = \"/k\" }#";
    assert_accepted(&with("127.0.0.1:8080\"", &format!("{tls}\"")), &[]);
    assert_accepted(&with("127.0.0.1:8080", "unix:/run/mx.sock"), &[]);
    assert_accepted(&with("127.0.0.1:8080", "[::1]:8080"), &[]);
}

#[test]
fn an_unused_environment_is_warned_of_and_an_unknown_one_is_a_fault() {
    let sandbox = "[environment.sandbox]\ncredential = { kind = \"bearer\", token = \"env:T\" }\n";
    let unused = SMALLEST.to_owned() + sandbox;
    assert_accepted(&unused, &["warning: environment.sandbox: is used by no listener"]);
    assert_fault(
        &with("environment = \"production\"", "environment = \"zebra\""),
        ": listener[0].environment: is not configured; one of \"production\"",
    );
}

#[test]
fn only_what_looks_like_a_credential_and_is_none_can_be_let_through() {
    let passing = |name: &str| format!("{SMALLEST}pass_headers = [\"{name}\"]\n");
    assert_accepted(&passing("X-Continuation-Token"), &[]);
    for (name, fault) in [
        ("Authorization", "is a caller's credential, or leads elsewhere: it never passes"),
        ("MX-API-Key", "is a caller's credential, or leads elsewhere: it never passes"),
        ("X-Request-Id", "is not taken for a credential; leave it out"),
        ("X Y", "is not a header name; letters, digits and -"),
    ] {
        assert_fault(&passing(name), &format!(": environment.production.pass_headers[0]: {fault}"));
    }
}

#[test]
fn no_two_sockets_have_one_address() {
    let second = |address: &str| {
        format!("{SMALLEST}[[listener]]\nenvironment = \"production\"\naddress = \"{address}\"\n")
    };
    assert_accepted(&second("127.0.0.1:8081"), &[]);
    assert_fault(&second("127.0.0.1:8080"), ": listener[1].address: is the same as listener[0].address");
    assert_accepted(&second("127.0.0.1:0").replace(":8080", ":0"), &[]);
    let health = format!("{SMALLEST}[health]\naddress = \"127.0.0.1:8080\"\n");
    assert_fault(&health, ": health.address: is the same as listener[0].address");
    let control = format!("{}[control]\nsocket = \"/run/x\"\n", with("127.0.0.1:8080", "unix:/run/x"));
    assert_fault(&control, ": control.socket: is the same as listener[0].address");
}

#[test]
fn a_secret_belongs_to_one_environment() {
    let sandbox = |reference: &str| {
        let first = SMALLEST.replace(
            "[environment",
            "[[listener]]\naddress = \"127.0.0.1:8081\"\nenvironment = \"sandbox\"\n[environment",
        );
        format!(
            "{first}bearer_operations = {{ token = \"env:MX_API_KEY\" }}\n[environment.sandbox]\ncredential = {{ kind = \"bearer\", token = \"{reference}\" }}\n"
        )
    };
    // Twice in one environment is fine.
    assert_accepted(&sandbox("env:SANDBOX_KEY"), &[]);
    assert_fault(
        &sandbox("env:MX_API_KEY"),
        ": environment.sandbox.credential.token: is the secret that environment.production.credential.api_key uses; \
         a secret belongs to one environment; store one for each",
    );
}

#[test]
fn a_second_key_is_another_secret_of_the_same_environment() {
    let second =
        |reference: &str| with("MX_API_KEY\"", &format!("MX_API_KEY\", secondary_api_key = \"{reference}\""));
    assert_accepted(&second("env:MX_SECONDARY_API_KEY"), &[]);
    assert_fault(
        &second("env:MX_API_KEY"),
        ": environment.production.credential.secondary_api_key: is the same as api_key; \
         expected another place, for a second key",
    );
    assert_fault(
        &with("kind = \"basic\", client_id = \"CLIENT-ID\", api_key =", "kind = \"bearer\", token =")
            .replace("MX_API_KEY\"", "MX_API_KEY\", secondary_api_key = \"env:B\""),
        ": environment.production.credential.secondary_api_key: unknown key; one of \"kind\", \"token\"",
    );
    let elsewhere = format!("{}url = \"https://other.example\"\npaths = [\"GET /x\"]\n", second("env:B"));
    assert_accepted(
        &elsewhere.replace("\"read\"", "\"paths\""),
        &["warning: environment.production.credential.secondary_api_key: is tried and never preferred: \
           a read that confirms it is known of MX's Platform API only"],
    );
}

#[test]
fn a_vault_reference_needs_a_vault_that_something_else_opens() {
    let stored = with("env:MX_API_KEY", "vault:production/api_key");
    let vault = |identity: &str| {
        format!("{stored}[vault]\nkind = \"file\"\npath = \"/v\"\nidentity = \"{identity}\"\n")
    };
    assert_accepted(&vault("file:/id"), &[]);
    assert_fault(
        &vault("vault:id"),
        ": vault.identity: is in the vault that it opens; expected file:/PATH, env:NAME, exec:NAME, \
         openbao:MOUNT/PATH#FIELD or aws:NAME",
    );
    assert_fault(
        &stored,
        ": environment.production.credential.api_key: needs a vault; \
         add a [vault] section, or write env:NAME or file:/PATH",
    );
    // The identity is never sent anywhere, so it is no credential either.
    assert_fault(
        &vault("env:SHARED").replace("vault:production/api_key", "env:SHARED"),
        ": environment.production.credential.api_key: is the secret that vault.identity uses; \
         a secret belongs to one environment; store one for each",
    );
}

#[test]
fn mx_hosts_are_not_swapped_and_have_the_catalogue() {
    let production = |lines: &str| SMALLEST.to_owned() + lines;
    assert_accepted(&production("url = \"https://api.mx.com\"\n"), &[]);
    assert_accepted(&production("url = \"https://127.0.0.1:8443\"\n"), &[]);
    assert_fault(
        &production("url = \"https://int-api.mx.com\"\n"),
        ": environment.production.url: is the host of MX's sandbox, not of its production",
    );
    assert_fault(
        &production("paths = [\"GET /users\"]\n"),
        ": environment.production.paths: cannot stand beside the host of MX's Platform API; \
         leave it out: the catalogue of MX's operations decides there",
    );
    let other = |paths: &str| {
        production(&format!("url = \"https://other.example\"\npaths = {paths}\n"))
            .replace("\"read\"", "\"paths\"")
    };
    assert_accepted(&other("[\"GET /users\", \"GET /users/{id}\"]"), &[]);
    assert_accepted(
        &other("[]"),
        &["warning: environment.production.paths: is empty: nothing may be called here"],
    );
    assert_fault(&other("[\"GET /users/{id}\", \"GET /users/{guid}\"]"), "leave one of them out");
    assert_fault(
        &SMALLEST.replace("production", "elsewhere"),
        ": environment.elsewhere.url: is required; \
         expected \"https://HOST\" or \"https://HOST:PORT\"; only sandbox and production know theirs",
    );
}

#[test]
fn settings_that_cannot_take_effect_are_warned_of() {
    let listener =
        |lines: &str| with("environment = \"production\"", &format!("environment = \"production\"\n{lines}"));
    let warning = "warning: listener[0].proxy_protocol: lets nobody in without trusted_proxies";
    assert_accepted(&listener("proxy_protocol = true"), &[warning]);
    assert_accepted(
        &("trusted_proxies = [\"10.0.0.1/32\"]".to_owned() + &listener("proxy_protocol = true")),
        &[],
    );
    let total =
        |first_byte| format!("{SMALLEST}total_timeout_ms = 1000\nfirst_byte_timeout_ms = {first_byte}\n");
    assert_accepted(&total(1000), &[]);
    let warning = "warning: environment.production.total_timeout_ms: \
                   is shorter than first_byte_timeout_ms, which then never takes effect";
    assert_accepted(&total(1001), &[warning]);
}

#[test]
fn sections_and_lists_of_the_wrong_shape_are_faults() {
    assert_fault("listener = 1", ": listener: is an integer; expected one or more [[listener]] tables");
    assert_fault("listener = []", ": listener: is empty; expected one or more [[listener]] tables");
    assert_fault(
        "environment = 1",
        ": environment: is an integer; expected one or more [environment.NAME] tables",
    );
    assert_fault("[environment]", ": environment: is empty; expected one or more [environment.NAME] tables");
    assert_fault("limits = 1", ": limits: is an integer; expected a table");
    assert_fault("allow = 'x'", ": allow: is text; expected a list of texts");
    assert_fault("vault = 'x'", ": vault: is text; expected a table");
    assert_fault(
        "[environment.A__b]",
        "lower-case letters and digits, joined by single - or _, a letter first",
    );
}

#[test]
fn what_a_grant_cannot_mean_is_a_fault_with_the_nearest_name() {
    let grant = |items: &str| with("[\"read\"]", &format!("[{items}]"));
    let item = ": caller[0].grant.production";
    for (items, expected) in [
        ("\"listUser\"", "[0]: is no class and no operation of MX; did you mean \"listUsers\"?"),
        ("\"raed\"", "[0]: is no class and no operation of MX; did you mean \"read\"?"),
        ("\"read\", \"tag:insight\"", "[1]: is no tag of MX; did you mean \"insights\"?"),
        ("\"bundle:agregation\"", "[0]: is no bundle; did you mean \"aggregation\"?"),
        (
            "\"bundle:x\"",
            "[0]: is no bundle; one of \"aggregation\", \"connect\", \"enrichment\", \"insights\", \
             \"money-management\", \"verification\"",
        ),
        ("\"bundel:connect\"", "[0]: starts with an unknown word before its colon; did you mean \"bundle\"?"),
        (
            "\"path:GET /users/{id}\"",
            "[0]: could also match MX's operation readUser, which decides there; grant that operation instead",
        ),
        (
            "\"read\", \"-path:GET /new\"",
            "[1]: excludes a path that nothing grants; an operation of MX is excluded by its id",
        ),
    ] {
        assert_fault(&grant(items), &format!("{item}{expected}"));
    }
    assert_accepted(&grant("\"bundle:aggregation\", \"path:GET /new/{id}\", \"-method:POST\""), &[]);
    // Places are those of the file, and a list of which nothing could be read is not called empty.
    assert_eq!(lines(&parse(&grant("\"raed\""))).len(), 1);
    let shifted = lines(&parse(&grant("\"raed\", \"read\", \"listUsers\"")));
    assert!(shifted[1].contains("grant.production[2]: adds nothing to \"read\""), "{shifted:#?}");
}

#[test]
fn a_grant_that_does_nothing_is_warned_of() {
    let grant = |items: &str| with("[\"read\"]", &format!("[{items}]"));
    let key = "warning: caller[0].grant.production";
    assert_accepted(&grant(""), &[&format!("{key}: is empty: it allows nothing")]);
    assert_accepted(
        &grant("\"-read\""),
        &[
            &format!("{key}: allows nothing: it only excludes"),
            &format!("{key}[0]: excludes nothing that the other items allow"),
        ],
    );
    let asks = "allows nothing: all that it covers has a sensitive class that is not asked for";
    assert_accepted(&grant("\"read\", \"tag:widgets\""), &[&format!("{key}[1]: {asks}: mints-access")]);
    assert_accepted(&grant("\"read\", \"read\""), &[&format!("{key}[1]: is the same as item 0")]);
    assert_accepted(
        &with("{ production = [\"read\"] }", "{}"),
        &["warning: caller[0].grant: names no environment: this caller may do nothing"],
    );
}
