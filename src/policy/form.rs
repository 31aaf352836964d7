//! Bodies that are forms, which MX's Platform API never takes.
//!
//! Common web frameworks read a parameter `_method` in a form as the method: a `POST` that was granted would be run as a
//! `DELETE`. Every body in MX's OpenAPI documents is JSON (`application/json`, and in v20111101 also
//! `application/vnd.mx.api.v1+json`), so a form is refused. Some frameworks also take a body without a type for a
//! form, so one that comes without gets MX's type, see `upstream::headers`.

use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};

/// Whether there is a body that any server could take for a form, by any value of `Content-Type`. An empty one is as
/// none to some. (Axios, and so MX's SDK for Node, names a form on every `POST` without a body.)
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    has_body
        && headers.get_all(CONTENT_TYPE).iter().any(|value| {
            let mut words = value.as_bytes().split(|byte| matches!(byte, b',' | b';' | b' ' | b'\t'));
            value.as_bytes().trim_ascii().is_empty()
                || words.any(|word| {
                    starts(word, b"application/x-www-form-urlencoded") || starts(word, b"multipart/")
                })
        })
}

fn starts(word: &[u8], with: &[u8]) -> bool {
    word.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn forms_are_told_from_json_however_they_are_written() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("7"))]);
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            is_form(&headers)
        };
        for json in [
            &[][..],
            &["application/json"],
            &["application/vnd.mx.api.v1+json; charset=utf-8"],
            &["text/plain"],
            &["application/json; x=application/x-www-form-urlencoded"],
        ] {
            assert!(!of(json), "{json:?}");
        }
        for form in [
            &["application/x-www-form-urlencoded"][..],
            &["Application/X-WWW-Form-URLencoded;charset=utf-8"],
            &["multipart/form-data; boundary=x"],
            &["multipart/mixed"],
            &["application/json, application/x-www-form-urlencoded"],
            &["application/json; multipart/form-data"],
            &["application/json", "multipart/form-data"],
            &[" multipart/form-data"],
            &[""],
        ] {
            assert!(of(form), "{form:?}");
        }
        let form = (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        for (field, value, expected) in
            [(CONTENT_LENGTH, "0", false), (CONTENT_LENGTH, "1", true), (TRANSFER_ENCODING, "chunked", true)]
        {
            let headers = HeaderMap::from_iter([form.clone(), (field, HeaderValue::from_static(value))]);
            assert_eq!(is_form(&headers), expected, "{value}");
        }
        assert!(!is_form(&HeaderMap::from_iter([form])), "there is no body");
    }
}
