//! Versions of Python packages, to the extent needed to compare releases.

use std::fmt;
use std::str::FromStr;

/// A release: major, minor, patch. Pre-release and local parts are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.trim().trim_start_matches('v').split('.').map(|part| {
            let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>()
        });
        let major = parts.next().and_then(Result::ok).ok_or(())?;
        let mut rest = || parts.next().and_then(Result::ok).unwrap_or(0);
        Ok(Self(major, rest(), rest()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared_as_numbers() {
        assert_eq!("2.8.7".parse(), Ok(Version(2, 8, 7)));
        assert_eq!("27.0".parse(), Ok(Version(27, 0, 0)));
        assert_eq!("26.1.0rc1".parse(), Ok(Version(26, 1, 0)));
        assert!("abc".parse::<Version>().is_err());
        assert!(Version(2, 10, 0) > Version(2, 9, 9));
    }
}
