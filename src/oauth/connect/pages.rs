//! The pages that a user sees. No script, no picture, nothing of anybody else's; one style, which the policy names by its
//! digest. They work without that style, too.
//!
//! In: names and scopes of the configuration, and what happened. Out: HTML. `maud` escapes every value.
//!
//! What must never happen: a page shows what a provider or a browser sent.

use std::sync::LazyLock;

use aws_lc_rs::digest::{self, SHA256};
use axum::http::HeaderValue;
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Failure, record::Order};
use crate::oauth::connection::Purpose;

/// What the policy lets a page's form do.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// There is none.
    None,
    /// It is sent here. Its answer is a page and no redirect: browsers would ask this policy for every URL that the
    /// provider redirects to, and nobody here knows those.
    Ours,
}

/// What browsers are to hold a page to.
pub(super) fn policy(form: Form) -> HeaderValue {
    fn with(form: &str) -> Option<HeaderValue> {
        let digest = BASE64.encode(digest::digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{digest}'; form-action {form}; base-uri 'none'; frame-ancestors 'none'"
        );
        HeaderValue::try_from(policy).ok()
    }
    static POLICIES: LazyLock<[Option<HeaderValue>; 2]> = LazyLock::new(|| ["'none'", "'self'"].map(with));
    let policy = match form {
        Form::None => &POLICIES[0],
        Form::Ours => &POLICIES[1],
    };
    policy.clone().unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

const STYLE: &str = "
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1b1f; --soft: #54545c; --main: #0b57d0; --on: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --back: #17171a; --text: #ededf0; --soft: #b3b3bd; --main: #a8c7fa; --on: #062e6f; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 1.125rem/1.6 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 36rem; margin: 0 auto; padding: clamp(1.5rem, 8vh, 5rem) 1.25rem; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1.25rem; }
p, ul { margin: 0 0 1.25rem; }
code { font: 0.95em ui-monospace, Menlo, Consolas, monospace; }
.soft { color: var(--soft); font-size: 1rem; margin-top: 2.5rem; }
.button { display: inline-block; min-height: 2.75rem; padding: 0.6rem 1.4rem; border: 0; border-radius: 0.5rem;
  background: var(--main); color: var(--on); font: inherit; font-weight: 600; text-decoration: none; cursor: pointer; }
.button:focus-visible { outline: 3px solid var(--text); outline-offset: 3px; }
@media (forced-colors: active) { .button { border: 2px solid ButtonText; } }
";

fn page(title: &str, head: Option<Markup>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                @if let Some(head) = head { (head) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

/// Who asks for what, and a button.
pub(super) fn ticket(order: &Order) -> Markup {
    let Purpose { caller, provider, scopes, .. } = &order.purpose;
    let renews = matches!(order.renews(), Ok(Some(_)));
    let title = if renews { "Renew your connection" } else { "Connect your account" };
    page(
        title,
        None,
        html! {
            p { strong { (caller) } " asks for access to your account at " strong { (provider) } "." }
            @if scopes.is_empty() {
                p { "You will see there what it asks for." }
            } @else {
                p id="asks" { "It asks for:" }
                ul aria-labelledby="asks" { @for scope in scopes { li { code { (scope) } } } }
            }
            p { "You sign in at " (provider) " and decide there. Until then, nothing is connected." }
            // Without a target it is sent to this page's own address, which no page has to repeat.
            form method="post" { button class="button" type="submit" { "Continue to " (provider) } }
            p class="soft" { "If you did not ask for this, close this page." }
        },
    )
}

/// On to the provider, at once or by hand.
pub(super) fn away(provider: &str, url: &str) -> Markup {
    let title = format!("Continue to {provider}");
    let refresh = html! { meta http-equiv="refresh" content={ "0; url=" (url) }; };
    page(
        &title,
        Some(refresh),
        html! {
            p { "You are being sent to " strong { (provider) } ". If nothing happens, go on by yourself:" }
            p { a class="button" rel="noreferrer" href=(url) { "Continue to " (provider) } }
        },
    )
}

/// The user said no.
pub(super) fn refused(order: &Order, back: bool) -> Markup {
    let Purpose { caller, provider, .. } = &order.purpose;
    page(
        "Not connected",
        None,
        html! {
            p { "Access was not given at " strong { (provider) } ", so nothing was connected." }
            @if back { (return_link(order, "access_denied")) }
            p class="soft" { "If that was a mistake, go back to " (caller) " and start again." }
        },
    )
}

/// It did not work. The code means something to whoever runs the service.
pub(super) fn failed(order: &Order, failure: &Failure, back: bool) -> Markup {
    let Purpose { caller, provider, .. } = &order.purpose;
    let title = if failure.passes() { "Not connected yet" } else { "Not connected" };
    page(
        title,
        None,
        html! {
            @if matches!(failure, Failure::Slow) {
                p { strong { (provider) } " takes longer than usual to answer. Look in " (caller) " whether you are connected, before you start again." }
            } @else if failure.passes() {
                p { "The connection with " strong { (provider) } " could not be made now. Please try again in a few minutes." }
            } @else {
                p { "The connection with " strong { (provider) } " could not be made." }
            }
            @if back { (return_link(order, failure.word())) }
            p class="soft" {
                "If it happens again, tell the people who run " (caller) " this code: " code { (failure.code()) }
            }
        },
    )
}

/// Never was, is used, or is over: they look alike.
pub(super) fn unknown() -> Markup {
    page(
        "This link does not work",
        None,
        html! {
            p { "It was used already, or its time is over, or it was not copied completely, or it was opened in another browser than the one that it was begun in." }
            p { "Go back to where you got it and start again." }
        },
    )
}

/// The store does not answer.
pub(super) fn later() -> Markup {
    page(
        "Try again in a few minutes",
        None,
        html! { p { "Something here does not work at the moment. Nothing was connected. Please open the link again in a few minutes." } },
    )
}

/// The browser does not say that the button was pressed on our page.
pub(super) fn cross_site() -> Markup {
    page(
        "That did not come from this page",
        None,
        html! {
            p { "For your safety, only the button on this site's own page leads on. Open the link that you were given, and press the button there." }
            p { "If you did that, your browser may be too old, or hides where requests come from. Try another one." }
        },
    )
}

/// Not for people who got here by our links.
pub(super) fn turned_away() -> Markup {
    page("There is nothing here", None, html! { p { "Open the link that you were given." } })
}

fn return_link(order: &Order, error: &str) -> Markup {
    html! {
        p { a class="button" rel="noreferrer" href=(order.back(("error", error))) { "Back to " (order.purpose.caller) } }
    }
}
