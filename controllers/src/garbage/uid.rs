//! The uid of an object, in 17 bytes where it is a UUID as the API server makes them.
//!
//! An ownerReference may name any other text too.

use std::{fmt, sync::Arc};

use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Uid(Form);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// Written in lower case with hyphens.
    Uuid(Uuid),
    Other(Arc<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        let uuid = Uuid::try_parse(text)
            .ok()
            .map(|uuid| Uid(Form::Uuid(uuid)))
            .filter(|uid| uid.is(text));
        uuid.unwrap_or_else(|| Uid(Form::Other(text.into())))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(uuid) => uuid.fmt(f),
            Form::Other(text) => text.fmt(f),
        }
    }
}

impl Uid {
    pub fn is(&self, text: &str) -> bool {
        match &self.0 {
            Form::Uuid(uuid) => {
                *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text
            }
            Form::Other(own) => **own == *text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_the_very_text_that_it_was_made_from() {
        let small = "0f2d5a52-9d1c-4a34-9a4e-6a0f5a5b8f11";
        for text in [
            small,
            &small.to_uppercase(),
            &small.replace('-', ""),
            &format!("{{{small}}}"),
            "not-a-uuid",
            "",
        ] {
            let uid = Uid::from(text);
            assert_eq!(uid.to_string(), text);
            assert!(uid.is(text));
            assert_eq!(uid.is(small), text == small);
        }
        assert!(size_of::<Uid>() <= 24);
    }
}
