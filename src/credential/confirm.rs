//! Whether a key has died: asked by the gateway itself, with a read that harms nobody.
//!
//! In: a doubt about the preferred key, and a way to ask MX with either key. Out: another preference, if MX refuses the
//! preferred key and takes the other. There is one confirmer an environment, on the control plane, and not one
//! a request: no caller waits for it, or ends it by leaving. It asks at a pace of its own, so that callers decide
//! neither how often MX is asked nor which key is used.
//! What must never happen: a key is given up for anything but a 401 to this read, or for one that is no better.

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::preference::{Preference, Which};
use crate::upstream::errand::Word;

/// At most one confirmation in this time, however many requests are answered 401.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);

/// How often a primary key that has died is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// How often in a row it has to work until it is used again.
const RETRIES_GOOD: u32 = 3;

/// What a confirmation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The preferred key works: the 401 was about something else.
    InOrder,
    CutOver,
    NeitherTaken,
    Nothing,
}

/// Looks after the preference of `environment`. Dropped in the middle, it leaves the doubt for the next one.
pub(crate) async fn watch_over<F: Future<Output = Word>>(
    environment: &str,
    preference: &Preference,
    ask: impl Fn(Which) -> F,
) -> Infallible {
    let mut last = Found::InOrder;
    loop {
        let retry = preference.pace().retry;
        tokio::select! {
            () = preference.doubted() => {
                let from = preference.pace().confirm;
                sleep_until(from).await;
                let found = confirm(preference, &ask).await;
                tell(environment, preference, found, last);
                last = found;
            }
            () = sleep_until(retry), if preference.key() == Which::Secondary => {
                preference.pace().retry = Instant::now() + RETRY_INTERVAL;
                let word = ask(Which::Primary).await;
                if works_again(preference, word) {
                    preference.prefer(Which::Primary);
                    let primary = preference.used(Which::Primary);
                    tracing::warn!(
                        environment,
                        key = primary.name(),
                        fingerprint = primary.fingerprint(),
                        "MX takes the primary key again, and it is used again"
                    );
                }
            }
        }
    }
}

/// Whether the primary key, about which MX said `word`, has worked for long enough.
fn works_again(preference: &Preference, word: Word) -> bool {
    let mut pace = preference.pace();
    pace.good = if word.takes_key() { pace.good + 1 } else { 0 };
    pace.good >= RETRIES_GOOD
}

async fn confirm<F: Future<Output = Word>>(preference: &Preference, ask: &impl Fn(Which) -> F) -> Found {
    let preferred = preference.key();
    preference.pace().confirm = Instant::now() + CONFIRM_INTERVAL;
    // The preferred one first: a key that dies in between makes the other look good for a good reason.
    let found = match ask(preferred).await {
        Word::Answered | Word::Known => Found::InOrder,
        Word::Nothing => Found::Nothing,
        Word::Refused => match ask(preferred.other()).await {
            Word::Answered | Word::Known => Found::CutOver,
            Word::Refused => Found::NeitherTaken,
            Word::Nothing => Found::Nothing,
        },
    };
    if found == Found::CutOver {
        let mut pace = preference.pace();
        (pace.retry, pace.good) = (Instant::now() + RETRY_INTERVAL, 0);
        drop(pace);
        preference.prefer(preferred.other());
    }
    preference.settle();
    found
}

