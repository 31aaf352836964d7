//! Values that hold several: lists, and lists or texts by name.

use super::{Table, shown_key};
use crate::config::{
    document::{Data, Entry, Node},
    fault::Problem,
    schema::Kind,
};

impl<'a> Table<'a> {
    /// What `parse` makes of each text of a list, without those that it refuses.
    pub(in crate::config) fn list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<T> {
        let Some(node) = self.get(name) else { return Vec::new() };
        self.texts_of(name, node, &parse).into_iter().map(|(_, parsed)| parsed).collect()
    }

    /// Each with its place in the list.
    fn texts_of<T>(
        &self,
        name: &str,
        node: &Node,
        parse: &impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<(usize, T)> {
        let Data::List(values) = &node.data else {
            self.mistyped(name, node, "a list of texts");
            return Vec::new();
        };
        let parse = |(index, value): (usize, &Node)| {
            let item = format!("{name}[{index}]");
            let Data::Text(text) = &value.data else {
                self.mistyped(&item, value, "text");
                return None;
            };
            parse(text).map_err(|problem| self.fault(&item, problem)).ok().map(|parsed| (index, parsed))
        };
        values.iter().enumerate().filter_map(parse).collect()
    }

    /// The whole numbers of a list, without those that are out of bounds.
    pub(in crate::config) fn integers(&self, name: &str) -> Vec<u64> {
        let Kind::Integers { min, max, unit } = self.key(name).kind else {
            unreachable!("{name} is no list of integers")
        };
        let Some(node) = self.get(name) else { return Vec::new() };
        let Data::List(values) = &node.data else {
            self.mistyped(name, node, &format!("a list of whole numbers of {unit}"));
            return Vec::new();
        };
        let read = |(index, value): (usize, &Node)| {
            let item = format!("{name}[{index}]");
            match value.data {
                Data::Integer(number) => {
                    let number = number.and_then(|number| u64::try_from(number).ok());
                    let found = number.filter(|number| (min..=max).contains(number));
                    if found.is_none() {
                        let bounds = format!("{min} to {max} {unit}");
                        self.fault(&item, Problem::new("is out of bounds").allowed(bounds));
                    }
                    found
                }
                _ => {
                    self.mistyped(&item, value, "a whole number");
                    None
                }
            }
        };
        values.iter().enumerate().filter_map(read).collect()
    }

    /// `{ ANY = [texts] }`: what `parse` makes of each text, with its place in its list, by name.
    pub(in crate::config) fn named_lists<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<(&'a str, Vec<(usize, T)>)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let Data::Table(entries) = &node.data else {
            self.mistyped(name, node, "lists by name, such as { production = [\"read\"] }");
            return Vec::new();
        };
        let read = |(entry_name, entry): (&'a String, &'a Entry)| {
            let item = format!("{name}.{}", shown_key(entry_name));
            (entry_name.as_str(), self.texts_of(&item, &entry.value, &parse))
        };
        entries.iter().map(read).collect()
    }

    /// `{ ANY = "text" }`.
    pub(in crate::config) fn named_texts(&self, name: &str) -> Vec<(&'a str, &'a str)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let Data::Table(entries) = &node.data else {
            self.mistyped(name, node, "texts by name, such as { prompt = \"consent\" }");
            return Vec::new();
        };
        let read = |(entry_name, entry): (&'a String, &'a Entry)| match &entry.value.data {
            Data::Text(text) => Some((entry_name.as_str(), text.as_str())),
            _ => {
                self.mistyped(&format!("{name}.{}", shown_key(entry_name)), &entry.value, "text");
                None
            }
        };
        entries.iter().filter_map(read).collect()
    }
}
