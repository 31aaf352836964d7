use proptest::prelude::*;

use super::*;
use crate::oauth::store::cases::model::{keeps_to_the_model, steps};

proptest! {
    // Each step is synced to the disk several times.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_keeps_to_the_model(steps in steps()) {
        run(keeps_to_the_model(Box::new(Folder::with_store()), &steps));
    }
}