/// Once, and again only when something else was found in between.
fn tell(environment: &str, preference: &Preference, found: Found, last: Found) {
    let used = preference.used(preference.key());
    let (key, fingerprint) = (used.name(), used.fingerprint());
    match found {
        Found::CutOver => tracing::error!(
            environment,
            key,
            fingerprint,
            instead_of = preference.used(preference.key().other()).name(),
            "MX refuses the key that was in use and takes the other, which is used from now on"
        ),
        Found::NeitherTaken if found != last => {
            tracing::error!(environment, key, fingerprint, "MX refuses both keys");
        }
        Found::Nothing if found != last => tracing::warn!(
            environment,
            key,
            fingerprint,
            "MX answered 401 to a request; whether the key has died could not be found out"
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        sync::Arc,
    };

    use super::{super::preference::tests::preference, *};

    /// MX, with what it says to each key.
    struct Mx {
        words: Cell<[Word; 2]>,
        asked: RefCell<Vec<Which>>,
    }

    impl Mx {
        fn new(primary: Word, secondary: Word) -> Self {
            Self { words: Cell::new([primary, secondary]), asked: RefCell::default() }
        }

        fn ask(&self, which: Which) -> Word {
            self.asked.borrow_mut().push(which);
            self.words.get()[usize::from(which == Which::Secondary)]
        }

        fn asked(&self) -> Vec<Which> {
            self.asked.take()
        }
    }

    /// Lets the confirmer run for so long.
    async fn run_for(preference: &Preference, mx: &Mx, duration: Duration) {
        let watch = watch_over("test", preference, |which| std::future::ready(mx.ask(which)));
        assert!(tokio::time::timeout(duration, watch).await.is_err());
    }

    async fn doubted(primary: Word, secondary: Word) -> (Arc<Preference>, Vec<Which>) {
        let (preference, mx) = (preference(), Mx::new(primary, secondary));
        preference.doubt(Which::Primary);
        run_for(&preference, &mx, Duration::from_secs(1)).await;
        (preference, mx.asked())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_dead_key_beside_one_that_works_is_given_up() {
        use Word::{Answered, Known, Nothing, Refused};
        let both = vec![Which::Primary, Which::Secondary];
        for (primary, secondary, key, asked) in [
            (Refused, Answered, Which::Secondary, both.clone()),
            (Refused, Known, Which::Secondary, both.clone()),
            (Refused, Refused, Which::Primary, both.clone()),
            (Refused, Nothing, Which::Primary, both),
            (Answered, Answered, Which::Primary, vec![Which::Primary]),
            (Known, Answered, Which::Primary, vec![Which::Primary]),
            (Answered, Refused, Which::Primary, vec![Which::Primary]),
            (Nothing, Answered, Which::Primary, vec![Which::Primary]),
        ] {
            let (preference, all) = doubted(primary, secondary).await;
            assert_eq!((preference.key(), all), (key, asked), "{primary:?} {secondary:?}");
            assert_eq!(preference.status().cutovers, u64::from(key == Which::Secondary));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_doubt_nobody_is_asked() {
        let (preference, mx) = (preference(), Mx::new(Word::Refused, Word::Answered));
        run_for(&preference, &mx, Duration::from_secs(3600)).await;
        assert_eq!((mx.asked(), preference.key()), (vec![], Which::Primary));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_doubts_there_are_mx_is_asked_at_one_pace() {
        let (preference, mx) = (preference(), Mx::new(Word::Answered, Word::Answered));
        let begun = Instant::now();
        let doubts = async {
            for _ in 0..6000 {
                preference.doubt(Which::Primary);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let watch = watch_over("test", &preference, |which| std::future::ready(mx.ask(which)));
        tokio::select! {
            () = doubts => {}
            never = watch => match never {},
        }
        let most = begun.elapsed().as_secs() / 5 + 1;
        let asked = mx.asked().len() as u64;
        assert!((most - 1..=most).contains(&asked), "{asked} of {most}");
        assert_eq!(preference.status().cutovers, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_neither_loses_a_doubt_nor_quickens_the_pace() {
        let (preference, mx) = (preference(), Mx::new(Word::Refused, Word::Answered));
        preference.doubt(Which::Primary);
        // It is dropped while it waits for MX.
        let stuck = watch_over("test", &preference, |which| {
            mx.ask(which);
            std::future::pending()
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), stuck).await.is_err());
        assert_eq!(mx.asked(), [Which::Primary]);
        run_for(&preference, &mx, Duration::from_secs(3)).await;
        assert_eq!((mx.asked(), preference.key()), (vec![], Which::Primary), "it is too early");
        run_for(&preference, &mx, Duration::from_secs(3)).await;
        assert_eq!(mx.asked(), [Which::Primary, Which::Secondary]);
        assert_eq!(preference.key(), Which::Secondary);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_primary_key_is_tried_once_a_minute_and_used_when_it_stays_good() {
        let (preference, mx) = (preference(), Mx::new(Word::Refused, Word::Answered));
        preference.doubt(Which::Primary);
        run_for(&preference, &mx, Duration::from_secs(601)).await;
        assert_eq!(mx.asked().len(), 2 + 10);
        assert_eq!((preference.key(), preference.status().cutovers), (Which::Secondary, 1));
        // Twice good and then bad again is no key to go back to.
        for (primary, minutes, key) in [
            (Word::Answered, 2, Which::Secondary),
            (Word::Refused, 1, Which::Secondary),
            (Word::Answered, 2, Which::Secondary),
            (Word::Nothing, 1, Which::Secondary),
        ] {
            mx.words.set([primary, Word::Answered]);
            run_for(&preference, &mx, Duration::from_secs(60 * minutes)).await;
            assert_eq!(preference.key(), key, "{primary:?}");
        }
        mx.asked();
        mx.words.set([Word::Answered, Word::Answered]);
        run_for(&preference, &mx, Duration::from_secs(180)).await;
        assert_eq!((preference.key(), mx.asked()), (Which::Primary, vec![Which::Primary; 3]));
        run_for(&preference, &mx, Duration::from_secs(3600)).await;
        assert_eq!(mx.asked(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_secondary_key_that_dies_gives_way_at_once() {
        let (preference, mx) = (preference(), Mx::new(Word::Refused, Word::Answered));
        preference.doubt(Which::Primary);
        run_for(&preference, &mx, Duration::from_secs(6)).await;
        assert_eq!(preference.key(), Which::Secondary);
        mx.words.set([Word::Answered, Word::Refused]);
        preference.doubt(Which::Secondary);
        run_for(&preference, &mx, Duration::from_secs(1)).await;
        assert_eq!((preference.key(), preference.status().cutovers), (Which::Primary, 2));
    }
}
