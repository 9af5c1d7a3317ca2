//! The status page: one HTML file with its style and script, which asks for nothing but `status.json`. Pure.
//!
//! The page keeps the history that its plots show; the launcher keeps none. The policy that goes with it names style and
//! script by their hashes, so nothing else runs, and forbids the browser to make markup out of text.

use std::sync::LazyLock;

use base64ct::{Base64, Encoding};
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("plots.js"), include_str!("page.js"));

/// The page as it is sent.
#[derive(Debug)]
pub struct Page {
    /// The whole file.
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: String,
}

/// The page.
pub static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    html: HTML.replacen("{style}", STYLE, 1).replacen("{script}", SCRIPT, 1),
    policy: format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        source(SCRIPT),
        source(STYLE)
    ),
});

/// How a policy names an embedded text (CSP 3, 2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", Base64::encode_string(digest(&SHA256, text.as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an element of the page contains.
    fn content<'a>(page: &'a str, tag: &str) -> &'a str {
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once(&format!("</{tag}>")).unwrap().0
    }

    #[test]
    fn the_policy_names_what_the_page_embeds() {
        let Page { html, policy } = &*PAGE;
        for tag in ["style", "script"] {
            let hash = source(content(html, tag));
            assert!(policy.contains(&format!("{tag}-src '{hash}'")), "{tag} {hash}: {policy}");
            assert_eq!(html.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        assert!(!html.contains("{style}") && !html.contains("{script}"));
        // The hash of an empty text, from FIPS 180-4's test vectors.
        assert_eq!(source(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_no_text_becomes_markup() {
        let html = &PAGE.html;
        // The namespace of SVG is a name.
        let names = html.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !names.contains("http:")
                && !names.contains("https:")
                && !names.contains("url(")
                && !names.contains("@import")
        );
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            " style=\"",
            " onclick",
        ] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(html.len() < 40_000, "{} bytes", html.len());
    }
}
