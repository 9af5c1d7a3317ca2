//! Permissions of a file.

use super::Value;

/// Permission bits, written in octal: `660`, `0660` or `0o660`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const METAVAR: &'static str = "MODE";

    fn expected() -> String {
        "an octal mode from 0 to 777, such as 660".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let is_octal = !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let mode = if is_octal { u32::from_str_radix(digits, 8).ok() } else { None };
        mode.filter(|mode| *mode <= 0o777).map(Self).ok_or(None)
    }

    fn show(&self) -> String {
        format!("{:03o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("660", 0o660), ("0660", 0o660), ("0o7", 0o7), ("777", 0o777)] {
            assert_eq!(FileMode::parse(text), Ok(FileMode(mode)), "{text}");
        }
        for text in ["", "888", "1777", "rw", "-1", "0x1", "0o"] {
            assert!(FileMode::parse(text).is_err(), "{text}");
        }
        assert_eq!(FileMode(0o7).show(), "007");
    }
}
