//! How secrets are kept fresh: the same three keys in the section of every kind of source.

use crate::config::{Refresh, walk::Table};

/// `refresh_ms`, `grace_ms` and `after_grace` of one section.
pub(super) fn refresh(table: &Table<'_>) -> Refresh {
    let refresh = Refresh {
        interval: table.millis("refresh_ms"),
        grace: table.millis("grace_ms"),
        keep_after: table.choice("after_grace") == "keep",
    };
    if refresh.grace <= refresh.interval && !refresh.keep_after {
        table.warn("grace_ms", "is not longer than refresh_ms: its secrets end before they are read again");
    }
    refresh
}
