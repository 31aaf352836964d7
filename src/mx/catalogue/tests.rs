//! The table as it is compiled in, and tables that are not well formed.

use super::*;

const HEADER: &str =
    "method\tpath\toperation_id\ttag\tcredential\tversions\tdeprecated_in\tmedia_types\tclass\tanswers\n";

fn found(method: Method, path: &str) -> String {
    match catalogue().find(&method, path) {
        Found::Operation(operation) => operation.id.to_owned(),
        Found::OtherMethods(allow) => format!("allow {}", allow.to_str().unwrap()),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn the_table_parses_and_is_complete() {
    let all = catalogue().operations();
    assert_eq!(all.len(), 176);
    let of = |version| all.iter().filter(|o| o.versions.contains(version)).count();
    assert_eq!((of(Version::V20111101), of(Version::V20250224)), (166, 169));
    assert_eq!(all.iter().filter(|o| o.versions.is_empty()).count(), 5);
    for (place, operation) in all.iter().enumerate() {
        assert_eq!(operation.index.get(), place);
        assert_eq!(catalogue().by_id(operation.id).unwrap().index, operation.index);
    }
    assert!(catalogue().by_id("listusers").is_none());
}

#[test]
fn every_operation_is_found_by_its_own_path_and_by_no_neighbour_of_it() {
    for operation in catalogue().operations() {
        let path = operation.template.replace('{', "x-").replace('}', "%2F");
        assert_eq!(found(operation.method.clone(), &path), operation.id, "{path}");
        for other in
            [format!("{path}/"), format!("/{path}"), path.replacen('/', "//", 2), path.to_uppercase()]
        {
            assert_eq!(found(operation.method.clone(), &other), "nothing", "{other}");
        }
    }
}

#[test]
fn fixed_segments_beat_parameters() {
    assert_eq!(found(Method::GET, "/institutions/favorites"), "listFavoriteInstitutions");
    assert_eq!(found(Method::GET, "/institutions/chase"), "readInstitution");
    let iterations = "/users/U/spending_plans/S/iterations";
    assert_eq!(found(Method::GET, &format!("{iterations}/current")), "readCurrentSpendingPlanIteration");
    assert_eq!(found(Method::GET, &format!("{iterations}/7")), "readSpendingPlanIteration");
    assert_eq!(found(Method::GET, "/users/U/members/M/statements/S.pdf"), "downloadStatementPDF");
    assert_eq!(found(Method::GET, "/users/U/members/M/statements/S"), "readStatementByMember");
    assert_eq!(found(Method::GET, "/users/U/members/M/statements/.pdf"), "nothing");
    assert_eq!(found(Method::GET, "/vc/users/U/accounts/A/transactions"), "getTransactionsData");
}

#[test]
fn a_known_path_with_another_method_names_the_allowed_ones() {
    assert_eq!(found(Method::DELETE, "/users"), "allow GET, HEAD, POST");
    assert_eq!(found(Method::OPTIONS, "/users/U"), "allow DELETE, GET, HEAD, PUT");
    // MX might read this as an account called `merge`; we would rather refuse than guess.
    assert_eq!(found(Method::GET, "/users/U/accounts/merge"), "allow POST");
    assert_eq!(found(Method::GET, "/user"), "nothing");
}

#[test]
fn head_finds_the_get_and_only_that() {
    assert_eq!(found(Method::HEAD, "/users"), "listUsers");
    assert_eq!(found(Method::HEAD, "/users/U/investment_holdings_deactivate"), "deactivateUser");
    assert_eq!(found(Method::HEAD, "/transactions/enhance"), "allow POST");
}

#[test]
fn only_gets_without_effects_are_repeatable() {
    for operation in catalogue().operations() {
        let expected = operation.method == Method::GET && !GETS_WITH_EFFECTS.contains(&operation.id);
        assert_eq!(operation.repeatable, expected, "{}", operation.id);
    }
    // A misspelt exception would silently be repeated.
    for id in GETS_WITH_EFFECTS {
        assert!(!catalogue().by_id(id).unwrap().repeatable, "{id}");
    }
}

#[test]
fn the_four_bearer_operations_and_key_administration_are_marked() {
    let all = catalogue().operations().iter();
    let bearer = all.clone().filter(|o| o.credential == OperationCredential::Bearer).map(|o| o.template);
    assert_eq!(
        bearer.collect::<Vec<_>>(),
        ["/account/account_numbers", "/account/check_balance", "/account/transactions", "/payment_account"]
    );
    for operation in all {
        let admin = operation.template.starts_with("/clients");
        assert_eq!(operation.classes.contains(Class::KeyAdmin), admin, "{}", operation.id);
        let deletes = operation.method == Method::DELETE || operation.id == "deactivateUser";
        assert_eq!(operation.classes.contains(Class::Destructive), deletes, "{}", operation.id);
    }
}

#[test]
fn three_answers_hold_tokens_and_an_authorization_code_is_none() {
    let answering = catalogue().operations().iter().filter(|o| o.answers != Tokens::None);
    let answering: Vec<_> = answering.map(|o| (o.id, o.answers)).collect();
    let expected = [
        ("listTokens", Tokens::Any),
        ("exchangeProcessorCode", Tokens::New),
        ("exchangePaymentProcessorCode", Tokens::New),
    ];
    assert!(answering.len() == 3 && expected.iter().all(|one| answering.contains(one)), "{answering:?}");
}

#[test]
fn a_malformed_table_is_refused() {
    for line in [
        "GET\t/x",
        "PATCH\t/x\tx\tt\tbasic\tdocs\t-\t-\tread\t-",
        "GET\tx\tx\tt\tbasic\tdocs\t-\t-\tread\t-",
        "GET\t/x\tx\tt\tdigest\tdocs\t-\t-\tread\t-",
        "GET\t/x\tx\tt\tbasic\tv1\t-\t-\tread\t-",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\ttext/html\tread\t-",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\t-\treed\t-",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\t-\tread",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\t-\tread\tyes",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\t-\tread\t-\nGET\t/x\ty\tt\tbasic\tdocs\t-\t-\tread\t-",
        "GET\t/x\tx\tt\tbasic\tdocs\t-\t-\tread\t-\nGET\t/y\tx\tt\tbasic\tdocs\t-\t-\tread\t-",
    ] {
        let table: &'static str = format!("{HEADER}{line}").leak();
        assert!(Catalogue::parse(table).is_err(), "{line}");
    }
    let good: &'static str = format!("{HEADER}GET\t/x\tx\tt\tbasic\tdocs\t-\t-\tread\t-").leak();
    assert_eq!(Catalogue::parse(good).unwrap().operations().len(), 1);
}
