//! Tests that run with several servers.

/// Makes a test of each function, for each server: `gunicorn::NAME` and `granian::NAME`.
#[macro_export]
macro_rules! for_both_servers {
    ($($name:ident),+ $(,)?) => {
        mod gunicorn { $(#[test] fn $name() { super::$name("gunicorn"); })+ }
        mod granian { $(#[test] fn $name() { super::$name("granian"); })+ }
    };
}

/// Makes a test of each function, for each kind of server for WSGI apps: `gthread::NAME`, `gevent::NAME`, which are
/// Gunicorn's worker classes, and `granian::NAME`.
#[macro_export]
macro_rules! for_each_wsgi_kind {
    ($($name:ident),+ $(,)?) => {
        mod gthread { $(#[test] fn $name() { super::$name("gthread"); })+ }
        mod gevent { $(#[test] fn $name() { super::$name("gevent"); })+ }
        mod granian { $(#[test] fn $name() { super::$name("granian"); })+ }
    };
}

/// Makes tests of each function, for each kind of server: `NAME::gunicorn`, `NAME::granian`, and `NAME::asgi`, which is
/// Gunicorn with its own worker class.
#[macro_export]
macro_rules! for_every_kind {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[test] fn gunicorn() { super::$name("gunicorn"); }
            #[test] fn asgi() { super::$name("asgi"); }
            #[test] fn granian() { super::$name("granian"); }
        })+
    };
}

/// The server of a kind, and its worker class: a kind is a server, or a worker class of Gunicorn's.
pub fn server_and_class(kind: &str) -> (&str, &str) {
    match kind {
        "gunicorn" | "granian" => (kind, "auto"),
        class => ("gunicorn", class),
    }
}
