//! The processor tokens of one environment: each given for a code, once, and good for a while.
//!
//! A code is any text that was not used before, so that tests may make theirs up; MX's are random. (MX's guide for
//! processors: a code is good once, a token for 60 days, and there is no refresh token.)

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    decide::{Problem, Reply},
    keys::random_key,
};

/// Codes and tokens at the same time; beyond it all are forgotten, so that a long run does not grow.
const KEPT_MAX: usize = 10_000;

/// What was given, and for what.
#[derive(Default)]
pub(super) struct Tokens(Mutex<State>);

#[derive(Default)]
struct State {
    used: HashSet<String>,
    given: Vec<Token>,
}

struct Token {
    value: String,
    until: SystemTime,
}

impl Tokens {
    /// Whether `token` is one that is good at `now`.
    pub(super) fn accept(&self, token: &[u8], now: SystemTime) -> bool {
        self.lock().given.iter().any(|one| now < one.until && one.value.as_bytes() == token)
    }

    /// What an operation answers about tokens, in the place of MX's examples in `reply`.
    pub(super) fn answered(
        &self,
        operation: &str,
        query: Option<&str>,
        reply: Reply,
        (now, life): (SystemTime, Duration),
    ) -> Result<Reply, Problem> {
        let random = || {
            let unavailable = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "No random numbers.");
            random_key().ok_or_else(unavailable)
        };
        let put = |reply: Reply, change: &dyn Fn(&mut Value)| {
            let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            change(&mut body);
            Reply { body: body.to_string().into(), ..reply }
        };
        match operation {
            "requestAuthorizationCode" => {
                let code = random()?;
                Ok(put(reply, &|body| body["authorization_code"]["code"] = json!(code)))
            }
            "deprecatedRequestPaymentProcessorAuthorizationCode" => {
                let (code, outer) = (random()?, "payment_processor_authorization_code");
                Ok(put(reply, &|body| body[outer]["authorization_code"] = json!(code)))
            }
            "exchangeProcessorCode" | "exchangePaymentProcessorCode" => {
                let token = random()?;
                self.exchange(code(query)?, token.clone(), now + life)?;
                Ok(put(reply, &|body| {
                    body["access_token"] = json!(token);
                    body["expires_in"] = json!(life.as_secs());
                }))
            }
            "listTokens" => Ok(put(reply, &|body| body["tokens"] = self.list(&body["tokens"][0], now))),
            _ => Ok(reply),
        }
    }

    fn exchange(&self, code: String, value: String, until: SystemTime) -> Result<(), Problem> {
        let mut state = self.lock();
        if state.used.len() >= KEPT_MAX {
            *state = State::default();
        }
        if !state.used.insert(code) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "The code is not valid."));
        }
        state.given.push(Token { value, until });
        Ok(())
    }

    fn list(&self, example: &Value, now: SystemTime) -> Value {
        let one = |token: &Token| {
            let mut item = example.clone();
            item["access_token"] = json!(token.value);
            let until = humantime::format_rfc3339_seconds(token.until).to_string();
            item["expires_at"] = json!(until.replace('Z', "+00:00"));
            item["active"] = json!(now < token.until);
            item
        };
        self.lock().given.iter().map(one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The code of an exchange.
fn code(query: Option<&str>) -> Result<String, Problem> {
    let parameter = |wanted: &str| {
        let mut all = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        all.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    let is_exchange = parameter("grant_type").as_deref() == Some("authorization_code");
    parameter("code").filter(|code| is_exchange && !code.is_empty()).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "The query must be grant_type=authorization_code and a code.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const LIFE: Duration = Duration::from_secs(60);

    fn asked(tokens: &Tokens, operation: &str, query: &str) -> Result<Value, u16> {
        let example = json!({"tokens": [{"payment_processor_guid": "PPR-1"}], "token_type": "Bearer"});
        let reply = Reply { status: StatusCode::OK, media_type: None, body: example.to_string().into() };
        let answered = tokens.answered(operation, Some(query), reply, (NOW, LIFE));
        answered
            .map(|reply| serde_json::from_slice(&reply.body).unwrap())
            .map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_code_is_good_once_and_its_token_until_its_end() {
        let tokens = Tokens::default();
        let exchange = |query| asked(&tokens, "exchangeProcessorCode", query);
        let first = exchange("grant_type=authorization_code&code=one").unwrap();
        assert_eq!((&first["expires_in"], &first["token_type"]), (&json!(60), &json!("Bearer")));
        let token = first["access_token"].as_str().unwrap().as_bytes();
        assert!(tokens.accept(token, NOW + LIFE - Duration::from_secs(1)));
        assert!(!tokens.accept(token, NOW + LIFE) && !tokens.accept(b"another", NOW));
        for wrong in
            ["grant_type=authorization_code&code=one", "code=two", "grant_type=authorization_code", ""]
        {
            assert_eq!(exchange(wrong), Err(400), "{wrong}");
        }
        let other = asked(&tokens, "exchangePaymentProcessorCode", "grant_type=authorization_code&code=two");
        assert_ne!(other.unwrap()["access_token"], first["access_token"]);
    }

    #[test]
    fn the_list_has_what_was_given_and_codes_are_new_each_time() {
        let tokens = Tokens::default();
        assert_eq!(asked(&tokens, "listTokens", "").unwrap()["tokens"], json!([]));
        let given =
            asked(&tokens, "exchangeProcessorCode", "grant_type=authorization_code&code=one").unwrap();
        let expected = json!([{
            "payment_processor_guid": "PPR-1", "access_token": given["access_token"],
            "expires_at": "1970-01-01T00:01:00+00:00", "active": true,
        }]);
        assert_eq!(asked(&tokens, "listTokens", "").unwrap()["tokens"], expected);
        let codes = [(); 2].map(|()| {
            asked(&tokens, "requestAuthorizationCode", "").unwrap()["authorization_code"]["code"].to_string()
        });
        assert!(codes[0].len() > 40 && codes[0] != codes[1], "{codes:?}");
    }
}
