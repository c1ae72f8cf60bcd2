//! Structured fields, beside another reader of them.

use sfv::{BareItem, Dictionary, List, ListEntry, Parameters, Parser};

use crate::structured::{Bare, Member, dictionary, last, list};

/// Input: a field.
///
/// What the other one reads is read here, to the same values. What it does not is not read here either, except that
/// nobody here looks into byte sequences.
pub fn structured(data: &[u8]) {
    // The two differ in what they take for the end of a field, which HTTP takes off before.
    let field = data.trim_ascii();
    let has_bytes = field.contains(&b':');

    let (ours, theirs) = (list(field), Parser::new(field).parse::<List>());
    assert!(theirs.is_err() || ours.is_some(), "a list");
    assert!(has_bytes || ours.is_none() || theirs.is_ok(), "no list");
    if let (Some(ours), Ok(theirs)) = (ours, theirs) {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(&theirs).for_each(|(ours, theirs)| compare(ours, theirs));
    }

    let (ours, theirs) = (dictionary(field), Parser::new(field).parse::<Dictionary>());
    assert!(theirs.is_err() || ours.is_some(), "a dictionary");
    assert!(has_bytes || ours.is_none() || theirs.is_ok(), "no dictionary");
    if let (Some(ours), Ok(theirs)) = (ours, theirs) {
        assert!(ours.len() >= theirs.len());
        for (key, member) in &theirs {
            compare(last(&ours, key.as_str()).expect("a key"), member);
        }
    }
}

fn compare(ours: &Member<'_>, theirs: &ListEntry) {
    let params = match theirs {
        ListEntry::Item(item) => {
            assert_eq!(ours.value, kind(&item.bare_item));
            &item.params
        }
        ListEntry::InnerList(inner) => {
            assert_eq!(ours.value, Bare::Other);
            &inner.params
        }
    };
    compare_params(ours, params);
}

fn compare_params(ours: &Member<'_>, theirs: &Parameters) {
    for (name, value) in theirs {
        assert_eq!(ours.param(name.as_str()), Some(kind(value)));
    }
}

fn kind(item: &BareItem) -> Bare {
    match item {
        BareItem::Integer(number) => Bare::Integer((*number).into()),
        BareItem::String(_) | BareItem::Token(_) => Bare::Word,
        _ => Bare::Other,
    }
}
