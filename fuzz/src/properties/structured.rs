//! Structured fields, beside another reader of them.

use sfv::{BareItem, Dictionary, List, ListEntry, Parser};

use crate::structured::{Bare, Member, dictionary, last, list};

/// Input: a field.
///
/// What the other one reads is read here, to the same values, except for inner lists, dates and display strings. What it does not
/// is not read here either, except that nobody here looks into byte sequences.
pub fn structured(data: &[u8]) {
    // The two differ in what they take for the end of a field, which HTTP takes off before.
    let field = data.trim_ascii();
    let has_bytes = field.contains(&b':');
    // What begins one of those; it may stand in a string as well.
    let has_more = field.iter().any(|byte| matches!(byte, b'(' | b'@' | b'%'));

    let (ours, theirs) = (list(field), Parser::new(field).parse::<List>());
    assert!(theirs.is_err() || ours.is_some() || has_more, "a list");
    assert!(has_bytes || ours.is_none() || theirs.is_ok(), "no list");
    if let (Some(ours), Ok(theirs)) = (ours, theirs) {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(&theirs).for_each(|(ours, theirs)| compare(ours, theirs));
    }

    let (ours, theirs) = (dictionary(field), Parser::new(field).parse::<Dictionary>());
    assert!(theirs.is_err() || ours.is_some() || has_more, "a dictionary");
    assert!(has_bytes || ours.is_none() || theirs.is_ok(), "no dictionary");
    if let (Some(ours), Ok(theirs)) = (ours, theirs) {
        assert!(ours.len() >= theirs.len());
        for (key, member) in &theirs {
            compare(last(&ours, key.as_str()).expect("a key"), member);
        }
    }
}

fn compare(ours: &Member<'_>, theirs: &ListEntry) {
    let ListEntry::Item(theirs) = theirs else { panic!("an inner list was read") };
    assert_eq!(ours.value, kind(&theirs.bare_item));
    for (name, value) in &theirs.params {
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
