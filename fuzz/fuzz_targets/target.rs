//! A path and query: `http::Uri` cuts where we cut, and no credential is left in the query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mxgate::policy::target::Target;

fuzz_target!(|text: &str| {
    let Ok(target) = Target::parse(text) else { return };
    let uri: http::Uri = text.parse().unwrap();
    assert_eq!((uri.path(), uri.query()), (target.path(), target.query()));
    let left = target.without(&["api_key"]).into_owned();
    let again = Target::parse(&left).unwrap();
    assert_eq!(again.without(&["api_key"]), left);
    assert!(!again.query().unwrap_or_default().split('&').any(|one| one.starts_with("api_key=")));
});
