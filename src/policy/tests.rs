//! Every operation of the catalogue against generated grants, judged by a second reading of the table.

use super::{grant::Item, *};
use judge::{BUNDLES, Dice, ROWS, SENSITIVE};

#[path = "../../tests/it/judge.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests over sockets use it as well, and more of it")]
mod judge;

fn allowed(items: &[String]) -> Allowed {
    let items: Vec<Item> = items.iter().map(|text| crate::config::grant_item(text).unwrap()).collect();
    Allowed::new(&items, None).unwrap()
}

fn is_allowed(allowed: &Allowed, method: &str, path: &str) -> bool {
    let (method, target) = (method.parse().unwrap(), Target::parse(path).unwrap());
    decide(Some(allowed), Api::Platform, &method, &target).is_ok()
}

/// Compares what is decided of every operation; how many are allowed.
#[track_caller]
fn compare(items: &[String]) -> usize {
    let allowed = allowed(items);
    let judged = ROWS.iter().filter(|row| {
        let expected = row.is_allowed(items);
        let decided = is_allowed(&allowed, row.method, &row.path());
        assert_eq!(decided, expected, "{} for {items:?}", row.id);
        if row.method == "GET" {
            assert_eq!(is_allowed(&allowed, "HEAD", &row.path()), expected, "HEAD {} for {items:?}", row.id);
        }
        for method in ["PATCH", "OPTIONS"] {
            assert!(!is_allowed(&allowed, method, &row.path()), "{method} {} for {items:?}", row.id);
        }
        expected
    });
    judged.count()
}

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

fn everything() -> Vec<String> {
    let words = ["read", "write"].into_iter().chain(SENSITIVE);
    let administration = ROWS.iter().filter(|row| row.classes.contains(&"key-admin")).map(|row| row.id);
    words.chain(administration).map(str::to_owned).collect()
}

#[test]
fn each_operation_alone_and_all_but_each() {
    assert_eq!(compare(&[]), 0);
    assert_eq!(compare(&everything()), 176);
    for row in ROWS.iter() {
        assert_eq!(compare(&owned(&[row.id])), 1, "{}", row.id);
        let mut all_but_one = everything();
        all_but_one.push(format!("-{}", row.id));
        assert_eq!(compare(&all_but_one), 175, "{}", row.id);
    }
}

/// Everything that can be written in a grant, but for paths.
fn words() -> Vec<String> {
    let mut words: Vec<String> = ["read", "write"].into_iter().chain(SENSITIVE).map(str::to_owned).collect();
    words.extend(["GET", "POST", "PUT", "DELETE"].map(|method| format!("method:{method}")));
    words.extend(BUNDLES.map(|(name, _)| format!("bundle:{name}")));
    words.extend(ROWS.iter().map(|row| format!("tag:{}", row.tag)));
    words.sort_unstable();
    words.dedup();
    words
}

#[test]
fn every_word_with_every_set_of_sensitive_classes() {
    for word in words() {
        for set in 0_u8..1 << SENSITIVE.len() {
            let classes = SENSITIVE.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            let mut items: Vec<String> = classes.map(|(_, &class)| class.to_owned()).collect();
            items.push(word.clone());
            compare(&items);
        }
    }
}

#[test]
fn generated_lists() {
    const SEED: u64 = 0x6d78_6761_7465;
    let (mut dice, words) = (Dice(SEED), words());
    let (mut most, mut least) = (0, 176);
    for _ in 0..500 {
        let mut items = Vec::new();
        for _ in 0..1 + dice.below(7) {
            let word = match dice.below(3) {
                0 => ROWS[dice.below(ROWS.len())].id.to_owned(),
                _ => dice.one_of(&words).clone(),
            };
            let sign = if dice.below(4) == 0 { "-" } else { "" };
            items.push(format!("{sign}{word}"));
        }
        let count = compare(&items);
        (most, least) = (most.max(count), least.min(count));
    }
    assert!(most > 100 && least == 0, "{least} to {most} of 176 were allowed: that is no test");
}

#[test]
fn another_reading_of_a_path_has_to_be_granted_too() {
    let grant = allowed(&owned(&["readUser", "readInstitution", "updateGoal", "path:GET /users/{u}/new"]));
    for (method, path) in [
        ("GET", "/users/U"),
        ("GET", "/users/a%2Fb%20%C3%BC%3Fx"),
        ("GET", "/users/U%3Fx"),
        ("GET", "/institutions/chase"),
        ("GET", "/institutions/favorites2"),
        ("PUT", "/users/U/goals/G"),
        ("GET", "/users/U/new"),
    ] {
        assert!(is_allowed(&grant, method, path), "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/users/U%2Fmembers"),
        ("HEAD", "/users/U%2Fmembers"),
        ("GET", "/users/U%2FMEMBERS"),
        ("GET", "/users/U%2F%2Fmembers%2F"),
        ("GET", "/users/U%2Fmembers%3Fpage"),
        ("GET", "/users/U%2Fmembers.json"),
        ("GET", "/users/U%2Faccounts%2FA"),
        ("GET", "/users/U%2Fmembers/new"),
        ("GET", "/institutions/Favorites"),
        ("GET", "/institutions/favorites.json"),
        ("GET", "/institutions/favorites;x"),
        ("GET", "/institutions/favorites%20"),
        ("GET", "/institutions/%2Ffavorites"),
        ("PUT", "/users/U/goals/REPOSITION"),
    ] {
        assert!(!is_allowed(&grant, method, path), "{method} {path}");
    }
    let both = allowed(&owned(&["readUser", "listMembers"]));
    assert!(is_allowed(&both, "GET", "/users/U%2Fmembers"));
}

#[test]
fn a_path_that_an_environment_lists_and_nobody_was_granted_is_not_had_encoded() {
    let listed = ["GET /a/{id}", "GET /a/{id}/b"].map(|text| crate::config::PathPattern {
        method: Method::GET,
        template: text.split(' ').nth(1).unwrap().into(),
    });
    let decided = |items: &[&str], path: &str| {
        let items: Vec<Item> = items.iter().map(|text| crate::config::grant_item(text).unwrap()).collect();
        let allowed = Allowed::new(&items, Some(&listed)).unwrap();
        decide(Some(&allowed), Api::Paths, &Method::GET, &Target::parse(path).unwrap()).is_ok()
    };
    assert!(decided(&["path:GET /a/{id}"], "/a/x%2Fc"));
    assert!(!decided(&["path:GET /a/{id}"], "/a/x%2Fb"));
    assert!(decided(&["paths"], "/a/x%2Fb"));
}
