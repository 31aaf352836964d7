//! What systemd is told (`Type=notify-reload`). Without systemd each call does nothing.

use sd_notify::NotifyState;

/// Requests are served; `text` shows in `systemctl status`. Also ends a [`reloading`].
pub fn ready(text: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(text))]);
}

/// A reload has begun; [`ready`] has to follow, whether it succeeds or fails.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        // systemd kills a service that says RELOADING without the time.
        Err(error) => tracing::warn!(%error, "systemd was not told of the reload"),
    }
}

/// The gateway drains.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(&one_line(text))]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told of a state");
    }
}

/// A line break would start a further assignment of the protocol (sd_notify(3)).
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_status_cannot_add_an_assignment() {
        assert_eq!(super::one_line("failed:\nMAINPID=1\r\n"), "failed: MAINPID=1  ");
        assert_eq!(super::one_line("serving 2 environments"), "serving 2 environments");
    }
}
