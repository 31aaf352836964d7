//! What lists of items allow, each yes beside its no.

use super::*;

fn items(texts: &[&str]) -> Vec<Item> {
    texts.iter().map(|text| item(text).unwrap()).collect()
}

fn item(text: &str) -> Result<Item, Malformed> {
    Item::parse(text, |path| {
        let (method, template) = path.split_once(' ').unwrap();
        Ok(PathPattern { method: method.parse().unwrap(), template: template.into() })
    })
}

fn allows(texts: &[&str], id: &str) -> bool {
    OperationSet::of(&items(texts)).contains(catalogue().by_id(id).unwrap().index)
}

#[test]
fn an_empty_list_allows_nothing() {
    assert_eq!(OperationSet::of(&[]).iter().count(), 0);
}

#[test]
fn read_and_write_are_the_plain_ones() {
    let classes = |texts: &[&str]| -> Vec<Classes> {
        OperationSet::of(&items(texts)).iter().map(|operation| operation.classes).collect()
    };
    assert_eq!(classes(&["read"]).len(), 82);
    assert_eq!(classes(&["write"]).len(), 42);
    for classes in classes(&["read", "write", "method:GET", "method:POST", "method:DELETE", "tag:statements"])
    {
        assert!(SENSITIVE.iter().all(|class| !classes.contains(*class)), "{classes:?}");
        assert!(!classes.contains(Class::KeyAdmin));
    }
}

#[test]
fn an_operation_of_two_sensitive_classes_needs_both() {
    let both = "deleteMicrodeposit";
    assert!(catalogue().by_id(both).unwrap().classes.contains(Class::Money));
    assert!(!allows(&["write", "destructive"], both));
    assert!(!allows(&["write", "money"], both));
    assert!(allows(&["destructive", "money"], both));
    assert!(allows(&[both], both));
}

#[test]
fn exclusions_always_win() {
    assert!(allows(&["read"], "listUsers"));
    for not in ["-listUsers", "-tag:users", "-method:GET", "-read"] {
        assert!(!allows(&["read", "listUsers", not], "listUsers"), "{not}");
        assert!(!allows(&[not, "read", "listUsers"], "listUsers"), "{not}");
    }
    assert!(allows(&["read", "-write"], "listUsers"));
}

#[test]
fn key_administration_is_had_by_name_alone() {
    assert!(item("key-admin").is_err());
    assert!(item("-key-admin").is_ok());
    let id = catalogue().operations().iter().find(|o| o.classes.contains(Class::KeyAdmin)).unwrap().id;
    let everything =
        ["read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money"];
    assert!(!allows(&everything, id));
    assert!(allows(&[id], id));
    assert!(!allows(&[id, "-key-admin"], id));
    assert_eq!(OperationSet::of(&items(&everything)).iter().count(), 173);
}

#[test]
fn a_typo_names_what_is_valid() {
    for (text, valid) in
        [("listUser", "listUsers"), ("tag:user", "users"), ("method:get", "GET"), ("x:y", "tag")]
    {
        let malformed = item(text).unwrap_err();
        assert!(malformed.valid.iter().any(|one| one == valid), "{text}: {malformed:?}");
    }
    for text in ["", "-", "--read", "Read", "read ", "tag:", "*"] {
        assert!(item(text).is_err(), "{text}");
    }
}

#[test]
fn the_catalogue_fits_into_a_set() {
    assert!(catalogue().operations().len() <= 3 * 64);
}

#[test]
fn paths_of_another_api_are_granted_as_listed() {
    let listed = ["GET /a/{id}", "POST /a", "GET /b"].map(|text| PathPattern {
        method: text.split(' ').next().unwrap().parse().unwrap(),
        template: text.split(' ').nth(1).unwrap().into(),
    });
    let found = |texts: &[&str], method: Method, path: &str| {
        let allowed = Allowed::new(&items(texts), Some(&listed)).unwrap();
        matches!(allowed.patterns().find(&method, path), Found::Pattern(_))
    };
    assert!(found(&["paths"], Method::POST, "/a"));
    assert!(!found(&["paths", "-path:POST /a"], Method::POST, "/a"));
    assert!(found(&["paths", "-path:POST /a"], Method::HEAD, "/b"));
    assert!(!found(&["path:POST /a"], Method::GET, "/b"));
    assert!(!found(&["read", "write"], Method::GET, "/b"));
    assert!(!found(&["path:GET /not/listed"], Method::GET, "/not/listed"));
}

