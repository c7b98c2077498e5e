//! VLAN tags of a packet.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// VLAN ids of a packet: none, one tag, or two. Sorts by the outer id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Tags {
    /// Id of the only tag, or of the outer one; 0: untagged.
    pub outer: u16,
    /// Id of the inner tag; 0: there is none.
    pub inner: u16,
}

impl Tags {
    /// No tag.
    pub const NONE: Self = Self { outer: 0, inner: 0 };

    /// For people: `VLAN 101`, `VLAN 100.7`, `untagged`.
    #[must_use]
    pub fn in_words(self) -> String {
        if self == Self::NONE {
            "untagged".to_owned()
        } else {
            format!("VLAN {self}")
        }
    }
}

impl From<u16> for Tags {
    fn from(outer: u16) -> Self {
        Self { outer, inner: 0 }
    }
}

/// `101`, or `100.7` for two tags, the outer one first, as Linux names such devices.
impl fmt::Display for Tags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner {
            0 => write!(out, "{}", self.outer),
            inner => write!(out, "{}.{inner}", self.outer),
        }
    }
}

/// Not VLAN ids.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no VLAN id; write a number from 0 to 4094, or two such as 100.7, the outer tag first")]
pub struct TagsError(String);

impl FromStr for Tags {
    type Err = TagsError;

    fn from_str(text: &str) -> Result<Self, TagsError> {
        let error = || TagsError(text.to_owned());
        let id = |text: &str| text.parse::<u16>().ok().filter(|id| *id < 4095).ok_or_else(error);
        match text.split_once('.') {
            None => Ok(Self::from(id(text)?)),
            Some((outer, inner)) => match (id(outer)?, id(inner)?) {
                (0, _) | (_, 0) => Err(error()),
                (outer, inner) => Ok(Self { outer, inner }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tags;

    #[test]
    fn tags_are_read_as_they_are_written() {
        for (text, outer, inner) in [("0", 0, 0), ("101", 101, 0), ("100.7", 100, 7)] {
            let tags = Tags { outer, inner };
            assert_eq!(text.parse(), Ok(tags));
            assert_eq!(tags.to_string(), text);
        }
        for text in ["", "4095", "100.0", "0.7", "1.2.3", "x"] {
            assert!(text.parse::<Tags>().is_err(), "{text}");
        }
    }
}
