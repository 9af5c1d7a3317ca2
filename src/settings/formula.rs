//! Worker counts as a formula in `n`, the number of cores: `2n+1`, `n/2`, `(n+1)/2`.

use std::fmt;

/// A formula in `n`, both as text and ready to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    text: String,
    steps: Vec<Instruction>,
}

/// The formula in reverse Polish notation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Instruction {
    Push(f64),
    PushN,
    Apply(char),
}

impl Formula {
    /// Reads `+ - * /`, parentheses, decimal numbers and `n`, with `2n` for `2*n`.
    ///
    /// # Errors
    /// Describes what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim(), steps: Vec::new(), depth: 0 };
        parser.sum()?;
        if let Some(odd) = parser.peek() {
            return Err(format!("{odd:?} is not expected there"));
        }
        if !parser.steps.contains(&Instruction::PushN) {
            return Err("a formula needs an n".into());
        }
        Ok(Self { text: text.trim().to_owned(), steps: parser.steps })
    }

    /// Evaluates it for `n` cores and rounds down. A result that is not a count (less than one, or a division by
    /// zero) becomes one worker.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn workers(&self, n: u32) -> u32 {
        let mut stack = Vec::new();
        for step in &self.steps {
            let value = match *step {
                Instruction::Push(number) => number,
                Instruction::PushN => f64::from(n),
                Instruction::Apply(operator) => {
                    let (right, left) = (stack.pop().unwrap_or(0.0), stack.pop().unwrap_or(0.0));
                    match operator {
                        '+' => left + right,
                        '-' => left - right,
                        '*' => left * right,
                        _ => left / right,
                    }
                }
            };
            stack.push(value);
        }
        let value: f64 = stack.pop().unwrap_or(1.0);
        // A float-to-integer cast saturates, and turns NaN into zero.
        if value.is_infinite() { 1 } else { (value as u32).max(1) }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Recursive descent over `sum := product (± product)*`, `product := factor (*|/ factor)*`.
struct Parser<'a> {
    rest: &'a str,
    steps: Vec<Instruction>,
    depth: u8,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: &[char]) -> Option<char> {
        let found = self.peek().filter(|letter| wanted.contains(letter))?;
        self.rest = self.rest[found.len_utf8()..].trim_start();
        Some(found)
    }

    fn sum(&mut self) -> Result<(), String> {
        self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            self.product()?;
            self.steps.push(Instruction::Apply(operator));
        }
        Ok(())
    }

    fn product(&mut self) -> Result<(), String> {
        self.factor()?;
        loop {
            if let Some(operator) = self.take(&['*', '/']) {
                self.factor()?;
                self.steps.push(Instruction::Apply(operator));
            } else if matches!(self.peek(), Some('n' | 'N' | '(')) {
                self.factor()?;
                self.steps.push(Instruction::Apply('*'));
            } else {
                return Ok(());
            }
        }
    }

    fn factor(&mut self) -> Result<(), String> {
        if self.take(&['n', 'N']).is_some() {
            self.steps.push(Instruction::PushN);
            return Ok(());
        }
        if self.take(&['(']).is_some() {
            self.depth += 1;
            if self.depth > 16 {
                return Err("the parentheses are nested too deep".into());
            }
            self.sum()?;
            self.depth -= 1;
            return self.take(&[')']).map(drop).ok_or_else(|| "a ) is missing".into());
        }
        let end = self.rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let value = number.parse().map_err(|_| match self.peek() {
            Some(odd) => format!("{odd:?} is neither a number nor n"),
            None => "it ends too early".into(),
        })?;
        self.rest = rest.trim_start();
        self.steps.push(Instruction::Push(value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_computed_and_rounded_down() {
        for (text, n, workers) in [
            ("2n+1", 4, 9),
            ("n/2", 3, 1),
            ("n/2", 1, 1),
            ("(n+1)/2", 4, 2),
            ("2*n + 1", 2, 5),
            ("n", 8, 8),
            ("1.5n", 3, 4),
            ("n-4", 2, 1),
            ("n/(n-2)", 2, 1),
        ] {
            assert_eq!(Formula::parse(text).unwrap().workers(n), workers, "{text} for n = {n}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "abc", "-1", "1e3", "2n+", "(n", "n)", "n n!", "2", "2n+x", "+", "((((((((((((((((((n"] {
            assert!(Formula::parse(text).is_err(), "{text:?}");
        }
    }
}
