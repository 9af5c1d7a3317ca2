//! Words to choose from.

use super::Value;

/// Defines an enum whose variants are words that users write, in any case. Additional words of a variant are synonyms
/// used by other programs.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal $(| $synonym:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Value for $name {
            const METAVAR: &'static str = "WORD";

            fn expected() -> String {
                [$($word),+].join(", ")
            }

            fn parse(text: &str) -> Result<Self, Option<String>> {
                $(if [$word $(, $synonym)*].iter().any(|word| word.eq_ignore_ascii_case(text)) {
                    return Ok(Self::$variant);
                })+
                Err(None)
            }

            fn show(&self) -> String {
                self.word().into()
            }

            fn choices() -> &'static [&'static str] {
                &[$($word),+]
            }
        }
    };
}

choice! {
    /// The server that the user chooses.
    ServerChoice {
        /// Gunicorn.
        Gunicorn = "gunicorn",
        /// Granian.
        Granian = "granian",
        /// Gunicorn if it is installed, else Granian.
        Auto = "auto",
    }
}

choice! {
    /// What happens to a worker that uses a processor although it has nothing to do.
    Spin {
        /// It is reported, with its stacks.
        Report = "report",
        /// It is reported and replaced.
        Replace = "replace",
        /// Nobody looks.
        Off = "off",
    }
}

choice! {
    /// A server that this program can run.
    Server {
        /// Gunicorn, a pre-fork server.
        Gunicorn = "gunicorn",
        /// Granian, a server with its own HTTP stack in Rust.
        Granian = "granian",
    }
}

choice! {
    /// Whether mcp-launch keeps running.
    Mode {
        /// It keeps running and supervises the server.
        Supervise = "supervise",
        /// It is replaced by the server.
        Exec = "exec",
    }
}

choice! {
    /// When to restart a server that has ended.
    Restart {
        /// When it failed.
        OnFailure = "on-failure",
        /// Whenever it ended without being asked to.
        Always = "always",
        /// Never.
        No = "no",
    }
}

choice! {
    /// Whether clients must present a certificate.
    ClientVerify {
        /// They are not requested.
        None = "none" | "0",
        /// They are verified if presented.
        Optional = "optional" | "1",
        /// They are required.
        Required = "required" | "2",
    }
}

choice! {
    /// The oldest TLS version that is accepted.
    TlsVersion {
        /// TLS 1.2.
        V1_2 = "1.2" | "TLSv1_2" | "PROTOCOL_TLSv1_2",
        /// TLS 1.3.
        V1_3 = "1.3" | "TLSv1_3" | "PROTOCOL_TLSv1_3",
    }
}

choice! {
    /// Granian's threading model.
    RuntimeMode {
        /// Depends on the number of workers.
        Auto = "auto",
        /// Several runtime threads share a worker's work.
        Mt = "mt",
        /// One runtime per thread.
        St = "st",
    }
}

choice! {
    /// HTTP versions to speak.
    Http {
        /// Whatever the client negotiates.
        Auto = "auto",
        /// HTTP/1.1 only.
        V1 = "1",
        /// HTTP/2 only.
        V2 = "2",
    }
}

choice! {
    /// The event loop of Granian's workers.
    Loop {
        /// uvloop.
        Uvloop = "uvloop",
        /// The standard library's.
        Asyncio = "asyncio",
        /// rloop.
        Rloop = "rloop",
        /// The best one installed, as Granian decides.
        Auto = "auto",
    }
}

choice! {
    /// Granian's task implementation.
    TaskImpl {
        /// The standard library's.
        Asyncio = "asyncio",
        /// Granian's own, which breaks `FastAPI` apps and is not available on Python 3.12 and later.
        Rust = "rust",
        /// What Granian 1.7 chose between the two by the version of Python; asyncio here.
        Auto = "auto",
    }
}

choice! {
    /// Gunicorn's log levels.
    GunicornLogLevel {
        /// Everything.
        Debug = "debug",
        /// Normal events.
        Info = "info",
        /// Warnings.
        Warning = "warning" | "warn",
        /// Errors.
        Error = "error",
        /// Only errors that end the server.
        Critical = "critical",
    }
}

choice! {
    /// Granian's log levels.
    GranianLogLevel {
        /// Everything.
        Debug = "debug",
        /// Normal events.
        Info = "info",
        /// Warnings.
        Warning = "warning" | "warn",
        /// Errors.
        Error = "error",
        /// Only errors that end the server.
        Critical = "critical",
        /// As the loggers are configured.
        NotSet = "notset",
    }
}

choice! {
    /// mcp-launch's log levels.
    LogLevel {
        /// Every event of the supervisor.
        Debug = "debug",
        /// Normal events.
        Info = "info",
        /// Warnings.
        Warning = "warning" | "warn",
        /// Errors.
        Error = "error",
    }
}

choice! {
    /// mcp-launch's log formats.
    LogFormat {
        /// A line for people.
        Text = "text",
        /// A JSON object per line.
        Json = "json",
    }
}

impl Server {
    /// All of them, in the order in which they are preferred.
    pub const ALL: [Self; 2] = [Self::Gunicorn, Self::Granian];

    /// Its name in a sentence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Gunicorn => "Gunicorn",
            Self::Granian => "Granian",
        }
    }
}

impl ServerChoice {
    /// The servers that may be chosen, the preferred one first.
    #[must_use]
    pub const fn candidates(self) -> &'static [Server] {
        match self {
            Self::Gunicorn => &[Server::Gunicorn],
            Self::Granian => &[Server::Granian],
            Self::Auto => &Server::ALL,
        }
    }
}

impl From<Server> for ServerChoice {
    fn from(server: Server) -> Self {
        match server {
            Server::Gunicorn => Self::Gunicorn,
            Server::Granian => Self::Granian,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_in_any_case_and_shown_in_one() {
        assert_eq!(ServerChoice::parse("GRANIAN").map(|choice| choice.show()), Ok("granian".to_owned()));
        assert_eq!(ClientVerify::parse("2"), Ok(ClientVerify::Required));
        assert_eq!(TlsVersion::parse("tlsv1_3"), Ok(TlsVersion::V1_3));
        assert_eq!(Restart::parse("sometimes"), Err(None));
        assert_eq!(Mode::expected(), "supervise, exec");
    }
}
