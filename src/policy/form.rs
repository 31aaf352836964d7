//! Bodies that are forms, which MX's Platform API never takes.
//!
//! Common web frameworks read a parameter `_method` in a form as the method: a `POST` that was granted would be run as a
//! `DELETE`. Every body in MX's OpenAPI documents is JSON (`application/json`, and in v20111101 also
//! `application/vnd.mx.api.v1+json`), so a form is refused. Some frameworks also take a body without a type for a
//! form, so one that comes without gets MX's type, see `upstream::headers`.

use http::{HeaderMap, header::CONTENT_TYPE};

/// Whether any server could take the body for a form, by any value of `Content-Type`. An empty one is as none to some.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        let mut words = value.as_bytes().split(|byte| matches!(byte, b',' | b';' | b' ' | b'\t'));
        value.as_bytes().trim_ascii().is_empty()
            || words
                .any(|word| starts(word, b"application/x-www-form-urlencoded") || starts(word, b"multipart/"))
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
            let mut headers = HeaderMap::new();
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
    }
}
