//! Every finding, with its stable code, its weight and the next step. `docs/doctor.md` tells more about each.

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and may not always, or is less safe than it could be.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

macro_rules! findings {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $verdict:ident, $next:literal;)*) => {
        crate::coded::coded! {
            /// What a stage found.
            Finding { $($(#[$doc])* $variant = $code;)* }
        }

        impl Finding {
            /// How bad it is.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }

            /// What to do next; empty when there is nothing to do.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $(Self::$variant => $next,)* }
            }
        }
    };
}

findings! {
    /// As it should be.
    Fine = "fine", Ok, "";

    // This machine.
    /// The kernel refused to switch core dumps off.
    CoreDumps = "core_dumps", Warn, "let the process lower its own limits (LimitCORE=0; no seccomp rule against prctl and setrlimit)";
    /// Secrets could be written to swap.
    MemoryNotLocked = "memory_not_locked", Warn, "switch swap off, or allow the service LimitMEMLOCK=infinity";
    /// The configuration allows more than the system gives.
    Capacity = "capacity", Warn, "lower what the line names, or raise the limit";
    /// A file that others could change or read.
    FileMode = "file_mode", Fail, "chown or chmod it as the line says";
    /// A secret that other users of this machine can read.
    FileReadable = "file_readable", Warn, "chmod 600 it, or mount it with mode 0400";

    // The vault.
    /// The embedded vault does not open.
    VaultClosed = "vault_closed", Fail, "mend what the line names; `mxgate vault verify` looks at the vault alone";
    /// No such entry, variable or file.
    SecretAbsent = "secret_absent", Fail, "store it (`mxgate vault set NAME`), or correct the reference";
    /// It could not be read now.
    SecretUnreadable = "secret_unreadable", Fail, "mend what the line names; the secret may be there";
    /// It is nothing that could be sent.
    SecretUnfit = "secret_unfit", Fail, "store the secret again, exactly as MX shows it, or as the line says";
    /// It is sealed for other hosts.
    SecretWrongHost = "secret_wrong_host", Fail, "if it is meant for this host, store it again with `mxgate vault set --host HOST`";
    /// Two environments at different hosts have the same key. Neither was sent anywhere.
    OtherEnvironmentsKey = "other_environments_key", Fail, "find out whose key it is (MX's dashboard; `mxgate vault list` shows fingerprints) and store the right one for the other";

    // The way.
    /// The name has no address.
    NameNotResolved = "name_not_resolved", Fail, "ask this machine's resolver for it (`getent ahosts HOST`); a network without DNS to the outside needs `proxy`";
    /// It has addresses, but of the other family.
    NoAddressOfFamily = "no_address_of_family", Fail, "leave `ip_family` out, or `bind` to an address of the other family";
    /// It leads to an address that is not of the public internet.
    AddressRefused = "address_refused", Fail, "find out who answers so; if it is meant, write `private_addresses = \"allowed\"`";
    /// `bind` is no address of this machine.
    SourceAddress = "source_address", Fail, "write an address of this machine (`ip address`) as `bind`, or leave it out";
    /// Nothing came back: most likely dropped by a firewall.
    ConnectTimeout = "connect_timeout", Fail, "have the way out opened to this address and port: a firewall, security group or network policy drops it; or configure `proxy`";
    /// Refused.
    ConnectRefused = "connect_refused", Fail, "nothing listens there, or a firewall refuses for it: check `url` and the port, then the way out; or configure `proxy`";
    /// The way was cut.
    ConnectReset = "connect_reset", Fail, "something on the way cuts the connection: a firewall, or a proxy that wants to be asked (`proxy`)";
    /// There is no way.
    ConnectFailed = "connect_failed", Fail, "this machine has no way there: look at its routes and its network";

    // A proxy.
    /// It wants another login.
    ProxyLogin = "proxy_login", Fail, "correct `proxy.username` and the secret that `proxy.password` names";
    /// It does not let us go there.
    ProxyForbidden = "proxy_forbidden", Fail, "have whoever runs the proxy allow CONNECT to this host and port";
    /// It could not go there itself.
    ProxyUnreached = "proxy_unreached", Fail, "look at the proxy's own DNS and way out: the way to it works";
    /// It did something else.
    ProxyFailed = "proxy_failed", Fail, "check that `proxy.url` is an HTTP proxy that takes CONNECT";

    // TLS.
    /// Its files could not be read or used.
    TlsFiles = "tls_files", Fail, "mend the file that the line names (`ca_file`, `client_certificate`, `tls`)";
    /// Issued by somebody who is not trusted: usually a middlebox that looks into TLS.
    TlsInspection = "tls_inspection", Fail, "somebody on the way opens TLS: have this host exempted there. If the issuer is one that you trust for this, name its certificate in `ca_file`";
    /// Past its time.
    CertificateExpired = "certificate_expired", Fail, "compare this machine's clock; if it is right, the host (or who answers for it) has to renew its certificate";
    /// Before its time.
    CertificateNotYetValid = "certificate_not_yet_valid", Fail, "set this machine's clock: it is most likely behind";
    /// For other names.
    WrongName = "wrong_name", Fail, "check `url`, and who answers at this address: it is another host";
    /// None of its keys is pinned.
    NotPinned = "not_pinned", Fail, "if the host has changed its key, which MX confirms, change `pins`; if not, somebody else answers";
    /// The certificate is refused for another reason.
    CertificateRefused = "certificate_refused", Fail, "look at the certificate (`openssl s_client -connect HOST:PORT -showcerts`)";
    /// The connection was cut inside the handshake.
    TlsCut = "tls_cut", Fail, "something on the way lets TCP pass and cuts TLS: a firewall that looks at names, or a proxy that wants to be asked (`proxy`)";
    /// The handshake came to nothing for another reason.
    TlsFailed = "tls_failed", Fail, "check that the host speaks TLS 1.2 or 1.3 at this port, and takes `client_certificate` if it asks for one";
    /// It will not be valid for long.
    ExpiresSoon = "expires_soon", Warn, "the host has to renew its certificate in time";

    // The call.
    /// Nothing is known to be harmless at this API, or it would take a user's token.
    NotTried = "not_tried", Warn, "make a call of your own through the gateway";
    /// Our clock and the host's differ a little.
    ClockDrifts = "clock_drifts", Warn, "have this machine's clock synchronised";
    /// They differ much.
    ClockOff = "clock_off", Fail, "set this machine's clock, and have it synchronised";
    /// 401.
    KeyRefused = "key_refused", Fail, "compare client id and key with MX's dashboard, for this very environment: sandbox and production have keys of their own; was it rotated?";
    /// 403.
    AddressOrFeature = "address_or_feature", Fail, "have MX put the address that you leave from on its allowlist (it may be your NAT's or proxy's), or enable the feature; the key itself was not refused";
    /// 406.
    VersionRefused = "version_refused", Fail, "correct `accept_version`; if it is right, something on the way takes Accept-Version out";
    /// 429.
    RateLimited = "rate_limited", Fail, "wait; then look at `budget` and callers' `limits`, and at who else uses this key or address";
    /// 5xx.
    UpstreamFailed = "upstream_failed", Fail, "MX has trouble, and the way to it works: try again later, and look at MX's status page";
    /// Any other answer.
    UnexpectedAnswer = "unexpected_answer", Fail, "check `url`: what answers there does not behave as MX";
    /// None.
    NoAnswer = "no_answer", Fail, "try again; if it stays so, something on the way cuts or holds back the answer";

    // A provider of tokens.
    /// Nobody is reached there, or whoever answers is not trusted.
    ProviderUnreached = "provider_unreached", Fail, "check this provider's `discovery` or endpoints, and `ca_file`, and whether this machine may go there: providers are asked directly, without `proxy`";
    /// Somebody is reached there, who publishes nothing that can be believed.
    ProviderDocument = "provider_document", Fail, "look at what this provider's `discovery` answers, and compare that, `issuer` and `hosts` with what it documents";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_next_step_and_is_explained() {
        let docs = include_str!("../../docs/doctor.md");
        for finding in Finding::ALL {
            let is_fine = *finding == Finding::Fine;
            assert_eq!(finding.next().is_empty(), is_fine, "{finding:?}");
            assert_eq!(finding.verdict() == Verdict::Ok, is_fine, "{finding:?}");
            assert!(
                docs.contains(&format!("`{}`", finding.code())),
                "docs/doctor.md lacks {}",
                finding.code()
            );
        }
    }
}
