//! One harmless call, and what its answer means.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::{Part, finding::Finding, network::Connected, secrets::Key};
use crate::{
    limits::retry_after,
    upstream::errand::{Addressee, Errand, Heard, Word},
};

/// From here on signatures and tokens with times in them begin to fail.
const OFF: Duration = Duration::from_secs(300);

/// `Date` has whole seconds, and an answer takes its time.
const DRIFTS: Duration = Duration::from_secs(30);

/// Makes the call and reports what came of it.
pub(super) async fn call(connected: Connected, key: &Key, part: &mut Part<'_>) {
    let environment = part.environment;
    let Some(errand) = Errand::read(environment.api.kind()) else {
        let said = "no call of this API is known to be harmless; the way to it works";
        part.add("call", Finding::NotTried, said);
        return;
    };
    let Connected { target, stream, from } = connected;
    let began = Instant::now();
    let (version, limit) = (environment.accept_version.as_str(), environment.timeouts.first_byte);
    let to = Addressee { authority: &target.authority, accept_version: version };
    let heard = match errand.run(stream, to, &key.credential, limit).await {
        Ok(heard) => heard,
        Err(failure) => {
            let said = format!("{} got no proper answer ({})", errand.shown(), failure.code());
            part.add("call", Finding::NoAnswer, said);
            return;
        }
    };
    let took = began.elapsed();
    clock(&heard.fields, SystemTime::now(), took, part);
    let from = match (&environment.egress.proxy, from) {
        (Some(_), _) => "the proxy's address".to_owned(),
        (None, Some(from)) => format!("{}, or what a NAT makes of it", from.ip()),
        (None, None) => "this machine".to_owned(),
    };
    let (finding, said) = meaning(&heard, version, &key.shown, &from);
    let said =
        format!("{} was answered {} in {} ms{said}", errand.shown(), heard.status.as_u16(), took.as_millis());
    part.add("call", finding, said);
}

/// Says that none is made where requests carry a provider's tokens: those are users', or would have to be asked for.
pub(super) fn of_a_user(part: &mut Part<'_>) {
    let providers: Vec<&str> = part.environment.oauth().map(|(_, provider, _)| provider).collect();
    let said = format!(
        "requests here carry tokens of provider {}: none was made with one, nor was one asked for; the way to the host \
         works",
        providers.join(", ")
    );
    part.add("call", Finding::NotTried, said);
}

/// What a status says at MX.
fn meaning(heard: &Heard, version: &str, key: &str, from: &str) -> (Finding, String) {
    match (heard.word(), heard.status) {
        (Word::Refused, _) => (Finding::KeyRefused, format!(": the key was not taken ({key})")),
        (Word::Known, StatusCode::FORBIDDEN) => (
            Finding::AddressOrFeature,
            format!(
                ": the key was taken, and MX does not let this address or client do it (we left from {from})"
            ),
        ),
        (Word::Known, StatusCode::NOT_ACCEPTABLE) => (
            Finding::VersionRefused,
            format!(": no version that MX takes came with it (Accept-Version: {version} was sent)"),
        ),
        (Word::Nothing, StatusCode::TOO_MANY_REQUESTS) => {
            let wait = retry_after::read(&heard.fields, SystemTime::now()).map(retry_after::seconds);
            let wait = wait.map_or(String::new(), |seconds| format!(" (Retry-After: {seconds} s)"));
            (Finding::RateLimited, format!(": too much was asked from this address or with this key{wait}"))
        }
        (Word::Answered, _) => (Finding::Fine, format!(" ({key})")),
        (_, status) if status.is_server_error() => (Finding::UpstreamFailed, ": MX has trouble".to_owned()),
        _ => (Finding::UnexpectedAnswer, ", which MX does not answer to this".to_owned()),
    }
}

/// Compares our clock with the answer's `Date`, which was written some time during `took`.
fn clock(fields: &HeaderMap, now: SystemTime, took: Duration, part: &mut Part<'_>) {
    let date = fields.get(header::DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        part.add("clock", Finding::Fine, "the answer has no date to compare with");
        return;
    };
    let (off, word) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead.saturating_sub(took), "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let finding = match off {
        _ if off >= OFF => Finding::ClockOff,
        _ if off >= DRIFTS => Finding::ClockDrifts,
        _ => Finding::Fine,
    };
    let said = match finding {
        Finding::Fine => "this machine's clock and the host's agree".to_owned(),
        _ => format!("this machine's clock is {} s {word} the host's", off.as_secs()),
    };
    part.add("clock", finding, said);
}
