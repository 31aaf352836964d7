//! The caller's address behind trusted proxies, from whatever header lines.
//!
//! One byte chooses the header and who connects; each line of the rest is one header line. Claimed: nobody
//! but a trusted proxy is believed; the address that counts stands in the header, with nothing but trusted
//! proxies to its right; what stands left of it, and how lines are joined, makes no difference; and what a
//! proxy appends about its own caller always counts.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue};

use super::split_choices;
use crate::{
    config::ForwardedHeader,
    listener::forwarded::{Malformed, caller},
};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn is_trusted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[0] == 0x2001,
    }
}

pub(super) fn check(input: &[u8]) {
    let ([choice], text) = split_choices(input);
    let which = if choice & 1 == 0 { ForwardedHeader::XForwardedFor } else { ForwardedHeader::Forwarded };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if !lines.iter().all(|line| HeaderValue::from_bytes(line).is_ok()) {
        return;
    }
    assert_eq!(read(STRANGER, which, &lines), Ok(STRANGER), "nobody else is believed");
    assert_eq!(read(PROXY, ForwardedHeader::None, &lines), Ok(PROXY));
    let verdict = read(PROXY, which, &lines);
    if let Err(fault) = claims(which, &lines, verdict) {
        panic!("{fault}: {verdict:?} from {:?}", text.escape_ascii().to_string());
    }
}

/// All claims about `verdict`, which was read from `lines` of a trusted proxy.
pub(super) fn claims(
    which: ForwardedHeader,
    lines: &[&[u8]],
    verdict: Result<IpAddr, Malformed>,
) -> Result<(), &'static str> {
    if let Ok(address) = verdict
        && !stands_there(address, which, lines)
    {
        return Err("another address counts than the rightmost that is no trusted proxy's");
    }
    if read(PROXY, which, &[&lines.join(&b","[..])]) != verdict {
        return Err("joined lines are read in another way");
    }
    let left = [&[&b"unknown\", for=\"_x"[..]], lines].concat();
    if verdict.is_ok_and(|address| !is_trusted(address)) && read(PROXY, which, &left) != verdict {
        return Err("what stands left of the caller counts");
    }
    for appended in [STRANGER, "2a00::7".parse().unwrap()] {
        let element = match (which, appended) {
            (ForwardedHeader::Forwarded, IpAddr::V6(_)) => format!("for=\"[{appended}]:80\";proto=https"),
            (ForwardedHeader::Forwarded, IpAddr::V4(_)) => format!("for={appended}"),
            _ => appended.to_string(),
        };
        let [before @ .., last] = lines else { return Err("no lines") };
        let line = [last, &b", "[..], element.as_bytes()].concat();
        let (joined, own_line) = ([before, &[&line]].concat(), [lines, &[element.as_bytes()]].concat());
        if [joined, own_line].iter().any(|lines| read(PROXY, which, lines) != Ok(appended)) {
            return Err("what the proxy appended does not count");
        }
    }
    Ok(())
}

/// From the right: trusted proxies, and then this address (or the end, when it is trusted as well).
fn stands_there(address: IpAddr, which: ForwardedHeader, lines: &[&[u8]]) -> bool {
    let all = lines.join(&b","[..]);
    let all = String::from_utf8_lossy(&all);
    let mut seen = Vec::new();
    for element in all.rsplit(',') {
        let text = match which {
            ForwardedHeader::Forwarded => {
                let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
                let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
                match (named.next(), named.next()) {
                    (Some((_, value)), None) => value.trim().trim_matches('"'),
                    _ => return false,
                }
            }
            _ => element.trim(),
        };
        let Some(one) = plain_address(text) else { return false };
        if one == address && !is_trusted(one) {
            return true;
        }
        if !is_trusted(one) {
            return false;
        }
        seen.push(one);
    }
    seen.last() == Some(&address)
}

/// The address without brackets and port.
fn plain_address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

pub(super) fn read(socket: IpAddr, which: ForwardedHeader, lines: &[&[u8]]) -> Result<IpAddr, Malformed> {
    let name = match which {
        ForwardedHeader::Forwarded => "forwarded",
        _ => "x-forwarded-for",
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_bytes(line).map_err(|_| Malformed)?);
    }
    caller(socket, &headers, is_trusted, which)
}
