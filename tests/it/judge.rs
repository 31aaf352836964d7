//! What a grant allows, read from the table of operations a second time: nothing here uses the gateway's own reading,
//! matching or deciding. Tests inside and outside of the library compare the gateway with it.

use std::sync::LazyLock;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    pub method: &'static str,
    pub template: &'static str,
    pub id: &'static str,
    pub tag: String,
    pub classes: Vec<&'static str>,
}

pub static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let table = include_str!("../../src/mx/operations.tsv");
    let rows: Vec<Row> = table
        .lines()
        .skip(1)
        .map(|line| {
            let column = |at| line.split('\t').nth(at).expect("ten columns");
            Row {
                method: column(0),
                template: column(1),
                id: column(2),
                tag: column(3).replace(' ', "-"),
                classes: column(8).split(',').collect(),
            }
        })
        .collect();
    assert_eq!(rows.len(), 171 + 5);
    rows
});

pub const SENSITIVE: [&str; 5] = ["bank-data", "mints-access", "carries-bank-login", "destructive", "money"];

/// Bundles as the documentation has them.
pub const BUNDLES: [(&str, &[&str]); 2] = [
    (
        "enrichment",
        &[
            "enhanceTransactions",
            "listDefaultCategories",
            "readDefaultCategory",
            "listMerchants",
            "readMerchant",
            "readMerchantLocation",
        ],
    ),
    (
        "verification",
        &[
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
            "verifyMicrodeposit",
            "listUserVerifications",
            "listUserMicrodeposits",
            "createMicrodeposit",
            "deleteMicrodeposit",
            "readUserMicrodeposit",
        ],
    ),
];

impl Row {
    /// A path of it, with ids that are no words of MX's.
    pub fn path(&self) -> String {
        let id = |segment: &str| match segment.split_once('}') {
            Some((name, suffix)) => format!("{}-7a{suffix}", name[1..4].to_uppercase()),
            None => segment.to_owned(),
        };
        self.template.split('/').map(id).collect::<Vec<_>>().join("/")
    }

    fn is_covered(&self, name: &str) -> bool {
        match name.split_once(':') {
            None => name == self.id || self.classes.contains(&name),
            Some(("tag", tag)) => tag == self.tag,
            Some(("method", method)) => method == self.method,
            Some(("bundle", bundle)) => {
                BUNDLES.iter().any(|(name, ids)| *name == bundle && ids.contains(&self.id))
            }
            Some(_) => false,
        }
    }

    /// Whether a grant of `items` allows it.
    pub fn is_allowed(&self, items: &[impl AsRef<str>]) -> bool {
        let excluded = items.iter().filter_map(|item| item.as_ref().strip_prefix('-'));
        let granted: Vec<&str> =
            items.iter().map(AsRef::as_ref).filter(|item| !item.starts_with('-')).collect();
        if excluded.into_iter().any(|name| self.is_covered(name)) {
            return false;
        }
        let is_asked_for = |class: &&str| !SENSITIVE.contains(class) || granted.contains(class);
        granted.contains(&self.id)
            || (!self.classes.contains(&"key-admin")
                && self.classes.iter().all(is_asked_for)
                && granted.iter().any(|name| self.is_covered(name)))
    }

    /// Whether a server that compares text for text takes `path` for it.
    fn matches(&self, path: &str) -> bool {
        let (own, others): (Vec<&str>, Vec<&str>) =
            (self.template.split('/').collect(), path.split('/').collect());
        own.len() == others.len()
            && own.iter().zip(others).all(|(own, other)| match own.split_once('}') {
                Some((_, suffix)) => other.len() > suffix.len() && other.ends_with(suffix),
                None => *own == other,
            })
    }

    /// Where its parameters are: the later the first of them, the better it fits.
    fn breadth(&self) -> Vec<u8> {
        let of = |segment: &str| u8::from(segment.starts_with('{')) + u8::from(segment.ends_with('}'));
        self.template.split('/').map(of).collect()
    }
}

/// What a server runs that reads `method` and `path` in its own way: the row that fits best.
pub fn run_by(method: &str, path: &str) -> Option<&'static Row> {
    let method = if method == "HEAD" { "GET" } else { method };
    let fitting = ROWS.iter().filter(|row| row.method == method && row.matches(path));
    fitting.min_by_key(|row| row.breadth())
}

/// Generated numbers, the same for the same seed (xorshift64*).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).expect("31 bits") % bound
    }

    pub fn one_of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }
}