#[test]
fn a_bundle_brings_what_it_covers_and_nothing_sensitive() {
    assert!(allows(&["bundle:insights"], "updateInsight"));
    assert!(!allows(&["bundle:insights"], "listUsers"));
    assert!(!allows(&["bundle:insights", "-bundle:insights", "read"], "readInsightUser"));
    assert!(allows(&["bundle:insights", "-bundle:insights", "read"], "listUsers"));
    for (bundle, id, class) in [
        ("bundle:verification", "listAccountNumbersByMember", "bank-data"),
        ("bundle:connect", "requestWidgetURL", "mints-access"),
        ("bundle:connect", "createMember", "carries-bank-login"),
        ("bundle:money-management", "deleteBudget", "destructive"),
    ] {
        assert!(!allows(&[bundle], id), "{bundle} {id}");
        assert!(allows(&[bundle, class], id), "{bundle} {id}");
        assert!(!allows(&[class, id, &format!("-{bundle}")], id), "{bundle} {id}");
    }
}

#[test]
fn items_are_shown_as_they_are_written() {
    for text in [
        "read",
        "-listUsers",
        "tag:spending-plan",
        "-bundle:connect",
        "method:PUT",
        "paths",
        "path:GET /new/{id}",
    ] {
        assert_eq!(item(text).unwrap().to_string(), text);
    }
}

#[test]
fn exclusions_win_over_paths_too() {
    let found = |texts: &[&str]| {
        let allowed = Allowed::new(&items(texts), None).unwrap();
        matches!(allowed.patterns().find(&Method::GET, "/new/1"), Found::Pattern(_))
    };
    assert!(found(&["path:GET /new/{id}", "-method:POST"]));
    assert!(!found(&["path:GET /new/{id}", "-method:GET"]));
    assert!(!found(&["path:GET /new/{id}", "-path:GET /new/{guid}"]));
}

fn reviewed(texts: &[&str]) -> Vec<(usize, String)> {
    let findings = review::review(&items(texts), None).into_iter();
    findings
        .map(|(place, finding)| {
            (place, format!("{}{finding}", if finding.is_fault() { "FAULT " } else { "" }))
        })
        .collect()
}

#[test]
fn a_grant_of_which_everything_does_something_is_fine() {
    for texts in [
        &["read", "createMember"][..],
        &["read", "-tag:insights"],
        &["bundle:connect", "mints-access"],
        &["path:GET /new/{id}", "path:POST /new", "-bundle:connect", "read"],
        &["tag:accounts", "bank-data", "-getIdentityData"],
        &[],
    ] {
        assert_eq!(reviewed(texts), [], "{texts:?}");
    }
}

#[test]
fn items_that_do_nothing_are_found_and_say_why() {
    let asks = "allows nothing: all that it covers has a sensitive class that is not asked for: ";
    for (texts, place, expected) in [
        (&["tag:verifiable-credentials"][..], 0, format!("{asks}bank-data")),
        (&["read", "tag:widgets"], 1, format!("{asks}mints-access")),
        (&["listUsers", "listUsers"], 1, "is the same as item 0".into()),
        (&["path:GET /a/{x}", "path:GET /a/{y}"], 1, "is the same as item 0".into()),
        (&["read", "listUsers"], 1, "adds nothing to \"read\"".into()),
        (&["listUsers", "read"], 0, "adds nothing to \"read\"".into()),
        (&["read", "write", "bundle:enrichment"], 2, "adds nothing to the other items".into()),
        (
            &["write", "listUsers", "-tag:users"],
            1,
            "allows nothing: \"-tag:users\" takes away all that it covers".into(),
        ),
        (
            &["path:GET /a", "-method:GET", "write"],
            0,
            "allows nothing: \"-method:GET\" takes away all that it covers".into(),
        ),
        (&["write", "-read"], 1, "excludes nothing that the other items allow".into()),
        (&["read", "-createUser"], 1, "excludes nothing that the other items allow".into()),
    ] {
        assert_eq!(reviewed(texts), [(place, expected)], "{texts:?}");
    }
}

