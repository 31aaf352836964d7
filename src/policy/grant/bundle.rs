//! Bundles: plain names for what a kind of service needs at MX.
//!
//! A bundle covers tags and single operations of the catalogue. As with tags, what has a sensitive class comes only
//! when that class is asked for beside the bundle; the bundle still covers it, so that `-bundle:verification` takes
//! away all of it. Key administration is in none.

use crate::mx::catalogue::Operation;

/// A named set of MX's operations.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What stands behind `bundle:`.
    pub name: &'static str,
    /// What it is for, for people.
    pub meaning: &'static str,
    tags: &'static [&'static str],
    operations: &'static [&'static str],
}

/// All bundles.
pub static BUNDLES: [Bundle; 6] = [
    Bundle {
        name: "aggregation",
        meaning: "refresh linked bank accounts, and read accounts, transactions and holdings",
        tags: &[],
        operations: &[
            "aggregateMember",
            "checkBalances",
            "extendHistory",
            "listMembers",
            "readMember",
            "readMemberStatus",
            "listUserAccounts",
            "readAccount",
            "listMemberAccounts",
            "readAccountByMember",
            "listTransactions",
            "readTransaction",
            "listTransactionsByAccount",
            "listTransactionsByMember",
            "listTransactionsByAccountPerMember",
            "readTransactionByAccount",
            "repeatingTransactions",
            "specificRepeatingTransaction",
            "listHoldings",
            "readHolding",
            "listHoldingsByAccount",
            "listHoldingsByMember",
        ],
    },
    Bundle {
        name: "connect",
        meaning: "create users, find their institution, link it and answer its challenges",
        tags: &["institutions", "widgets"],
        operations: &[
            "createUser",
            "readUser",
            "updateUser",
            "listMembers",
            "createMember",
            "readMember",
            "updateMember",
            "readMemberStatus",
            "listMemberChallenges",
            "listMemberCredentials",
            "resumeAggregation",
        ],
    },
    Bundle {
        name: "enrichment",
        meaning: "clean and categorise transactions, and look merchants and default categories up",
        tags: &["merchants"],
        operations: &["enhanceTransactions", "listDefaultCategories", "readDefaultCategory"],
    },
    Bundle {
        name: "insights",
        meaning: "read and mark insights, and read what they are drawn from",
        tags: &["insights", "monthly cash flow profile"],
        operations: &["repeatingTransactions", "specificRepeatingTransaction"],
    },
    Bundle {
        name: "money-management",
        meaning: "budgets, goals, spending plans, categories, tags, rules and notifications",
        tags: &[
            "budgets",
            "categories",
            "goals",
            "monthly cash flow profile",
            "notifications",
            "spending plan",
            "taggings",
            "tags",
            "transaction rules",
        ],
        // MX files it under transactions.
        operations: &["deleteTransactionRule"],
    },
    Bundle {
        name: "verification",
        meaning: "verify accounts and identify their owners, with micro-deposits where banks cannot be asked",
        tags: &["microdeposits"],
        operations: &[
            "identifyMember",
            "verifyMember",
            "listMembers",
            "readMember",
            "readMemberStatus",
            "listUserAccounts",
            "readAccount",
            "listMemberAccounts",
            "readAccountByMember",
            "listAccountNumbersByAccount",
            "listAccountNumbersByMember",
            "listAccountOwnersByMember",
        ],
    },
];

impl Bundle {
    /// The bundle of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        BUNDLES.iter().find(|bundle| bundle.name == name)
    }

    /// Whether it covers `operation`.
    #[must_use]
    pub fn covers(&self, operation: &Operation) -> bool {
        self.tags.contains(&operation.tag) || self.operations.contains(&operation.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mx::catalogue::{Class, catalogue};

    /// How many operations each covers: a new one in the catalogue is looked at before a bundle grows by it.
    #[test]
    fn bundles_cover_what_was_looked_at() {
        let covered = BUNDLES.iter().map(|bundle| {
            let count = catalogue().operations().iter().filter(|operation| bundle.covers(operation)).count();
            (bundle.name, count)
        });
        let expected = [
            ("aggregation", 22),
            ("connect", 18),
            ("enrichment", 6),
            ("insights", 14),
            ("money-management", 55),
            ("verification", 18),
        ];
        assert_eq!(covered.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_name_in_a_bundle_is_one_of_the_catalogue() {
        for bundle in &BUNDLES {
            let all = catalogue().operations();
            for id in bundle.operations {
                let operation = catalogue().by_id(id).unwrap();
                assert!(!bundle.tags.contains(&operation.tag), "{} has {id} twice", bundle.name);
            }
            assert!(
                bundle.tags.iter().all(|tag| all.iter().any(|operation| operation.tag == *tag)),
                "{}",
                bundle.name
            );
            let mut covered = all.iter().filter(|operation| bundle.covers(operation));
            assert!(covered.all(|operation| !operation.classes.contains(Class::KeyAdmin)), "{}", bundle.name);
            assert_eq!(Bundle::named(bundle.name), Some(bundle));
        }
        assert_eq!(Bundle::named("Insights"), None);
    }
}
