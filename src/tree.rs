//! Ordered maps and sets, filled one by one.
//!
//! `collect` sorts what it is given first, which is faster for a million entries, and 5 KB of code for each type that is
//! sorted: a quarter of a megabyte in all, for maps of some ten entries.

/// A map or a set of `items`; of two with one key, the later.
pub(crate) fn tree<Tree: Default + Extend<Item>, Item>(items: impl IntoIterator<Item = Item>) -> Tree {
    let mut tree = Tree::default();
    tree.extend(items);
    tree
}

/// As [`tree`], if all of them are there.
pub(crate) fn tree_of_all<Tree: Default + Extend<Item>, Item>(
    items: impl IntoIterator<Item = Option<Item>>,
) -> Option<Tree> {
    let mut tree = Tree::default();
    for item in items {
        tree.extend([item?]);
    }
    Some(tree)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_later_of_two_stays() {
        let map: BTreeMap<_, _> = tree([(2, 'a'), (1, 'b'), (2, 'c')]);
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [(1, 'b'), (2, 'c')]);
    }

    #[test]
    fn all_or_none() {
        assert_eq!(tree_of_all([Some(2), Some(1)]), Some(BTreeSet::from([1, 2])));
        assert_eq!(tree_of_all::<BTreeSet<_>, _>([Some(2), None]), None);
    }
}