#[test]
fn a_path_that_is_an_operation_is_a_fault_and_another_is_not() {
    let shadows = |id: &str| {
        format!(
            "FAULT could also match MX's operation {id}, which decides there; grant that operation instead"
        )
    };
    for (path, id) in [
        ("GET /users", "listUsers"),
        ("HEAD /users", "listUsers"),
        ("GET /Users", "listUsers"),
        ("GET /users/me", "readUser"),
        ("POST /{anything}", "createACHReturn"),
        ("GET /users/{u}/{*rest}", "listUserVerifications"),
        ("POST /clients/{*rest}", "rotateApiKey"),
        ("GET /institutions/search", "readInstitution"),
        ("GET /users/{u}/members/{m}/statements/{s}.csv", "readStatementByMember"),
        ("GET /users/{u}/accounts/merge", "readAccount"),
        ("DELETE /users/{*rest}", "deleteUser"),
    ] {
        assert_eq!(reviewed(&[&format!("path:{path}")]), [(0, shadows(id))], "{path}");
    }
    for path in [
        "PATCH /users/{u}",
        "GET /users/{u}/new",
        "GET /new/{*rest}",
        "POST /institutions",
        "DELETE /users",
        "GET /users/{u}/members/{m}/statements/{s}/pages/{p}.pdf",
    ] {
        assert_eq!(reviewed(&[&format!("path:{path}")]), [], "{path}");
    }
    let nothing = "FAULT excludes a path that nothing grants; an operation of MX is excluded by its id";
    assert_eq!(reviewed(&["read", "-path:GET /users"]), [(1, nothing.to_owned())]);
}

#[test]
fn the_documentation_has_every_class_and_every_bundle_as_it_is() {
    let text = include_str!("../../../docs/policy.md");
    let row =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
    for class in Class::ALL {
        let count = catalogue().operations().iter().filter(|one| one.classes.contains(class)).count();
        let row = row(&format!("| `{}` | {count} |", class.as_str()));
        if class != Class::KeyAdmin {
            let alone = OperationSet::of(&items(&[class.as_str()])).iter().count();
            assert!(
                row.ends_with(&format!(" {alone} |")) || row.contains(&format!("the {alone} that")),
                "{row}"
            );
        }
    }
    for bundle in &BUNDLES {
        let row = row(&format!("| `bundle:{}` | {} |", bundle.name, bundle.meaning));
        let covered = catalogue().operations().iter().filter(|one| bundle.covers(one));
        for class in covered.flat_map(|one| one.classes.iter()).filter(|class| SENSITIVE.contains(class)) {
            assert!(row.contains(&format!("`{}`", class.as_str())), "{}: {}", bundle.name, class.as_str());
        }
    }
}

/// What is withheld stands beside what is granted, where a wider pattern could be taken for it.
#[test]
fn a_wider_pattern_does_not_bring_a_listed_path_that_is_withheld() {
    let listed = ["GET /files/{id}", "GET /files/export", "GET /v1/{*rest}", "GET /v1/admin/{id}"];
    let listed = listed.map(|text| {
        let (method, template) = text.split_once(' ').unwrap();
        PathPattern { method: method.parse().unwrap(), template: template.into() }
    });
    let found = |texts: &[&str], path: &str| {
        let allowed = Allowed::new(&items(texts), Some(&listed)).unwrap();
        let target = crate::policy::target::Target::parse(path).unwrap();
        crate::policy::decide(Some(&allowed), crate::policy::Api::Paths, &Method::GET, &target).is_ok()
    };
    let all = ["/files/7", "/files/export", "/v1/a/b", "/v1/admin/7"];
    assert_eq!(all.map(|path| found(&["paths"], path)), [true; 4]);
    let but = &["paths", "-path:GET /files/export", "-path:GET /v1/admin/{id}"];
    assert_eq!(all.map(|path| found(but, path)), [true, false, true, false]);
    let wide = &["path:GET /files/{id}", "path:GET /v1/{*rest}"];
    assert_eq!(all.map(|path| found(wide, path)), [true, false, true, false]);
    let narrow = &["path:GET /files/export", "path:GET /v1/admin/{id}"];
    assert_eq!(all.map(|path| found(narrow, path)), [false, true, false, true]);
    for other in ["/files/EXPORT", "/files/export.json", "/files/export;x", "/v1/admin%2F7"] {
        assert!(!found(wide, other), "{other}");
    }
}

/// A pattern beside the catalogue that ends in a format, on a server that drops formats.
#[test]
fn a_pattern_does_not_stand_for_an_operation_in_another_format_or_case() {
    let decides = |texts: &[&str], path: &str| {
        let allowed = Allowed::new(&items(texts), None).unwrap();
        let target = crate::policy::target::Target::parse(path).unwrap();
        crate::policy::decide(Some(&allowed), crate::policy::Api::Platform, &Method::GET, &target).is_ok()
    };
    let pattern = "path:GET /users/{user_guid}/{name}.json";
    assert!(decides(&[pattern], "/users/U/things.json"));
    assert!(!decides(&[pattern], "/users/U/members.json"));
    assert!(decides(&[pattern, "listMembers"], "/users/U/things.json"));
}
