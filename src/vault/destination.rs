//! Where a secret may go: the one decision about that.
//!
//! In: a reference, the hosts that its secret is sealed for (an entry of the embedded vault), and a host without port. Out:
//! nothing, or why not. What must never happen: a secret goes to a host that it is not sealed for, or that the hosts beside
//! its reference do not name.

use super::reference::Reference;

/// Why a secret may not be sent to a host, and what to do if it should be.
#[derive(Debug, thiserror::Error)]
pub enum NotFor {
    /// It is an entry of the embedded vault, sealed for others.
    #[error(
        "{reference} is sealed for {hosts} and may not be sent to {host}; store it again with \
         `mxgate vault set {} --host {host} --config FILE`, if that is meant",
        .reference.place()
    )]
    Sealed {
        /// As configured.
        reference: Reference,
        /// The hosts it is sealed for.
        hosts: String,
        /// Where it would go.
        host: String,
    },
    /// The configuration names others beside its reference.
    #[error(
        "{reference} may not be sent to {host}; its `hosts` do not name it. Add {host} there, if that is meant"
    )]
    Beside {
        /// As configured.
        reference: Reference,
        /// Where it would go.
        host: String,
    },
}

/// Whether the secret of `reference` may be sent to `host`, in any case. `sealed`: the hosts that the embedded vault has
/// sealed it for; `None` for a secret of another source.
///
/// # Errors
/// [`NotFor`].
pub(crate) fn check(reference: &Reference, sealed: Option<&[String]>, host: &str) -> Result<(), NotFor> {
    let names_it = |hosts: &[String]| hosts.iter().any(|one| one.eq_ignore_ascii_case(host));
    let (reference, host) = (reference.clone(), host.to_owned());
    match (reference.hosts(), sealed) {
        (Some(beside), _) if !names_it(beside) => Err(NotFor::Beside { reference, host }),
        (_, Some(hosts)) if !names_it(hosts) => {
            Err(NotFor::Sealed { hosts: hosts.join(", "), reference, host })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_where_both_the_seal_and_the_configuration_let_it_and_nowhere_else() {
        let reference = |hosts: Option<&str>| {
            let plain: Reference = "vault:a".parse().unwrap();
            hosts.map_or(plain.clone(), |host| plain.for_hosts(vec![host.into()]))
        };
        let to = "api.mx.com";
        for (beside, sealed, allowed) in [
            (None, None, true),
            (None, Some("api.mx.com"), true),
            (None, Some("API.MX.COM"), true),
            (Some("api.mx.com"), None, true),
            (Some("api.mx.com"), Some("api.mx.com"), true),
            (None, Some("int-api.mx.com"), false),
            (Some("int-api.mx.com"), None, false),
            (Some("api.mx.com"), Some("int-api.mx.com"), false),
            (Some("int-api.mx.com"), Some("api.mx.com"), false),
            (None, Some("mx.com"), false),
            (None, Some("xapi.mx.com"), false),
        ] {
            let sealed = sealed.map(|host| vec![host.to_owned()]);
            let checked = check(&reference(beside), sealed.as_deref(), to);
            assert_eq!(checked.is_ok(), allowed, "{beside:?} {sealed:?}");
        }
        assert!(check(&reference(None), Some(&[]), to).is_err(), "sealed for no host at all");
    }
}
